"""The `Format` of raw rows, the detection of a file's format, and the list of formats."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from irlhf.core.errors import DataError
from irlhf.core.example import Example, Where, keys_of
from irlhf.core.registry import FORMATS, lookup, resolve

_QUOTED = re.compile(r'"([^"]+)"')
_MAP = "--map prompt=COLUMN --map completion=COLUMN"
_SIMILAR = 0.75  # smallest similarity, of 1, at which a column name counts as a misspelled one
# Usual names of the two columns, in lower case, the most usual first.
_USUAL = {
    "prompt": ("prompt", "question", "instruction", "query", "input", "user"),
    "completion": ("completion", "answer", "response", "output", "reply", "assistant"),
}
_MOST_NAMES, _LONGEST_NAME = 100, 80  # columns, and characters of their names, that are compared with the formats


class Row(NamedTuple):
    """A raw row and its position."""

    where: Where
    fields: dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """A row that a format's rules reject, with the reason."""

    reason: str
    row: dict[str, Any]


@dataclass(frozen=True)
class Format:
    """A raw format: how its rows are recognised and how they become examples.

    `matches(fields)` returns whether a row has this format. `read(row, source)` yields the row's examples; ids of
    rows without one begin with `source`. It raises DataError for a row without the required columns. `gather` is for
    formats whose examples need several rows: it merges them into rows that `read` takes.
    """

    name: str  # as in `--format NAME` and in FORMATS
    fields: str  # columns that are read, for users; the required ones in double quotes
    becomes: str  # resulting rows, for users
    matches: Callable[[dict[str, Any]], bool]
    read: Callable[[Row, str], Iterator[Example | Rejected]]
    gather: Callable[[Iterator[Row]], Iterator[Row]] | None = None

    @property
    def reason(self) -> str:
        """Why a file was recognised as this format."""
        return f"{self.name}, because of {self.fields}"

    @property
    def required(self) -> list[str]:
        """The required columns."""
        return _QUOTED.findall(self.fields)


def has_keys(*names: str) -> Callable[[dict[str, Any]], bool]:
    """Return a `matches` that is true for rows with all of these columns."""
    required = set(names)
    return lambda fields: required <= fields.keys()


def find_format(name: str) -> Format:
    """Return the format called `name`. Raises ConfigError with the nearest name."""
    known: Format = lookup(FORMATS, name, "format")
    return known


def formats() -> list[Format]:
    """Return all formats, the most specific first."""
    return [resolve(path) for path in FORMATS.values()]


def detect(row: Row) -> Format:
    """Return the first format that matches a file's first row. Raises DataError with the row's keys."""
    for candidate in formats():
        if candidate.matches(row.fields):
            return candidate
    usual = _usual(row.fields)
    hint = f"if these are prompt and completion, use {usual}" if usual else f"{_nearest(row.fields)}; use {_MAP}"
    keys = keys_of(row.fields)
    raise DataError(f"{row.where}: no known format has the keys {keys}; {hint}, or see `irlhf prepare --list-formats`")


def table() -> str:
    """Return the list of formats, two lines each: the columns, and the resulting rows."""
    known = formats()
    width = max(len(entry.name) for entry in known)
    return "\n".join(f"{entry.name:{width}}  {entry.fields}\n{'':{width}}  → {entry.becomes}" for entry in known)


def _usual(fields: dict[str, Any]) -> str:
    """Return the options of --map for a prompt and a completion under usual names; empty unless both are there."""
    columns = {name.lower(): name for name in islice(fields, _MOST_NAMES) if isinstance(fields[name], str)}
    chosen = [next((columns[known] for known in usual if known in columns), "") for usual in _USUAL.values()]
    options = [f"--map {shlex.quote(f'{key}={name}')}" for key, name in zip(_USUAL, chosen, strict=True)]
    return " ".join(options) if all(chosen) else ""


def _nearest(fields: dict[str, Any]) -> str:
    """Return the most similar format and the columns it misses, for an error message."""
    names = [name[:_LONGEST_NAME] for name in islice(fields, _MOST_NAMES)]
    # Of equally similar formats the last, because more general formats come later.
    nearest = max(reversed(formats()), key=lambda candidate: _similarity(candidate, names))
    missing = [key for key in nearest.required if key not in fields]
    if missing:
        return f"the nearest, {nearest.name}, lacks {', '.join(missing)}"
    return f"the nearest is {nearest.name}, which reads {nearest.fields}"


def _similarity(candidate: Format, names: Sequence[str]) -> float:
    keys = candidate.required
    return sum(max((_name_similarity(key, name) for name in names), default=0.0) for key in keys) / len(keys)


@lru_cache(2**14)  # all rows of an unknown file have the same names
def _name_similarity(key: str, name: str) -> float:
    ratio = 1.0 if key == name else SequenceMatcher(None, key, name.lower()).ratio() * 0.9
    return ratio if ratio > _SIMILAR else 0.0
