"""Runs a study: irlhf's commands over a grid of seeds and settings, each combination in a folder of its own.

    python studies/run.py studies/quickstart.yaml -o FOLDER [--jobs 2] [--only seed=0] [--dry-run]

A study is a YAML file:

    grid: {seed: [0, 1, 2]}              # every combination is a cell
    commands:                            # run in this order in FOLDER/<cell>
      - irlhf quickstart --seed {seed} -o .
      - each: {epochs: [3, 6, 12]}       # once for every combination; `run` may be a list
        run: irlhf finetune scored.jsonl -r {here}/rewards.yaml --epochs {epochs} -o policy-{epochs}
    results: {tracking: eval.json}       # JSON files of a cell that go into its row

`{here}` is the folder of the YAML file, a brace itself is written twice. `irlhf` and `python` are those of this
interpreter. There is no shell: for pipes and the like name a script (`sh {here}/more.sh`).

    FOLDER/results.jsonl      one row for each complete cell: study, cell, commit, versions, seconds, results
    FOLDER/<cell>/study.log   every command with its output and its exit code
    FOLDER/<cell>/study.json  the commands that are done

Killed at any moment, the same line goes on: what is done is not run again, and irlhf's own commands go on
where they were. A command that fails stops its cell, the others go on, and the exit code is 1. A command
whose text has changed is run again with all that follow it; where irlhf finds its output begun otherwise,
it says what to delete.

In a row, `commit` is irlhf's checkout; it is dirty where not all of the cell was made by exactly that
commit. `seconds` of a command that did not run in one go are "not available". The single points of an
evaluation are left out.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import irlhf
from irlhf.core import console
from irlhf.core.errors import ConfigError, IrlhfError
from irlhf.core.example import dumps
from irlhf.io.files import disk_error, read_json, read_rows, whole_file, write_json
from irlhf.io.resumable import lock
from plan import HERE, Cell, Study, cells, only, read_study

RESULTS, LOG, MEMORY, LOCK = "results.jsonl", "study.log", "study.json", "study.lock"
NOT_AVAILABLE = "not available"

_VERSIONS = ("torch", "transformers")
_PATIENCE = 20.0  # seconds that a command has to end by itself
_POLL = 0.1  # seconds


@dataclass(frozen=True)
class Task:
    """A study that runs: its YAML, where its cells stand, how many run side by side."""

    study: Study
    source: Path
    folder: Path
    jobs: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="the YAML file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where the cells stand")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells side by side, one thread each")
    parser.add_argument("--only", action="append", default=[], metavar="NAME=VALUE", help="only cells like this")
    parser.add_argument("--dry-run", action="store_true", help="show the commands and do nothing")
    given = parser.parse_args(arguments)
    try:
        task = Task(read_study(given.study), given.study, given.output, given.jobs)
        chosen = only(cells(task.study, str(task.source)), given.only)
        if given.dry_run:
            show(chosen, task.folder)
            return 0
        return asyncio.run(run_study(task, chosen))
    except IrlhfError as error:
        console.error(str(error))
        return error.exit_code
    except (KeyboardInterrupt, asyncio.CancelledError) as stopped:
        console.error("stopped; the same command goes on from here")
        return 128 + (signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGTERM)


def show(cells: Sequence[Cell], folder: Path) -> None:
    """Print what would run, in order; what is done already behind a #."""
    for cell in cells:
        done = _done(cell, folder / cell.name)
        print(f"# {cell.name}: {len(cell.commands)} commands, {done} done")
        for number, command in enumerate(cell.commands):
            print(f"# {command}" if number < done else command)


async def run_study(task: Task, chosen: Sequence[Cell]) -> int:
    """Run the cells, `jobs` side by side, and return the exit code."""
    if task.jobs < 1:
        raise ConfigError(f"--jobs {task.jobs}: write 1 or more")
    ours = asyncio.current_task()
    assert ours is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ours.cancel)
    results = task.folder / RESULTS
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(task.folder, error) from error
    slots = asyncio.Semaphore(task.jobs)
    with lock(results):
        complete = await asyncio.gather(*(_run_cell(task, cell, slots) for cell in chosen))
    console.note(f"{sum(complete)} of {len(chosen)} cells are complete" + (f": {results}" if any(complete) else ""))
    return 0 if all(complete) else 1


async def _run_cell(task: Task, cell: Cell, slots: asyncio.Semaphore) -> bool:
    """Run what is left of a cell and keep its row; return whether it is complete."""
    folder = task.folder / cell.name
    try:
        async with slots:
            folder.mkdir(exist_ok=True)
            async with _held(folder) as handle:
                complete = await _run_commands(_Run(task, cell, folder, handle))
                if complete:
                    _keep(_row(task, cell), task.folder / RESULTS)
                return complete
    except IrlhfError as error:
        console.error(f"{cell.name}: {error}")
        return False


@dataclass(frozen=True)
class _Run:
    """A cell while it runs."""

    task: Task
    cell: Cell
    folder: Path
    lock: int  # the file descriptor of its lock


