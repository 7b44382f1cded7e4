"""Rows of a `prompt` and a `completion`, each text or messages; irlhf's own examples have this format."""

from collections.abc import Iterator

from irlhf.core.example import Example, from_json
from irlhf.data.formats.base import Format, Rejected, Row, has_keys


def example(row: Row, source: str) -> Example:
    """Return a row as an example. A row without an `id` gets one from the source and the row's position, from 0."""
    made = {"id": f"{source}-{row.where.line - 1}", "source": source}
    given = {name: value for name, value in row.fields.items() if name not in made or value not in (None, "")}
    return from_json({**made, **given}, row.where)


def _read(row: Row, source: str) -> Iterator[Example | Rejected]:
    yield example(row, source)


PROMPT_COMPLETION = Format(
    "prompt-completion",
    fields='"prompt" and "completion"',
    becomes="one row, all other keys kept; an irlhf example is unchanged",
    matches=has_keys("prompt", "completion"),
    read=_read,
)
