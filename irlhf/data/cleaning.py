"""Clean examples: roles alternate, and the prompt ends with a user turn.

    consecutive turns of one role        one turn, joined by a blank line
    a prompt that ends with an answer    the answer becomes the beginning of the completion
    an empty completion                  rejected
    a prompt without a user turn         rejected

Texts are not changed otherwise. The field `noted` of a row lists its repairs.
"""

import re
from dataclasses import replace
from typing import Any

from irlhf.core.example import Content, Example, Message, as_messages
from irlhf.data.formats.base import Rejected
from irlhf.data.formats.helpers import NOTED, notes

JOINED = "consecutive turns of one role joined"
BEGUN = "completion begun in the prompt"

_BARE = {"role", "content"}
_JOINT = "\n\n"
_SPECIAL = re.compile(
    r"<[|\uff5c][^|\uff5c<>\n]{1,40}[|\uff5c]>|</?s>|<<?/?SYS>>?|\[/?(?:INST|gMASK|CLS|SEP|PAD|MASK)\]"
    r"|<(?:unk|pad|bos|eos|mask|start_of_turn|end_of_turn|extra_id_[0-9]{1,3})>"
)


def clean(example: Example, raw: dict[str, Any]) -> Example | Rejected:
    """Return the cleaned example, or the row with the reason for its rejection."""
    prompt, completion = example.prompt, example.completion
    noted: list[str] = []
    if not isinstance(prompt, str):
        prompt = joined(prompt)
        if len(prompt) < len(example.prompt):
            noted.append(JOINED)
        if prompt[-1]["role"] == "assistant" and prompt[:-1] and _is_bare(prompt[-1]):
            *prompt, begun = prompt
            completion = _continued(begun, completion)
            noted.append(BEGUN)
        if prompt[-1]["role"] not in ("user", "tool"):
            return Rejected(f"the prompt ends on the {prompt[-1]['role']}'s turn, not on the user's", raw)
    if not isinstance(completion, str) and completion[-1]["role"] != "assistant":
        return Rejected(f"the completion ends on the {completion[-1]['role']}'s turn, not on the assistant's", raw)
    if _is_empty(completion):
        return Rejected("the completion is empty", raw)
    if not noted:
        return example
    extra = {**example.extra, NOTED: [*notes(example.extra), *noted]}
    return replace(example, prompt=prompt, completion=completion, extra=extra)


def joined(messages: list[Message]) -> list[Message]:
    """Join consecutive turns of one role if both are plain text; tool results are not joined."""
    turns: list[Message] = []
    for message in messages:
        before = turns[-1] if turns else {}
        same_role = before.get("role") == message["role"] != "tool"
        if same_role and _is_bare(before) and _is_bare(message):
            turns[-1] = {**message, "content": f"{before['content']}{_JOINT}{message['content']}"}
        else:
            turns.append(message)
    return turns if len(turns) < len(messages) else messages


def special_text(example: Example) -> str:
    """Return the first text in an example that looks like a special token, or ""."""
    for content in (example.prompt, example.completion):
        for message in as_messages(content):
            words = message.get("content") or ""
            match = _SPECIAL.search(words) if "<" in words or "[" in words else None
            if match:
                return match[0]
    return ""


def _continued(begun: Message, completion: Content) -> Content:
    if isinstance(completion, str):
        return f"{begun['content']}{_JOINT}{completion}" if completion.strip() else completion
    return joined([begun, *completion])


def _is_empty(completion: Content) -> bool:
    if isinstance(completion, str):
        return not completion.strip()
    return not any((message.get("content") or "").strip() or not _is_bare(message) for message in completion)


def _is_bare(message: Message) -> bool:
    return set(message) == _BARE and isinstance(message["content"], str)
