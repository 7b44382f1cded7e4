"""Kills one command again and again, at random moments, until it has been killed often enough.

    python kill_loop.py PLAN.json

The program is loaded once, by one run that is left in peace and gives the reference. Each attempt is a fork
of this process that runs the real command line, so that it costs milliseconds and not the seconds that
loading a model library takes. Every attempt goes on
from what the one before left. When an attempt comes to its end, the digest of its output is noted and the
output removed, and the next begins from nothing.
"""

import contextlib
import gc
import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from irlhf.cli.app import main as irlhf


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    run(plan["reference"])  # the slow first time, with all that is loaded on the way
    output = Path(plan["output"])
    rng = random.Random(plan["seed"])
    kills, with_rows, finished = 0, 0, []
    longest = plan["share"] * peaceful_seconds(plan["arguments"], output)
    while kills < plan["kills"] or not finished:
        child = start(plan["arguments"])
        if kills < plan["kills"]:
            time.sleep(rng.uniform(0, longest))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            kills += 1
            partial = output.with_name(output.name + ".partial")
            with_rows += partial.exists() and partial.stat().st_size > 0
        else:
            assert os.WEXITSTATUS(status) == 0, status
            finished.append(hashlib.sha256(output.read_bytes()).hexdigest())
            left = clear(output.parent)
    print(json.dumps({"kills": kills, "with_rows": with_rows, "finished": finished, "left": left}))


def peaceful_seconds(arguments: list[str], output: Path) -> float:
    """Return how long the command takes when nobody kills it."""
    started = time.monotonic()
    _, status = os.waitpid(start(arguments), 0)
    assert os.WEXITSTATUS(status) == 0, status
    clear(output.parent)
    return time.monotonic() - started


def clear(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        (folder / name).unlink()
    return names


def start(arguments: list[str], before: Callable[[], None] = lambda: None) -> int:
    """Fork this process; the child does what is to be done `before`, runs the command line, and ends."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        before()
        code = run(arguments)
        gc.collect()  # closes what the end of a process closes
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(arguments: list[str]) -> int:
    sys.argv = ["irlhf", *arguments]
    try:
        irlhf()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


if __name__ == "__main__":
    main()
