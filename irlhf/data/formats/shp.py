"""Stanford Human Preferences (SHP): a Reddit post and two comments, one of which has more votes."""

from collections.abc import Iterator

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Format, Rejected, Row, has_keys
from irlhf.data.formats.helpers import Candidate, columns, examples_of, text

_COMMENT_COLUMNS = ("score", "c_root_id", "created_at_utc")


def _read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both comments."""
    better = row.fields.get("labels")
    if better not in (0, 1):
        raise DataError(f"{row.where}: 'labels' is neither 1 (A is better) nor 0 (columns: {columns(row)})")
    prompt = text(row, "history")
    candidates = []
    for letter, wins in (("A", better == 1), ("B", better == 0)):
        extra = {name: row.fields[f"{name}_{letter}"] for name in _COMMENT_COLUMNS if f"{name}_{letter}" in row.fields}
        candidates.append(Candidate(prompt, text(row, f"human_ref_{letter}"), CHOSEN if wins else REJECTED, extra))
    used = {f"{name}_{letter}" for name in ("human_ref", *_COMMENT_COLUMNS) for letter in "AB"}
    yield from examples_of(row, source, candidates, {"history", "labels", *used})


SHP = Format(
    "shp",
    fields='"history", "human_ref_A", "human_ref_B", "labels" (1: A is better)',
    becomes="two rows per pair, labelled, each with its score; pairs of one post share a group",
    matches=has_keys("history", "human_ref_A", "human_ref_B", "labels"),
    read=_read,
)
