"""TRL's data set types: preferences with or without a prompt, unpaired preferences, stepwise supervision."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, Example
from irlhf.data.formats.base import Format, Rejected, Row
from irlhf.data.formats.helpers import Candidate, as_completion, examples_of, label_of, text_or_chat
from irlhf.data.formats.pairwise import pair, shared_beginning


def _is_preference(fields: dict[str, Any]) -> bool:
    """Return whether a row has both sides, and a prompt or a shared beginning."""
    chosen, rejected = fields.get("chosen"), fields.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str) and fields.get("prompt") is None:
        return bool(shared_beginning(chosen, rejected))
    return all(isinstance(side, str | list) for side in (chosen, rejected))


def _is_unpaired(fields: dict[str, Any]) -> bool:
    return "prompt" in fields and "completion" in fields and _is_liked(fields.get("label"))


def _is_liked(label: object) -> bool:
    return isinstance(label, bool) or (isinstance(label, str) and label.lower() in ("true", "false"))


def _read_unpaired(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the completion. Equal prompts share a group, so that their completions can be compared."""
    liked = row.fields.get("label")
    if not _is_liked(liked):
        raise DataError(f"{row.where}: 'label' is neither true nor false")
    prompt, completion = text_or_chat(row, "prompt"), text_or_chat(row, "completion")
    plain = completion if isinstance(completion, str) else as_completion(completion)
    label = label_of(liked)
    candidate = Candidate(prompt, plain, label, {"desirable": label == CHOSEN})
    yield from examples_of(row, source, [candidate], {"prompt", "completion", "label"})


def _is_stepwise(fields: dict[str, Any]) -> bool:
    return "prompt" in fields and _are_steps(fields.get("completions"), fields.get("labels"))


def _read_stepwise(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the steps as one completion."""
    steps, labels = row.fields.get("completions"), row.fields.get("labels")
    if not isinstance(steps, list) or not isinstance(labels, list) or not _are_steps(steps, labels):
        raise DataError(f"{row.where}: 'completions' must be texts and 'labels' true or false")
    if len(steps) != len(labels):
        raise DataError(f"{row.where}: {len(steps)} completions and {len(labels)} labels; each step needs one label")
    extra = {"steps": steps, "step_labels": labels, "right": sum(labels) / len(labels)}
    candidate = Candidate(text_or_chat(row, "prompt"), "\n".join(steps), extra=extra)
    yield from examples_of(row, source, [candidate], {"prompt", "completions", "labels"})


def _are_steps(steps: object, labels: object) -> bool:
    return _all_are(steps, str) and _all_are(labels, bool)


def _all_are(value: object, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


PREFERENCE = Format(
    "trl-preference",
    fields='"chosen" and "rejected", texts or messages, and a prompt or the same beginning',
    becomes="two rows per pair, labelled; without a prompt it is the longest beginning that both sides share",
    matches=_is_preference,
    read=pair,
)
UNPAIRED = Format(
    "trl-unpaired",
    fields='"prompt", "completion", "label" that is true or false',
    becomes="one row, labelled chosen if true, rejected if false; desirable keeps the label as a number",
    matches=_is_unpaired,
    read=_read_unpaired,
)
STEPWISE = Format(
    "trl-stepwise",
    fields='"prompt", "completions" that are texts, "labels" that are true or false',
    becomes="one row, the steps joined by line ends; steps, step_labels and right (the share of right steps) kept",
    matches=_is_stepwise,
    read=_read_stepwise,
)
