"""UltraFeedback with the completions of several models, each rated by GPT-4, and its binarized pairs.

In the first edition many values of 10 in `overall_score` should be 1. A 10 beside ratings with a mean of at most 2 is
read as 1, as the authors did in the second edition.
"""

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Format, Rejected, Row, has_keys
from irlhf.data.formats.helpers import Candidate, examples_of, labels_by_score, number, objects, text, tie_note
from irlhf.data.formats.pairwise import pair

CORRECTED = "overall_score 10 read as 1"
UNRATED = "rating N/A"
_WRONG_SCORE, _RIGHT_SCORE, _LOW_RATING = 10, 1, 2


def _is_ultrafeedback(fields: dict[str, Any]) -> bool:
    completions = fields.get("completions")
    complete = isinstance(completions, list) and all(
        isinstance(item, dict) and "response" in item for item in completions
    )
    return "instruction" in fields and complete


def _read_ultrafeedback(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every completion, labelled by its mean rating. A rating of "N/A" gives no number."""
    prompt, given = text(row, "instruction"), objects(row, "completions")
    if not given:
        yield Rejected("no completions", row.fields)
    ratings = [_ratings(item) for item in given]
    means = [_mean(list(rated.values())) for rated in ratings]
    candidates = []
    for item, rated, mean, label in zip(given, ratings, means, labels_by_score(means), strict=True):
        extra = {name: value for name, value in item.items() if name != "response"}
        wrong = number(extra.get("overall_score")) == _WRONG_SCORE and mean is not None and mean <= _LOW_RATING
        if wrong:
            extra["overall_score"] = _RIGHT_SCORE
        extra |= {name: value for name, value in rated.items() if value is not None}
        notes = [*tie_note(means), *([CORRECTED] if wrong else []), *([UNRATED] if None in rated.values() else [])]
        candidates.append(Candidate(prompt, text(Row(row.where, item), "response"), label, extra, notes))
    yield from examples_of(row, source, candidates, {"instruction", "completions", "models"})


def _ratings(completion: dict[str, Any]) -> dict[str, float | None]:
    """Return the rating of each aspect; None for one that is not a number."""
    stored = completion.get("annotations")
    annotations = stored if isinstance(stored, dict) else {}
    return {name: number(rating.get("Rating")) for name, rating in annotations.items() if isinstance(rating, dict)}


def _mean(ratings: list[float | None]) -> float | None:
    known = [rating for rating in ratings if rating is not None]
    return fmean(known) if known else None


def _read_binarized(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both sides. `messages`, a copy of the chosen side, is dropped."""
    fields = {name: value for name, value in row.fields.items() if name != "messages"}
    yield from pair(Row(row.where, fields), source)


ULTRAFEEDBACK = Format(
    "ultrafeedback",
    fields='"instruction", "completions" of a response, annotations and overall_score',
    becomes="one row per completion, ratings and overall_score kept; the best mean rating is chosen, others rejected",
    matches=_is_ultrafeedback,
    read=_read_ultrafeedback,
)
BINARIZED = Format(
    "ultrafeedback-binarized",
    fields='"chosen", "rejected", "score_chosen", "score_rejected", and a prompt',
    becomes="two rows per pair, labelled, each with its score",
    matches=has_keys("chosen", "rejected", "score_chosen", "score_rejected"),
    read=_read_binarized,
)
