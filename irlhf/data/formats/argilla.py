"""Argilla's pairs: an instruction and two responses, each with the mean of its ratings."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.pairwise import Keys, pair

KEYS = Keys("chosen_response", "rejected_response", "instruction")
FIELDS = '"instruction", "chosen_response", "rejected_response", often chosen_avg_rating'
BECOMES = "two rows a pair, labelled, each with its avg_rating"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds an instruction and both responses."""
    return set(KEYS) <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both responses."""
    yield from pair(row, source, KEYS)
