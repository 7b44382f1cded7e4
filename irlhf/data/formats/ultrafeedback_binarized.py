"""UltraFeedback made into pairs: whole chats on both sides, and the score of each."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.pairwise import pair

FIELDS = '"chosen", "rejected", "score_chosen", "score_rejected", and a prompt'
BECOMES = "two rows a pair, labelled, each with its score"


def matches(row: dict[str, Any]) -> bool:
    """Return whether both sides have a score."""
    return {"chosen", "rejected", "score_chosen", "score_rejected"} <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both sides; `messages`, the chosen side once more, is left out."""
    fields = {name: value for name, value in row.fields.items() if name != "messages"}
    yield from pair(Row(row.where, fields), source)
