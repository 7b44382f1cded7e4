"""Stanford's human preferences (SHP): a post on Reddit and two comments, of which one had more votes."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, columns, text

FIELDS = '"history", "human_ref_A", "human_ref_B", "labels" that is 1 where A is better'
BECOMES = "two rows a pair, labelled, each with its score; pairs of one post share a group"

_OF_A_COMMENT = ("score", "c_root_id", "created_at_utc")


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row compares two comments."""
    return {"history", "human_ref_A", "human_ref_B", "labels"} <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both comments."""
    better = row.fields.get("labels")
    if better not in (0, 1):
        raise DataError(f"{row.where}: 'labels' is neither 1 (A is better) nor 0 (columns: {columns(row)})")
    prompt = text(row, "history")
    sides = []
    for letter, wins in (("A", better == 1), ("B", better == 0)):
        own = {name: row.fields[f"{name}_{letter}"] for name in _OF_A_COMMENT if f"{name}_{letter}" in row.fields}
        sides.append(Candidate(prompt, text(row, f"human_ref_{letter}"), CHOSEN if wins else REJECTED, own))
    used = {f"{name}_{letter}" for name in ("human_ref", *_OF_A_COMMENT) for letter in "AB"}
    yield from answers(row, source, sides, {"history", "labels", *used})
