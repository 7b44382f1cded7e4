"""Rows of a `prompt` and a `completion`, each text or messages; irlhf's own examples have this format."""

from collections.abc import Iterator

from irlhf.core.example import Example
from irlhf.data.formats.base import Format, Rejected, Row, has_keys
from irlhf.data.formats.helpers import Candidate, examples_of, text_or_chat


def _read(row: Row, source: str) -> Iterator[Example | Rejected]:
    candidate = Candidate(text_or_chat(row, "prompt"), text_or_chat(row, "completion"))
    yield from examples_of(row, source, [candidate], {"prompt", "completion"})


PROMPT_COMPLETION = Format(
    "prompt-completion",
    fields='"prompt" and "completion"',
    becomes="one row, all other keys kept; an irlhf example is unchanged",
    matches=has_keys("prompt", "completion"),
    read=_read,
)
