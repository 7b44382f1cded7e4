"""Rows of a `prompt` and a `completion`, each text or messages. An irlhf example is one of them."""

from collections.abc import Iterator
from typing import Any

from irlhf.prepare.formats import Rejected, Row
from irlhf.records import Example, as_text, from_json

FIELDS = '"prompt" and "completion"'


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds both."""
    return "prompt" in row and "completion" in row


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the row, its unknown keys kept."""
    yield example(row, source)


def example(row: Row, source: str) -> Example | Rejected:
    """Return one row as an example; without an `id` it is called after its file and 0-based row."""
    given = {name: value for name, value in row.fields.items() if value is not None or name not in ("id", "source")}
    named = {"id": f"{source}-{row.where.line - 1}", "source": source, **given}
    found = from_json(named, row.where)
    if not as_text(found.completion).strip() and isinstance(found.completion, str):
        return Rejected("the completion is empty", row.fields)
    return found
