"""The Arena's votes: one person's chat with two models at once, and which was better."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example, Message
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import CUT, TIE, Candidate, answers, as_completion, chat

FIELDS = '"conversation_a", "conversation_b", "winner"'
BECOMES = (
    "two rows a vote, each side's last answer with its own chat before it, labelled; of a tie both, without a label"
)

_SIDES = ("a", "b")


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds two chats and a vote."""
    return {"conversation_a", "conversation_b", "winner"} <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the last answer of each model; chats of several turns differ before it, and do not share a group."""
    winner = row.fields.get("winner")
    if not isinstance(winner, str) or not winner.startswith(("model_a", "model_b", "tie", "both_bad", "both bad")):
        raise DataError(f"{row.where}: winner {winner!r:.40} is none of model_a, model_b, tie, both_bad")
    sides = []
    for letter in _SIDES:
        turns = chat(row.fields.get(f"conversation_{letter}"), row, f"conversation_{letter}")
        ended = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and i]
        if not ended:
            yield Rejected("a conversation without an answer", row.fields)
            return
        label = "" if not winner.startswith("model_") else CHOSEN if winner == f"model_{letter}" else REJECTED
        sides.append(_side(turns, ended[-1], label, row.fields.get(f"model_{letter}")))
    used = {f"{name}_{letter}" for name in ("conversation", "model") for letter in _SIDES}
    yield from answers(row, source, sides, used)


def _side(turns: list[Message], end: int, label: str, model: object) -> Candidate:
    noted = [*([] if label else [TIE]), *([CUT] if end + 1 < len(turns) else [])]
    return Candidate(turns[:end], as_completion([turns[end]]), label, {"model": model}, noted)
