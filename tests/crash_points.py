"""Kills a command at chosen moments, lets it go on, and tells what then differs from a run that was left in peace.

    python crash_points.py PLAN.json

The program is loaded once, by the run that is left in peace; every other run is a fork of this process (see
kill_loop.py). A moment is counted in changes of the disk below the working folder: files opened to be written, renamed,
removed and linked, folders made. The nth change is not made any more; with `delay` it is made, and the blow falls so
many seconds later, in the middle of what comes then.
"""

import gc
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from kill_loop import run, start

PLAN = "plan.json"
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR
LATEST = 0.2  # seconds


@dataclass(frozen=True)
class Moment:
    """When a run is killed."""

    at: int = 0  # the change, 1 is the first
    delay: float = 0.0
    change: str = ""  # what it is, where that is known better than its number


class Watcher:
    """Counts the changes of this process, and kills it at its moment."""

    def __init__(self) -> None:
        self.home, self.seen, self.moment = os.getcwd(), list[str](), Moment()
        self.counting = True
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.counting or not (event in CHANGES or (event == "open" and arguments[2] & WRITES)):
            return
        path = arguments[1] if event in ("os.rename", "os.symlink") else arguments[0]
        if isinstance(path, int) or not os.path.abspath(path).startswith(self.home + "/"):
            return
        self.seen.append(f"{event.removeprefix('os.')} {os.path.relpath(path)}")
        if self.moment.at == len(self.seen) or self.moment.change == self.seen[-1]:
            if not self.moment.delay:
                strike()
            threading.Timer(self.moment.delay, strike).start()

    def watch(self, moment: Moment) -> None:
        self.seen.clear()
        self.moment = moment


def strike() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    plan = json.loads(Path(PLAN).read_text())
    watcher = Watcher()
    sys.dont_write_bytecode = True  # which this run alone would
    assert run(plan["arguments"]) == 0
    gc.collect()  # closes what the end of a process closes
    changes, whole = list(watcher.seen), snapshot()
    watcher.counting = False
    rng = random.Random(plan["seed"])
    lives = [[Moment(at)] for at in sorted({at for change in plan["exact"] for at in around(changes, change)})]
    lives += [[Moment(change=change) for change in plan["chain"]]] if plan["chain"] else []
    lives += [by_lot(rng, len(changes), plan["lives"]) for _ in range(plan["lots"])]
    print(json.dumps({"changes": len(changes), "lives": [live(plan, watcher, whole, one) for one in lives]}))


def around(changes: Sequence[str], change: str) -> tuple[int, int]:
    """Return the moment before a change, and that after it, which is before the next."""
    place = changes.index(change) + 1
    return place, place + 1


def by_lot(rng: random.Random, changes: int, lives: int) -> list[Moment]:
    """Return moments by lot, each of a run that goes on from the one before; half of them behind their change."""
    return [
        Moment(rng.randint(1, changes // (1 + number)), rng.choice([0.0, rng.uniform(0, LATEST)]))
        for number in range(lives)
    ]


def live(plan: dict[str, Any], watcher: Watcher, whole: dict[str, str], moments: Sequence[Moment]) -> dict[str, Any]:
    """Kill runs one after the other, let the last one end, and return what happened."""
    clear(plan["output"])
    codes = [one_run(plan, watcher, moment) for moment in (*moments, Moment())]
    found = snapshot()
    different = sorted(name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name))
    return {"moments": list(map(str, moments)), "codes": codes, "different": different}


def one_run(plan: dict[str, Any], watcher: Watcher, moment: Moment) -> int:
    """Run the command in a fork up to a moment, if it has one, and return its exit code, or minus the signal."""

    def begin() -> None:
        watcher.counting = True
        watcher.watch(moment)

    _, status = os.waitpid(start(plan["arguments"], begin), 0)
    return os.waitstatus_to_exitcode(status)


def clear(output: str) -> None:
    """Remove all that a run left."""
    for path in Path().glob(f"{output}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def snapshot() -> dict[str, str]:
    """Return what stands below the working folder, but for the plan: of each name what it holds."""
    return {str(path): held(path) for path in Path().rglob("*") if path.name != PLAN}


def held(path: Path) -> str:
    """Return what a name holds, without what a run says of itself: the time it took, how much it found done."""
    if path.is_symlink():
        return f"to {os.readlink(path)}"
    if path.is_dir():
        return "a folder"
    if path.suffix == ".sqlite":
        with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(shutil.copy(path, folder))) as base:
            return str(sorted(base.execute("SELECT * FROM replies")))
    if path.name.endswith(".run.json"):
        tree = json.loads(path.read_text())
        counts = tree.get("counts", {})
        # Of the rows some were kept of the run before, if there was one.
        counts["written"] = counts.get("written", 0) + counts.pop("resumed", 0)
        return json.dumps(tree)
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return str([{name: value for name, value in row.items() if name != "seconds"} for row in rows])
    return sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
