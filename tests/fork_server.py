"""Runs the command line in a fresh process each time, at the price of a fork, with its waits made short.

    python fork_server.py

Orders come on stdin and outcomes leave on stdout, one JSON object a line. The program is loaded once; each order is
a fork that does what `irlhf` does, in a folder of its own. `crash` kills it, as kill -9 would, at that write of a JSON
file (1 is the first), before or after the file is there.
"""

import faulthandler
import gc
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai

import irlhf.evaluation.evaluate
import irlhf.rounds.rounds
import irlhf.sampling.remote
import irlhf.scoring.filters
import irlhf.training.hosted.run
from irlhf.cli.app import main as irlhf
from irlhf.io import files
from irlhf.openai_api import fine_tuning

SHORT = 0.001  # of every wait


def main() -> None:
    load_the_client()
    gc.freeze()  # the forks need not look through what is loaded
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            run(order)
        print(json.dumps({"pid": child}), flush=True)
        _, status = os.waitpid(child, 0)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        print(json.dumps({"code": code}), flush=True)


def load_the_client() -> None:
    """Load the modules that every order imports: the OpenAI client and the requests that it makes."""
    with openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0, timeout=0.1) as client:
        for request in (client.files.list, client.fine_tuning.jobs.list, client.models.list):
            with suppress(openai.APIConnectionError):
                request()


def run(order: dict[str, Any]) -> None:
    """Be the program."""
    code = 1
    try:
        os.chdir(order["folder"])
        for name, handle in (("stdin", 0), ("out.txt", 1), ("err.txt", 2)):
            flags = os.O_RDONLY if handle == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(os.devnull if handle == 0 else name, flags, 0o666), handle)
        shorten(order["patience"])
        crash(**order["crash"])
        sys.argv = ["irlhf", *order["arguments"]]
        os.environ.update(order["environment"])
        irlhf()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def shorten(patience: float) -> None:
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(seconds * SHORT)
    fine_tuning.TIMEOUT = patience


def crash(at: int = 0, after: bool = False) -> None:
    """Die at a certain write of a JSON file."""
    write, count = files.write_json, 0

    def counted(path: Path, value: Any) -> None:
        nonlocal count
        count += 1
        if count == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, value)
        if count == at and after:
            os.kill(os.getpid(), signal.SIGKILL)

    for module in list(sys.modules.values()):
        if getattr(module, "write_json", None) is write:
            module.write_json = counted  # type: ignore[attr-defined]


if __name__ == "__main__":
    faulthandler.enable()
    main()
