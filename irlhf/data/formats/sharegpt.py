"""ShareGPT's chats, and LLaMA-Factory's with a system message, a ranking or a KTO label."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Format, Rejected, Row
from irlhf.data.formats.helpers import Candidate, chat, columns, examples_of, label_of, split_chat
from irlhf.data.formats.pairwise import Keys, pair

_CHATS = ("conversations", "conversation")


def _matches(fields: dict[str, Any]) -> bool:
    return any(isinstance(fields.get(name), list) for name in _CHATS)


def _read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the last answer, or both sides of a ranking. A question after the last answer is cut."""
    name = next((name for name in _CHATS if name in row.fields), "")
    if not name:
        raise DataError(f"{row.where}: no 'conversations' (columns: {columns(row)})")
    turns = chat(row.fields[name], row, name)
    rest = {key: value for key, value in row.fields.items() if key != name}
    if CHOSEN in row.fields and REJECTED in row.fields:
        yield from pair(Row(row.where, {**rest, name: turns}), source, Keys(prompt=name))
        return
    parts = split_chat(turns)
    if parts is None:
        yield Rejected("the conversation has no answer, or none with a weight", row.fields)
        return
    prompt, completion, noted = parts
    candidate = Candidate(prompt, completion, label_of(rest.get("kto_tag")), notes=noted)
    yield from examples_of(Row(row.where, rest), source, [candidate], ())


SHAREGPT = Format(
    "sharegpt",
    fields='"conversations" (or conversation) of from and value, optionally system, tools, chosen, rejected, kto_tag',
    becomes="one row, the last answer is the completion; with chosen and rejected two rows per pair",
    matches=_matches,
    read=_read,
)
