"""HelpSteer2's preferences: two responses and how much better the second is, from -3 to 3."""

from collections.abc import Iterator
from typing import Any

from irlhf.prepare.formats import Rejected, Row
from irlhf.prepare.helpsteer import turns
from irlhf.prepare.shapes import text
from irlhf.prepare.strength import compared
from irlhf.records import Example

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
    yield from compared(row, source, turns(text(row, "prompt")), responses, (STRENGTH, used))
