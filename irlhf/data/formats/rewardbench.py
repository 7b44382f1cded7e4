"""RewardBench: a prompt, a completion that is better and one that is worse, by subsets."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.pairwise import pair

FIELDS = '"prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset"'
BECOMES = "two rows a pair, labelled, each with its model; subset kept"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row is a pair of a subset."""
    return {"prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset"} <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both completions."""
    yield from pair(row, source)
