"""TRL's unpaired preferences: a completion and whether it was liked."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Content, Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, as_completion, chat, text

FIELDS = '"prompt", "completion", "label" that is true or false'
BECOMES = "one row, labelled chosen where it is true; desirable keeps true and false as a number"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds a completion and a label of that kind."""
    return "prompt" in row and "completion" in row and isinstance(row.get("label"), bool)


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the completion; equal prompts share a group, so that liked and disliked ones can be compared."""
    liked = row.fields.get("label")
    if not isinstance(liked, bool):
        raise DataError(f"{row.where}: 'label' is neither true nor false")
    prompt = _content(row, "prompt")
    completion = _content(row, "completion")
    whole = completion if isinstance(completion, str) else as_completion(completion)
    side = Candidate(prompt, whole, CHOSEN if liked else REJECTED, {"desirable": liked})
    yield from answers(row, source, [side], {"prompt", "completion", "label"})


def _content(row: Row, name: str) -> Content:
    value = row.fields.get(name)
    return chat(value, row, name) if isinstance(value, list) else text(row, name)
