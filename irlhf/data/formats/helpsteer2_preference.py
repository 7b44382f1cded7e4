"""HelpSteer2's preferences: two responses and how much better the second is, from -3 to 3."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.graded_pairs import graded_pair
from irlhf.data.formats.helpers import text
from irlhf.data.formats.helpsteer import turns

STRENGTH = "preference_strength"
FIELDS = f'"prompt", "response_1", "response_2", "{STRENGTH}" from -3 (the first is better) to 3'
BECOMES = "two rows a pair, labelled, preference_strength kept; of a tie (0) both, without a label"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row compares two responses."""
    return {"prompt", "response_1", "response_2", STRENGTH} <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both responses."""
    responses = [text(row, name) for name in ("response_1", "response_2")]
    used = {"prompt", "response_1", "response_2"}
    yield from graded_pair(row, source, turns(text(row, "prompt")), responses, (STRENGTH, used))
