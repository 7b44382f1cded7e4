"""Nectar: a transcript and several ranked answers; rank 1 is the best."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example
from irlhf.data.formats.base import Format, Rejected, Row
from irlhf.data.formats.helpers import (
    Candidate,
    examples_of,
    labels_by_score,
    objects,
    scores_of_ranks,
    text,
    tie_note,
)
from irlhf.data.transcripts import is_transcript


def _matches(fields: dict[str, Any]) -> bool:
    answers = fields.get("answers")
    ranked = isinstance(answers, list) and all(
        isinstance(answer, dict) and {"answer", "rank"} <= answer.keys() for answer in answers
    )
    return isinstance(fields.get("prompt"), str) and ranked


def _read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every answer."""
    prompt, given = text(row, "prompt"), objects(row, "answers")
    if not is_transcript(prompt) or not given:
        raise DataError(f"{row.where}: 'prompt' is not a transcript of \\n\\nHuman:, or there are no answers")
    scores = scores_of_ranks(answer.get("rank") for answer in given)
    candidates = []
    for answer, label in zip(given, labels_by_score(scores), strict=True):
        extra = {name: value for name, value in answer.items() if name != "answer"}
        candidates.append(Candidate(prompt, text(Row(row.where, answer), "answer"), label, extra, tie_note(scores)))
    yield from examples_of(row, source, candidates, {"prompt", "answers"})


NECTAR = Format(
    "nectar",
    fields='"prompt" transcript, "answers" of answer, model and rank',
    becomes="one row per answer, rank kept; rank 1 is chosen, all others are rejected",
    matches=_matches,
    read=_read,
)