async def _run_commands(run: _Run) -> bool:
    """Run the commands behind the last one that is done; return whether all of them went well."""
    memory = _memory(run.folder)
    number = _done(run.cell, run.folder)
    del memory["done"][number:]
    for command in run.cell.commands[number:]:
        console.note(f"{run.cell.name} [{len(memory['done']) + 1}/{len(run.cell.commands)}] {command}")
        one_go = command not in memory["begun"]
        if one_go:
            memory["begun"].append(command)
        write_json(run.folder / MEMORY, memory)
        made, started = _provenance(), time.monotonic()
        code = await _run_command(run, command)
        if code:
            return False
        seconds = round(time.monotonic() - started, 2) if one_go else NOT_AVAILABLE
        memory["done"].append({"command": command, "seconds": seconds, **made})
        write_json(run.folder / MEMORY, memory)
    return True


async def _run_command(run: _Run, command: str) -> int:
    """Run one command to its end, its output in the cell's log; return its exit code."""
    here = str(run.task.source.resolve().parent)
    parts = [part.replace(f"{{{HERE}}}", here) for part in shlex.split(command)]
    program = [sys.executable, "-m", "irlhf", *parts[1:]] if parts[0] == "irlhf" else parts
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # so that `python` is this one
    settings = {**os.environ, "PATH": path, **({"OMP_NUM_THREADS": "1"} if run.task.jobs > 1 else {})}
    with (run.folder / LOG).open("ab", buffering=0) as log:
        log.write(f"$ {command}\n".encode())
        begin = log.tell()
        try:
            child = await asyncio.create_subprocess_exec(
                *program,
                cwd=run.folder,
                env=settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that it, and all that it starts, can be ended together
                pass_fds=(run.lock,),
            )
        except OSError as error:
            log.write(f"# cannot be run ({error.strerror})\n".encode())
            raise ConfigError(f"'{command}' cannot be run ({error.strerror})") from error
        code = await _end_of(child)
        log.write(f"# exit code {code}\n".encode())
    if code:
        said = (run.folder / LOG).read_bytes()[begin:].decode(errors="replace").strip().split("\n")
        last = said[-2] if len(said) > 1 else "it said nothing"
        console.error(f"{run.cell.name}: '{command}' ended with code {code}: {last} (all of it: {run.folder / LOG})")
    return code


async def _end_of(child: asyncio.subprocess.Process) -> int:
    """Wait for a command. Where we are to stop, so is it: asked first, then made to."""
    try:
        return await child.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(child.wait(), _PATIENCE)
            except TimeoutError:
                os.killpg(child.pid, signal.SIGKILL)
        raise


@contextlib.asynccontextmanager
async def _held(folder: Path) -> AsyncIterator[int]:
    """Hold a cell. Its commands inherit the lock: one that outlived a killed run is waited for, not doubled."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    waiting = False
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    console.note(f"{folder.name}: waiting for a command that a killed run left behind")
                waiting = True
                await asyncio.sleep(_POLL)
        yield handle
    finally:
        os.close(handle)


def _memory(folder: Path) -> dict[str, Any]:
    """Return which commands of a cell were begun, and which are done, each with its seconds and its makers."""
    return read_json(folder / MEMORY) if (folder / MEMORY).exists() else {"begun": [], "done": []}


def _done(cell: Cell, folder: Path) -> int:
    """Return how many commands, from the first on, are done as they stand."""
    done = [one["command"] for one in _memory(folder)["done"]]
    same = [was == now for was, now in zip(done, cell.commands, strict=False)]
    return same.index(False) if False in same else len(same)


def _provenance() -> dict[str, Any]:
    """Return the commit and the versions that a command runs with."""
    checkout = Path(irlhf.__file__).parents[1]
    described = ""
    if (checkout / ".git").exists():
        asked = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        with contextlib.suppress(FileNotFoundError):
            described = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    commit = {"rev": described.removesuffix("-dirty") or NOT_AVAILABLE, "dirty": described.endswith("-dirty")}
    python = ".".join(map(str, sys.version_info[:3]))
    versions = {"irlhf": irlhf.__version__, "python": python, **{name: version(name) for name in _VERSIONS}}
    return {"commit": commit, "versions": versions}


def _row(task: Task, cell: Cell) -> dict[str, Any]:
    """Return the row of a complete cell."""
    folder = task.folder / cell.name
    done = _memory(folder)["done"]
    mixed = any(one["commit"] != done[-1]["commit"] for one in done)
    return {
        "study": task.source.stem,
        "cell": cell.values,
        "commit": {**done[-1]["commit"], "dirty": mixed or done[-1]["commit"]["dirty"]},
        "versions": done[-1]["versions"],
        "seconds": {one["command"]: one["seconds"] for one in done},
        "results": {name: _without_points(read_json(folder / path)) for name, path in task.study.results.items()},
    }


def _without_points(result: dict[str, Any]) -> dict[str, Any]:
    """Leave the single points out of an evaluation; they are for its pictures."""
    if "tradeoff" in result:
        for policy in result["policies"].values():
            for found in policy["rewards"].values():
                found.pop("points", None)
    return result


def _keep(row: dict[str, Any], path: Path) -> None:
    """Put a cell's row into the results, in place of an earlier one of the same cell."""
    before = [one for _, one in read_rows(path)] if path.exists() else []
    if row in before:
        return
    others = [one for one in before if (one["study"], one["cell"]) != (row["study"], row["cell"])]
    with whole_file(path) as temporary:
        temporary.write_bytes(b"".join(map(dumps, [*others, row])))


if __name__ == "__main__":
    sys.exit(main())
