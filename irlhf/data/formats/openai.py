"""OpenAI's fine-tuning files: chats of `messages`, and preference pairs."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Format, Rejected, Row
from irlhf.data.formats.helpers import Candidate, as_completion, chat, examples_of, split_chat

_OUTPUTS = {"preferred_output": CHOSEN, "non_preferred_output": REJECTED}


def _is_messages(fields: dict[str, Any]) -> bool:
    return isinstance(fields.get("messages"), list)


def _read_messages(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the assistant's last message whose `weight` is not 0, with all messages before it as the prompt."""
    given = row.fields.get("messages")
    if not given:
        raise DataError(f"{row.where}: 'messages' is an empty list")
    parts = split_chat(chat(given, row, "messages"))
    if parts is None:
        yield Rejected("no message of the assistant after a prompt, or none with a weight", row.fields)
        return
    prompt, completion, noted = parts
    candidate = Candidate(prompt, completion, notes=noted)
    yield from examples_of(row, source, [candidate], {"messages"})


def _is_dpo(fields: dict[str, Any]) -> bool:
    return isinstance(fields.get("input"), dict) and _OUTPUTS.keys() <= fields.keys()


def _read_dpo(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both outputs."""
    given = row.fields.get("input")
    if not isinstance(given, dict):
        raise DataError(f"{row.where}: 'input' is not an object with messages")
    prompt = chat(given.get("messages"), row, "input.messages")
    extra = {name: value for name, value in given.items() if name in ("tools", "parallel_tool_calls")}
    candidates = [
        Candidate(prompt, as_completion(chat(row.fields.get(name), row, name)), label, extra)
        for name, label in _OUTPUTS.items()
    ]
    yield from examples_of(row, source, candidates, {"input", *_OUTPUTS})


MESSAGES = Format(
    "messages",
    fields='"messages" of role and content',
    becomes="one row, the assistant's last message whose weight is not 0 is the completion; tools kept",
    matches=_is_messages,
    read=_read_messages,
)
DPO = Format(
    "openai-dpo",
    fields='"input" of messages, "preferred_output", "non_preferred_output"',
    becomes="two rows per pair, labelled; tools kept",
    matches=_is_dpo,
    read=_read_dpo,
)
