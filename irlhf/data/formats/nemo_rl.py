"""NeMo-RL's preferences: messages and several completions of them, rank 0 the best."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, as_completion, chat, number, objects, preferred, tied

FIELDS = '"context" messages, "completions" of rank and completion'
BECOMES = "one row a completion, rank kept; rank 0 is chosen, all below rejected"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds completions with ranks."""
    completions = row.get("completions")
    ranked = isinstance(completions, list) and all(
        isinstance(completion, dict) and "rank" in completion for completion in completions
    )
    return isinstance(row.get("context"), list) and ranked


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every completion."""
    prompt, given = chat(row.fields.get("context"), row, "context"), objects(row, "completions")
    if not given:
        yield Rejected("no completions", row.fields)
    ranks = [None if (rank := number(completion.get("rank"))) is None else -rank for completion in given]
    noted = tied(ranks)
    sides = [
        Candidate(
            prompt,
            as_completion(chat(completion.get("completion"), row, "completion")),
            label,
            {"rank": completion.get("rank")},
            noted,
        )
        for completion, label in zip(given, preferred(ranks), strict=True)
    ]
    yield from answers(row, source, sides, {"context", "completions"})
