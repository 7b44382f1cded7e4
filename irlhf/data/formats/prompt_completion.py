"""Rows of a `prompt` and a `completion`, each text or messages. An irlhf example is one of them."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example, from_json
from irlhf.data.formats.base import Rejected, Row

FIELDS = '"prompt" and "completion"'
BECOMES = "one row, every other key kept; an irlhf example stays what it is"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds both."""
    return "prompt" in row and "completion" in row


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the row, its unknown keys kept."""
    yield example(row, source)


def example(row: Row, source: str) -> Example:
    """Return one row as an example; without an `id` it is called after its file and 0-based row."""
    made = {"id": f"{source}-{row.where.line - 1}", "source": source}
    given = {name: value for name, value in row.fields.items() if name not in made or value not in (None, "")}
    return from_json({**made, **given}, row.where)
