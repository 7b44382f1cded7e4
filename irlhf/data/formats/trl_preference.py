"""TRL's preferences, of text or messages, with a prompt or with one that both sides begin with; Tulu's too."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.pairwise import pair, shared_beginning

FIELDS = '"chosen" and "rejected", texts or messages, and a prompt or the same beginning'
BECOMES = "two rows a pair, labelled; without a prompt it is the longest beginning that both share"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds both sides, and what they answer."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str) and row.get("prompt") is None:
        return bool(shared_beginning(chosen, rejected))
    return all(isinstance(side, str | list) for side in (chosen, rejected))


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both sides."""
    yield from pair(row, source)
