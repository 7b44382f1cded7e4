"""Run irlhf commands in sequence, with an estimate of the remaining time, and write their inputs."""

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
# The commands of the quickstart. Finished commands do nothing; for other settings, change the output names.
set -e
cd "$(dirname "$0")\""""

Run = Callable[[Sequence[str]], None]  # runs one irlhf command line


@dataclass(frozen=True)
class Step:
    """One command, and its typical duration in seconds."""

    command: str
    seconds: float

    @property
    def arguments(self) -> list[str]:
        """The command line after `irlhf`."""
        return shlex.split(self.command)

    def remaining(self, folder: Path) -> "Step":
        """Return the step with 0 seconds if its output exists in the folder."""
        output = self.arguments[self.arguments.index("-o") + 1]
        return replace(self, seconds=0.0) if (folder / output).exists() else self


def script(steps: Sequence[Step]) -> str:
    """Return a shell script of the commands."""
    return "\n".join([_SCRIPT, *(f"irlhf {step.command}" for step in steps), ""])


def run_all(steps: Sequence[Step], run: Run) -> None:
    """Run the commands. Prints each command and the remaining time before it runs."""
    started, typical = time.monotonic(), 0.0
    total = sum(step.seconds for step in steps)
    for number, step in enumerate(steps, 1):
        elapsed = time.monotonic() - started
        pace = max(0.5, elapsed / typical) if typical >= 5 else 1.0
        left = (total - typical) * pace
        console.note(f"\n[{number}/{len(steps)}, about {clock(left)} left] irlhf {step.command}")
        run(step.arguments)
        typical += step.seconds


def write_once(path: Path, text: str) -> None:
    """Write an input file of the commands. Raises ConfigError if it exists with another content."""
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise ConfigError(f"{path} already exists with another content; choose another folder with -o")
        return
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def report_usage(folder: Path, seconds: float) -> None:
    """Report the time and the memory of the commands."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss * 1024 / _GIB
    console.note(
        f"\n{folder}: {clock(seconds)} wall, {clock(used.ru_utime + used.ru_stime)} of CPU time,"
        f" peak memory {peak:.1f} GiB"
    )


def clock(seconds: float) -> str:
    """Return seconds as M:SS, such as 2:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Change the working directory within a with block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
