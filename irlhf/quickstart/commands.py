"""Run irlhf commands one after another in a folder, with the time that is left, and write what they start from."""

import os
import resource
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.io.files import whole_file

_GIB = 2**30
_SCRIPT = """#!/bin/sh
# What the quickstart ran. Finished commands do nothing; for other settings write to other names.
set -e
cd "$(dirname "$0")\""""

Run = Callable[[Sequence[str]], None]  # runs one irlhf command line


@dataclass(frozen=True)
class Step:
    """One command, and the seconds it takes, for the time left."""

    command: str
    seconds: float

    @property
    def arguments(self) -> list[str]:
        """The command line behind `irlhf`."""
        return shlex.split(self.command)

    def remaining(self, folder: Path) -> "Step":
        """Return the step with no seconds where an earlier run left its output in the folder."""
        output = self.arguments[self.arguments.index("-o") + 1]
        return replace(self, seconds=0.0) if (folder / output).exists() else self


def script(steps: Sequence[Step]) -> str:
    """Return a shell script of the commands."""
    return "\n".join([_SCRIPT, *(f"irlhf {step.command}" for step in steps), ""])


def run_all(steps: Sequence[Step], run: Run) -> None:
    """Run the commands, each printed before it runs, with the time that is left."""
    started, typical = time.monotonic(), 0.0
    total = sum(step.seconds for step in steps)
    for number, step in enumerate(steps, 1):
        gone = time.monotonic() - started
        pace = max(0.5, gone / typical) if typical >= 5 else 1.0
        left = (total - typical) * pace
        console.note(f"\n[{number}/{len(steps)}, about {clock(left)} left] irlhf {step.command}")
        run(step.arguments)
        typical += step.seconds


def write_once(path: Path, text: str) -> None:
    """Write a file that the commands start from. Raises ConfigError where the file is there with another text."""
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise ConfigError(f"{path} is not what this quickstart starts from; name another folder with -o")
        return
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def report_usage(folder: Path, seconds: float) -> None:
    """Say how much time and memory the commands took."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss * 1024 / _GIB
    console.note(
        f"\n{folder}: {clock(seconds)} wall, {clock(used.ru_utime + used.ru_stime)} of processor time,"
        f" {peak:.1f} GiB of memory at most"
    )


def clock(seconds: float) -> str:
    """Return minutes and seconds, as in 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
