"""ShareGPT's chats, and LLaMA-Factory's: turns of `from` and `value`, by many names."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import CUT, Candidate, answers, as_completion, chat, columns, led
from irlhf.data.formats.pairwise import Keys, pair

FIELDS = '"conversations" (or conversation) of from and value, perhaps system, tools, chosen and rejected, kto_tag'
BECOMES = "one row, the last answer the completion; with chosen and rejected two rows a pair"

_NAMES = ("conversations", "conversation")
_LIKED = "kto_tag"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds a chat under one of its names."""
    return any(isinstance(row.get(name), list) for name in _NAMES)


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the last answer; a question behind it, which nobody answered, is cut."""
    name = next((name for name in _NAMES if name in row.fields), "")
    if not name:
        raise DataError(f"{row.where}: no 'conversations' (columns: {columns(row)})")
    turns = led(chat(row.fields[name], row, name), row.fields.get("system"))
    rest = {key: value for key, value in row.fields.items() if key not in (name, "system")}
    if CHOSEN in row.fields and REJECTED in row.fields:
        yield from pair(Row(row.where, {**rest, name: turns}), source, Keys(prompt=name))
        return
    ended = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and i]
    if not ended:
        yield Rejected("a conversation without an answer", row.fields)
        return
    end, liked = ended[-1], row.fields.get(_LIKED)
    label = (CHOSEN if liked else REJECTED) if isinstance(liked, bool) else ""
    noted = [CUT] if end + 1 < len(turns) else []
    yield from answers(
        Row(row.where, rest), source, [Candidate(turns[:end], as_completion([turns[end]]), label, noted=noted)], ()
    )
