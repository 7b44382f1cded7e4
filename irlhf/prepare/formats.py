"""What a raw format is: a module with `matches` and `read`. Adding one is a file and a row in the registry."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from irlhf.errors import DataError
from irlhf.records import Example, Where
from irlhf.registry import FORMATS, lookup, resolve


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
    """A reader of one family of raw rows."""

    FIELDS: str  # the keys it reads, as an error message lists them

    def matches(self, row: dict[str, Any]) -> bool:
        """Return whether a row has this shape."""

    def read(self, row: Row, source: str) -> Iterator[Example | Rejected]:
        """Yield the examples of a row. Raises DataError for a row that does not have the shape."""


def find_format(name: str) -> Format:
    """Return the format called `name`. Raises ConfigError with the nearest name."""
    found: Format = lookup(FORMATS, name, "format")
    return found


def detect(row: Row) -> Format:
    """Return the first format that fits a file's first row. Raises DataError with the keys found."""
    formats: dict[str, Format] = {name: resolve(door) for name, door in FORMATS.items()}
    for reader in formats.values():
        if reader.matches(row.fields):
            return reader
    known = "; ".join(f"{name}: {reader.FIELDS}" for name, reader in formats.items())
    raise DataError(f"{row.where}: no known format has the keys {', '.join(row.fields) or 'none'} ({known})")
