"""Nectar: a transcript and several answers to it, rank 1 the best."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, number, objects, preferred, text, tied
from irlhf.data.formats.transcript import ASSISTANT, is_transcript, messages

FIELDS = '"prompt" transcript, "answers" of answer, model and rank'
BECOMES = "one row an answer, rank kept; rank 1 is chosen, all below rejected"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds answers with ranks."""
    answers_field = row.get("answers")
    ranked = isinstance(answers_field, list) and all(
        isinstance(answer, dict) and {"answer", "rank"} <= answer.keys() for answer in answers_field
    )
    return isinstance(row.get("prompt"), str) and ranked


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every answer."""
    prompt, given = text(row, "prompt"), objects(row, "answers")
    if not is_transcript(prompt) or not given:
        raise DataError(f"{row.where}: 'prompt' is no transcript of \\n\\nHuman:, or there are no answers")
    question = messages(prompt.rstrip().removesuffix(ASSISTANT))
    ranks = [None if (rank := number(answer.get("rank"))) is None else -rank for answer in given]
    noted = tied(ranks)
    sides = [
        Candidate(question, text(Row(row.where, answer), "answer"), label, _own(answer), noted)
        for answer, label in zip(given, preferred(ranks), strict=True)
    ]
    yield from answers(row, source, sides, {"prompt", "answers"})


def _own(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "answer"}
