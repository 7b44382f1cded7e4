"""Notes, warnings, errors and progress on stderr, without control characters."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# C0 except newline and tab, DEL, C1, and the characters that change text direction. Output of a model or a data set
# could use them to rewrite the screen or to hide text.
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


_PLAIN_SECONDS = 10  # at least, between two plain progress lines
_PLAIN_SHARE = 0.1  # of the time so far, at least, so that long work prints few lines

PROCESSES = int(os.environ.get("WORLD_SIZE", "1"))  # number of processes started by torchrun
FIRST = os.environ.get("RANK", "0") == "0"  # only the first process prints

_console = Console(stderr=True, soft_wrap=True, highlight=False)
_quiet = False


def be_quiet(quiet: bool) -> None:
    """Turn notes and progress off or on (`--quiet`). Warnings and errors are always printed."""
    global _quiet  # noqa: PLW0603 - one process has one terminal
    _quiet = quiet


@contextmanager
def silenced() -> Iterator[None]:
    """Turn notes and progress off inside the block."""
    before = _quiet
    be_quiet(True)
    try:
        yield
    finally:
        be_quiet(before)


def clean(text: str) -> str:
    """Return the text with every control character replaced by a visible mark."""
    return CONTROL_CHARACTERS.sub("\N{SYMBOL FOR SUBSTITUTE FORM TWO}", text)


def note(text: str) -> None:
    """Print a note, unless `--quiet` is set."""
    if FIRST and not _quiet:
        _console.print(Text(clean(text)))


def warn(text: str) -> None:
    """Print a warning, even if `--quiet` is set."""
    if FIRST:
        _console.print(Text(f"warning: {clean(text)}", style="yellow"))


def error(text: str) -> None:
    """Print the error that stops the command, on one line."""
    line = clean(text.replace("\n", " "))
    _console.print(Text(f"irlhf: {line}", style="red"))


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that counts finished work; show a bar on a terminal, else a line now and then."""
    if _quiet:
        yield lambda steps: None
    elif _console.is_terminal:
        with _bar() as bar:
            task = bar.add_task(label, total=total)
            yield lambda steps: bar.advance(task, steps)
    else:
        yield _Lines(label, total)


class _Lines:
    """Progress without a terminal: a plain line with the rate and the time left, every ten seconds or more."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label, self.total = label, total
        self.count = 0
        self.started = self.printed = time.monotonic()

    def __call__(self, steps: int) -> None:
        self.count += steps
        now = time.monotonic()
        seconds = now - self.started
        due = now - self.printed >= max(_PLAIN_SECONDS, _PLAIN_SHARE * seconds)
        if not due or not self.count or self.count == self.total:
            return
        self.printed = now
        text = f"{self.label}: {self.count:,}"
        if self.total:
            left = timedelta(seconds=round(seconds / self.count * (self.total - self.count)))
            text += f" of {self.total:,} ({100 * self.count // self.total}%), {left} left"
        print(f"{text}, {self.count / seconds:,.1f}/s", file=sys.stderr)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Speed(""),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=_console,
        transient=True,
    )


class _Speed(TextColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")
