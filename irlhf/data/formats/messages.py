"""Chat files, the shape that every fine-tuning host reads: `messages`, the last one the assistant's."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example, Message
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import CUT, NOTED, as_completion, chat
from irlhf.data.formats.prompt_completion import example

FIELDS = '"messages" that end with the assistant\'s'
BECOMES = "one row, the last message of the assistant whose weight is not 0 as the completion; tools kept"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds a list of messages."""
    return isinstance(row.get("messages"), list)


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the last message that may be trained on as the completion of all before it."""
    given = row.fields.get("messages")
    if isinstance(given, list) and not given:
        raise DataError(f"{row.where}: 'messages' is a list, neither text nor messages")
    messages = chat(given, row, "messages")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        ending = f"they end with the {messages[-1]['role']}'s" if len(messages) > 1 else "there is one"
        raise DataError(f"{row.where}: 'messages' must hold a prompt and end with the assistant's message; {ending}")
    end = _trained(messages)
    if end < 1:
        yield Rejected("no message of the assistant behind a prompt has a weight", row.fields)
        return
    bare = [{name: value for name, value in message.items() if name != "weight"} for message in messages]
    rest = {name: value for name, value in row.fields.items() if name != "messages"}
    noted = {NOTED: [CUT]} if end + 1 < len(bare) else {}
    fields = {**rest, "prompt": bare[:end], "completion": as_completion([bare[end]]), **noted}
    yield example(Row(row.where, fields), source)


def _trained(messages: list[Message]) -> int:
    """Return the place of the assistant's last message with a weight; -1 where there is none."""
    places = [i for i, message in enumerate(messages) if message["role"] == "assistant" and message.get("weight") != 0]
    return places[-1] if places else -1
