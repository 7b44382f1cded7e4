"""OpenAI's fine-tuning files: chats of `messages`, and preference pairs."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Format, Rejected, Row
from irlhf.data.formats.helpers import CUT, NOTED, Candidate, as_completion, chat, examples_of
from irlhf.data.formats.prompt_completion import example

_OUTPUTS = {"preferred_output": CHOSEN, "non_preferred_output": REJECTED}


def _is_messages(fields: dict[str, Any]) -> bool:
    return isinstance(fields.get("messages"), list)


def _read_messages(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the assistant's last message whose `weight` is not 0, with all messages before it as the prompt."""
    given = row.fields.get("messages")
    if isinstance(given, list) and not given:
        raise DataError(f"{row.where}: 'messages' is an empty list")
    messages = chat(given, row, "messages")
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        ending = f"they end with the {messages[-1]['role']}'s" if len(messages) > 1 else "there is only one message"
        raise DataError(f"{row.where}: 'messages' must contain a prompt and end with the assistant's message; {ending}")
    trained = [i for i, turn in enumerate(messages) if turn["role"] == "assistant" and turn.get("weight") != 0]
    if not trained or trained[-1] < 1:
        yield Rejected("no message of the assistant after a prompt has a weight", row.fields)
        return
    end = trained[-1]
    plain = [{name: value for name, value in message.items() if name != "weight"} for message in messages]
    rest = {name: value for name, value in row.fields.items() if name != "messages"}
    noted = {NOTED: [CUT]} if end + 1 < len(plain) else {}
    fields = {**rest, "prompt": plain[:end], "completion": as_completion([plain[end]]), **noted}
    yield example(Row(row.where, fields), source)


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
    fields='"messages" that end with the assistant\'s',
    becomes="one row, the assistant's last message whose weight is not 0 is the completion; tools kept",
    matches=_is_messages,
    read=_read_messages,
)
DPO = Format(
    "openai-dpo",
    fields='"input" of messages, "preferred_output", "non_preferred_output"',
    becomes="two rows a pair, labelled; tools kept",
    matches=_is_dpo,
    read=_read_dpo,
)
