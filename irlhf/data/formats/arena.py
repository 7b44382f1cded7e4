"""Chatbot Arena's votes: a person's chats with two models, and which one was better."""

from collections.abc import Iterator

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Format, Rejected, Row, has_keys
from irlhf.data.formats.helpers import TIE, Candidate, chat, examples_of, split_chat

_WINNERS = ("model_a", "model_b", "tie", "both_bad", "both bad")


def _read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the last answer of each model. Chats that differ before it do not share a group."""
    winner = row.fields.get("winner")
    if not isinstance(winner, str) or not winner.startswith(_WINNERS):
        raise DataError(f"{row.where}: winner {winner!r:.40} is not one of model_a, model_b, tie, both_bad")
    candidates = []
    for letter in "ab":
        turns = chat(row.fields.get(f"conversation_{letter}"), row, f"conversation_{letter}")
        parts = split_chat(turns)
        if parts is None:
            yield Rejected("a conversation has no answer", row.fields)
            return
        prompt, completion, cut = parts
        label = "" if not winner.startswith("model_") else CHOSEN if winner == f"model_{letter}" else REJECTED
        notes = [*([] if label else [TIE]), *cut]
        model = {"model": row.fields.get(f"model_{letter}")}
        candidates.append(Candidate(prompt, completion, label, model, notes))
    used = {f"{name}_{letter}" for name in ("conversation", "model") for letter in "ab"}
    yield from examples_of(row, source, candidates, used)


ARENA = Format(
    "arena",
    fields='"conversation_a", "conversation_b", "winner"',
    becomes="two rows per vote, each side's last answer with the chat before it, labelled; no labels for a tie",
    matches=has_keys("conversation_a", "conversation_b", "winner"),
    read=_read,
)
