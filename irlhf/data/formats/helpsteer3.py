"""HelpSteer3's preferences: a chat, two responses and how much better the second is, from -3 to 3."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.graded_pairs import graded_pair
from irlhf.data.formats.helpers import chat, text

STRENGTH = "overall_preference"
FIELDS = f'"context" messages, "response1", "response2", "{STRENGTH}" from -3 (the first is better) to 3'
BECOMES = "two rows a pair, labelled, overall_preference kept; of a tie (0) both, without a label"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row compares two responses to a chat."""
    return {"context", "response1", "response2", STRENGTH} <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both responses."""
    responses = [text(row, name) for name in ("response1", "response2")]
    used = {"context", "response1", "response2"}
    yield from graded_pair(row, source, chat(row.fields.get("context"), row, "context"), responses, (STRENGTH, used))
