"""Chat files, the shape that every fine-tuning host reads: `messages`, the last one the assistant's."""

from collections.abc import Iterator
from typing import Any

from irlhf.errors import DataError
from irlhf.prepare.formats import Rejected, Row
from irlhf.prepare.prompt_completion import example
from irlhf.records import Example, content

FIELDS = '"messages" that end with the assistant\'s'


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds a list of messages."""
    return isinstance(row.get("messages"), list)


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the last message as the completion of all before it."""
    messages = content(row.fields.get("messages"), row.where, "messages")
    if isinstance(messages, str) or len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise DataError(f"{row.where}: 'messages' must hold a prompt and end with the assistant's message")
    *prompt, last = messages
    bare = set(last) == {"role", "content"}
    rest = {name: value for name, value in row.fields.items() if name != "messages"}
    yield example(Row(row.where, {**rest, "prompt": prompt, "completion": last["content"] if bare else [last]}), source)
