"""RewardBench 2: a prompt, one or (in its Ties) many completions that are right, and several that are wrong."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, columns, text

FIELDS = '"prompt", "chosen" and "rejected" lists of texts, "subset"'
BECOMES = "one row a completion, labelled: every chosen one stands against every rejected one"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds lists of completions."""
    lists = all(isinstance(row.get(side), list) for side in (CHOSEN, REJECTED))
    return lists and isinstance(row.get("prompt"), str) and "subset" in row


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every completion, with its model where the row names one for each."""
    given = [(words, side) for side in (CHOSEN, REJECTED) for words in _texts(row, side)]
    models = row.fields.get("models")
    known = models if isinstance(models, list) and len(models) == len(given) else []
    sides = [
        Candidate(text(row, "prompt"), words, label, {"model": known[i]} if known else {})
        for i, (words, label) in enumerate(given)
    ]
    yield from answers(row, source, sides, {"prompt", CHOSEN, REJECTED, *(["models"] if known else [])})


def _texts(row: Row, name: str) -> list[str]:
    value = row.fields.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise DataError(f"{row.where}: '{name}' is no list of texts (columns: {columns(row)})")
    return value
