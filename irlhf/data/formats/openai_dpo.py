"""OpenAI's preference files: the messages of a prompt, the preferred output and the other one."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, as_completion, chat

FIELDS = '"input" of messages, "preferred_output", "non_preferred_output"'
BECOMES = "two rows a pair, labelled; tools kept"

_OUTPUTS = {"preferred_output": CHOSEN, "non_preferred_output": REJECTED}


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds a prompt and both outputs."""
    return isinstance(row.get("input"), dict) and _OUTPUTS.keys() <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both outputs."""
    given = row.fields.get("input")
    if not isinstance(given, dict):
        raise DataError(f"{row.where}: 'input' is no object with messages")
    prompt = chat(given.get("messages"), row, "input.messages")
    own = {name: value for name, value in given.items() if name in ("tools", "parallel_tool_calls")}
    sides = [
        Candidate(prompt, as_completion(chat(row.fields.get(name), row, name)), label, own)
        for name, label in _OUTPUTS.items()
    ]
    yield from answers(row, source, sides, {"input", *_OUTPUTS})
