"""RewardBench, pairs of a better and a worse completion, and RewardBench 2, which has several of either."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Format, Rejected, Row, has_keys
from irlhf.data.formats.helpers import Candidate, columns, examples_of, text_or_chat
from irlhf.data.formats.pairwise import pair


def _is_rewardbench2(fields: dict[str, Any]) -> bool:
    lists = all(isinstance(fields.get(side), list) for side in (CHOSEN, REJECTED))
    return lists and isinstance(fields.get("prompt"), str) and "subset" in fields


def _read_rewardbench2(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every completion, with its model if the row names one for each."""
    given = [(completion, side) for side in (CHOSEN, REJECTED) for completion in _texts(row, side)]
    models = row.fields.get("models")
    known = models if isinstance(models, list) and len(models) == len(given) else []
    candidates = [
        Candidate(text_or_chat(row, "prompt"), completion, label, {"model": known[i]} if known else {})
        for i, (completion, label) in enumerate(given)
    ]
    yield from examples_of(row, source, candidates, {"prompt", CHOSEN, REJECTED, *(["models"] if known else [])})


def _texts(row: Row, name: str) -> list[str]:
    value = row.fields.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise DataError(f"{row.where}: '{name}' is not a list of texts (columns: {columns(row)})")
    return value


REWARDBENCH = Format(
    "rewardbench",
    fields='"prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset"',
    becomes="two rows per pair, labelled, each with its model; subset kept",
    matches=has_keys("prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset"),
    read=pair,
)
REWARDBENCH2 = Format(
    "rewardbench2",
    fields='"prompt", "chosen" and "rejected" lists of texts, "subset"',
    becomes="one row per completion, labelled; every chosen one is compared with every rejected one",
    matches=_is_rewardbench2,
    read=_read_rewardbench2,
)
