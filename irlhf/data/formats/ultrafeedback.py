"""UltraFeedback as it was made: an instruction and the completions of several models, each rated by GPT-4.

Of its first edition many an `overall_score` of 10 should be 1; those beside ratings of at most 2 in the mean are
read as 1, as its authors did in the second.
"""

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, number, objects, preferred, text, tied

FIELDS = '"instruction", "completions" of a response, annotations and overall_score'
BECOMES = "one row a completion, ratings and overall_score kept; the best mean rating is chosen, all below rejected"

MENDED = "overall_score 10 read as 1"
UNRATED = "rating N/A"
_WRONG, _RIGHT, _LOW = 10, 1, 2


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds an instruction and its completions."""
    completions = row.get("completions")
    whole = isinstance(completions, list) and all(
        isinstance(completion, dict) and "response" in completion for completion in completions
    )
    return "instruction" in row and whole


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every completion. An aspect that was rated "N/A" gives no number."""
    prompt = text(row, "instruction")
    given = objects(row, "completions")
    if not given:
        yield Rejected("no completions", row.fields)
    aspects = [_ratings(completion) for completion in given]
    means = [
        fmean(known) if (known := [completion for completion in rated.values() if completion is not None]) else None
        for rated in aspects
    ]
    noted = tied(means)
    sides = []
    for completion, rated, mean, label in zip(given, aspects, means, preferred(means), strict=True):
        own, mended = _own(completion, mean)
        own |= {name: value for name, value in rated.items() if value is not None}
        notes = [*noted, *([MENDED] if mended else []), *([UNRATED] if None in rated.values() else [])]
        sides.append(Candidate(prompt, text(Row(row.where, completion), "response"), label, own, notes))
    yield from answers(row, source, sides, {"instruction", "completions", "models"})


def _ratings(completion: dict[str, Any]) -> dict[str, float | None]:
    stored = completion.get("annotations")
    annotations = stored if isinstance(stored, dict) else {}
    return {name: number(rating.get("Rating")) for name, rating in annotations.items() if isinstance(rating, dict)}


def _own(completion: dict[str, Any], mean: float | None) -> tuple[dict[str, Any], bool]:
    """Return what is kept of a completion, and whether its overall score had to be mended."""
    own = {name: value for name, value in completion.items() if name != "response"}
    wrong = number(own.get("overall_score")) == _WRONG and mean is not None and mean <= _LOW
    return (own | {"overall_score": _RIGHT} if wrong else own), wrong
