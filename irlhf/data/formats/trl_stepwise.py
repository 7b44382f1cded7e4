"""TRL's stepwise supervision: a solution in steps, and whether each is right."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, text

FIELDS = '"prompt", "completions" that are texts, "labels" that are true or false'
BECOMES = "one row, the steps joined by line ends; steps, step_labels and right, their right share, kept"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds steps with a label each."""
    return "prompt" in row and _are(row.get("completions"), str) and _are(row.get("labels"), bool)


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the whole solution."""
    steps, labels = row.fields.get("completions"), row.fields.get("labels")
    if not isinstance(steps, list) or not isinstance(labels, list) or not _are(steps, str) or not _are(labels, bool):
        raise DataError(f"{row.where}: 'completions' must be texts and 'labels' true or false")
    if len(steps) != len(labels):
        raise DataError(f"{row.where}: {len(steps)} completions and {len(labels)} labels; each step must have one")
    own = {"steps": steps, "step_labels": labels, "right": sum(labels) / len(labels)}
    side = Candidate(text(row, "prompt"), "\n".join(steps), own=own)
    yield from answers(row, source, [side], {"prompt", "completions", "labels"})


def _are(value: object, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)
