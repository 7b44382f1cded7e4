"""What a raw format is: a module with `matches` and `read`. Adding one is a file and a row in the registry."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple, Protocol

from irlhf.core.errors import DataError
from irlhf.core.example import Example, Where, keys_of
from irlhf.core.registry import FORMATS, lookup, resolve

_KEY = re.compile(r'"([^"]+)"')
_ALIKE = 0.75  # of 1: how near a column's name is to the one that a format reads
_MOST, _LONGEST = 100, 80  # columns and characters of their names that are held to those of every format


class Row(NamedTuple):
    """One raw row and its place."""

    where: Where
    fields: dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """What a format's rule sets aside, with the reason."""

    reason: str
    row: dict[str, Any]


class Format(Protocol):
    """A reader of one family of raw rows.

    One whose examples take several rows has `gathered` as well, which turns an iterator of rows into one of the rows
    that `read` takes.
    """

    FIELDS: str  # the keys it reads, the needed ones in quotation marks
    BECOMES: str  # what is made of a row

    def matches(self, row: dict[str, Any]) -> bool:
        """Return whether a row has this shape."""

    def read(self, row: Row, source: str) -> Iterator[Example | Rejected]:
        """Yield the examples of a row. Raises DataError for a row that does not have the shape."""


class Known(NamedTuple):
    """One format by its name."""

    name: str
    reader: Format

    @property
    def reason(self) -> str:
        """Why a file was taken for this."""
        return f"{self.name}, because of {self.reader.FIELDS}"


def find_format(name: str) -> Known:
    """Return the format called `name`. Raises ConfigError with the nearest name."""
    return Known(name, lookup(FORMATS, name, "format"))


def formats() -> list[Known]:
    """Return every format, the most specific first."""
    return [Known(name, resolve(door)) for name, door in FORMATS.items()]


def detect(row: Row) -> Known:
    """Return the first format that fits a file's first row. Raises DataError with the keys found."""
    for known in formats():
        if known.reader.matches(row.fields):
            return known
    raise DataError(
        f"{row.where}: no known format has the keys {keys_of(row.fields)}; {_nearest(row.fields)}"
        "; --map prompt=COLUMN --map completion=COLUMN reads any other, `irlhf prepare --list-formats` shows all"
    )


def table() -> str:
    """Return every format with what it reads and what that becomes, one a line."""
    known = formats()
    width = max(len(known_format.name) for known_format in known)
    return "\n".join(
        f"{known_format.name:{width}}  {known_format.reader.FIELDS}\n{'':{width}}  → {known_format.reader.BECOMES}"
        for known_format in known
    )


def needed(reader: Format) -> list[str]:
    """Return the keys that a format cannot do without."""
    return _KEY.findall(reader.FIELDS)


def _nearest(fields: dict[str, Any]) -> str:
    """Say which format a row is nearest to, and what it lacks."""
    names = [name[:_LONGEST] for name in islice(fields, _MOST)]
    # The last, because the most general one is the likeliest of those that are as near.
    nearest = max(reversed(formats()), key=lambda known: _nearness(known.reader, names))
    lacking = [key for key in needed(nearest.reader) if key not in fields]
    if lacking:
        return f"the nearest, {nearest.name}, lacks {', '.join(lacking)}"
    return f"the nearest is {nearest.name}, which reads {nearest.reader.FIELDS}"


def _nearness(reader: Format, names: Sequence[str]) -> float:
    keys = needed(reader)
    return sum(max((_alike(key, name) for name in names), default=0.0) for key in keys) / len(keys)


@lru_cache(2**14)  # an unknown file has the same names in every row
def _alike(key: str, name: str) -> float:
    ratio = 1.0 if key == name else SequenceMatcher(None, key, name.lower()).ratio() * 0.9
    return ratio if ratio > _ALIKE else 0.0
