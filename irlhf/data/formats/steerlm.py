"""SteerLM's chats: every answer with its attributes as one text, like quality:4,toxicity:0."""

import re
from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example, Message
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, as_completion, chat, identifier, led

FIELDS = '"conversations" of from, value and label like quality:4,toxicity:0, and "mask"'
BECOMES = "one row for every labelled answer, with the chat before it; labels.NAME kept as numbers (-100 is none)"

_CHAT, _LABEL = "conversations", "label"
_LABELS = re.compile(r"\s*+[\w .-]+:\s*-?[0-9]{1,15}(\.[0-9]{1,15})?\s*")
_NONE = -100.0  # how the data write that nobody rated this


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds a chat with labels."""
    turns = row.get(_CHAT)
    return (
        "mask" in row and isinstance(turns, list) and any(isinstance(turn, dict) and _LABEL in turn for turn in turns)
    )


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every answer that has a label."""
    turns = led(chat(row.fields.get(_CHAT), row, _CHAT), row.fields.get("system"))
    bare = [{name: value for name, value in turn.items() if name != _LABEL} for turn in turns]
    rest = {name: value for name, value in row.fields.items() if name not in (_CHAT, "system")}
    rated = [
        position for position, turn in enumerate(turns) if position and turn["role"] == "assistant" and turn.get(_LABEL)
    ]
    if not rated:
        yield Rejected("no answer has a label", row.fields)
    for number, position in enumerate(rated, 1):
        side = Candidate(
            bare[:position], as_completion([bare[position]]), own={"labels": _numbers(turns[position], row)}
        )
        fields = {**rest, "id": f"{identifier(row, source)}/{number}"}
        yield from answers(Row(row.where, fields), source, [side], ())


def _numbers(turn: Message, row: Row) -> dict[str, float]:
    """Return the label of an answer as one number a name."""
    parts = turn[_LABEL].split(",") if isinstance(turn[_LABEL], str) else [""]
    if not all(_LABELS.fullmatch(part) for part in parts):
        raise DataError(f"{row.where}: label {turn[_LABEL]!r:.60} is none like quality:4,toxicity:0")
    pairs = [part.rpartition(":") for part in parts]
    return {name.strip(): float(value) for name, _, value in pairs if float(value) != _NONE}
