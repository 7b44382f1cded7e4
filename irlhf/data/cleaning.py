"""Clean the examples of every format: roles alternate, and the prompt ends with a user turn.

    a prompt that is a transcript        messages; a turn behind the answer is cut
    a column with a system message       the first message of the prompt
    turns behind the last answer         cut, as are answers of weight 0 at the end
    consecutive turns of one role        one turn, joined by a blank line
    a prompt that ends with an answer    the answer becomes the beginning of the completion
    an empty completion                  rejected
    a prompt without a user turn         rejected
    no group                             a hash of the prompt

Texts are not changed otherwise. The field `noted` of a row lists its repairs.
"""

import re
from dataclasses import replace
from typing import Any

from irlhf.core.example import Content, Example, Message, as_messages
from irlhf.data.formats.base import Rejected
from irlhf.data.formats.helpers import CUT, NOTED, as_completion, group_of, is_trained, notes, unmarked
from irlhf.data.transcripts import answer_of, looks_like_transcript, prompt_turns

JOINED = "consecutive turns of one role joined"
BEGUN = "completion begun in the prompt"
TRANSCRIPT = "transcript in the prompt read as messages"
LOOKS_LIKE_TRANSCRIPT = "prompt that looks like a transcript kept as one text"
SYSTEM = ("system", "system_prompt", "system_message", "system_instruction")  # columns that hold a system message

_BARE = {"role", "content"}
_JOINT = "\n\n"
_SPECIAL = re.compile(
    r"<[|\uff5c][^|\uff5c<>\n]{1,40}[|\uff5c]>|</?s>|<<?/?SYS>>?|\[/?(?:INST|gMASK|CLS|SEP|PAD|MASK)\]"
    r"|<(?:unk|pad|bos|eos|mask|start_of_turn|end_of_turn|extra_id_[0-9]{1,3})>"
)


def clean(example: Example, raw: dict[str, Any], source: str) -> Example | Rejected:
    """Return the cleaned example, or the row with the reason for its rejection. `source` begins its group."""
    noted: list[str] = []
    prompt, completion, extra = example.prompt, example.completion, dict(example.extra)
    if isinstance(prompt, str):
        prompt, completion = _without_transcript(prompt, completion, noted)
    prompt = _with_system(prompt, extra)
    if not isinstance(completion, str):
        answer = _trained_part(completion)
        if answer is None:
            if completion[-1]["role"] == "assistant":
                return Rejected("the completion has a weight of 0", raw)
            return Rejected(f"the completion ends on the {completion[-1]['role']}'s turn, not on the assistant's", raw)
        noted += [CUT] if len(answer) < len(completion) else []
        completion = completion if answer == completion else as_completion(answer)
    if not isinstance(prompt, str):
        prompt, completion = _alternating([unmarked(message) for message in prompt], completion, noted)
        if prompt[-1]["role"] not in ("user", "tool"):
            return Rejected(f"the prompt ends on the {prompt[-1]['role']}'s turn, not on the user's", raw)
    if _is_empty(completion):
        return Rejected("the completion is empty", raw)
    if noted:
        extra[NOTED] = [*notes(extra), *noted]
    group = example.group or group_of(prompt, source, extra)
    return replace(example, prompt=prompt, completion=completion, group=group, extra=extra)


def _without_transcript(prompt: str, completion: Content, noted: list[str]) -> tuple[Content, Content]:
    """Return a prompt that is a transcript as messages, and the answer alone as its completion."""
    turns = prompt_turns(prompt)
    if turns is None:
        noted += [LOOKS_LIKE_TRANSCRIPT] if looks_like_transcript(prompt) else []
        return prompt, completion
    noted.append(TRANSCRIPT)
    if isinstance(completion, str):
        completion, cut = answer_of(completion.removeprefix(prompt))
        noted += [CUT] if cut else []
    return turns, completion


def _with_system(prompt: Content, extra: dict[str, Any]) -> Content:
    """Return the prompt with the row's system message in front, and remove its column from `extra`.

    A prompt that begins with another system message keeps it, and the column stays.
    """
    for name in SYSTEM:
        system = extra.get(name)
        if not isinstance(system, str):
            continue
        turns = as_messages(prompt)
        begun = turns[0]["role"] in ("system", "developer")
        if not system.strip() or (begun and turns[0].get("content") == system):
            del extra[name]
        elif not begun:
            del extra[name]
            prompt = [{"role": "system", "content": system}, *turns]
    return prompt


def _trained_part(completion: list[Message]) -> list[Message] | None:
    """Return the messages up to the last one of the assistant whose weight is not 0; None if there is none."""
    end = next((i for i in range(len(completion) - 1, -1, -1) if is_trained(completion[i])), None)
    return None if end is None else [unmarked(message) for message in completion[: end + 1]]


def _alternating(prompt: list[Message], completion: Content, noted: list[str]) -> tuple[list[Message], Content]:
    """Return a prompt with joined turns, and the completion with an answer that was begun in the prompt."""
    turns = joined(prompt)
    if len(turns) < len(prompt):
        noted.append(JOINED)
    if turns[-1]["role"] == "assistant" and turns[:-1] and _is_bare(turns[-1]):
        *turns, begun = turns
        completion = _continued(begun, completion)
        noted.append(BEGUN)
    return turns, completion


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
