"""Anthropic's helpful and harmless pairs: two transcripts, `chosen` and `rejected`.

A transcript is split at its last "\\n\\nAssistant:"; what follows is the completion, blank lines and all.
An empty completion cannot be trained on and is set aside. Where the two prompts of a pair differ, each
completion keeps its own prompt and its own group, so that no comparison crosses them.
"""

import re
from collections.abc import Iterator
from typing import Any

from irlhf.errors import DataError
from irlhf.prepare.formats import Rejected, Row
from irlhf.records import Example, Message, from_json

FIELDS = '"chosen" and "rejected" transcripts of \\n\\nHuman: and \\n\\nAssistant:'

_ASSISTANT = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SIDES = {"chosen": "a", "rejected": "b"}


def matches(row: dict[str, Any]) -> bool:
    """Return whether both sides are transcripts."""
    return all(isinstance(row.get(side), str) and _TURN.match(row[side]) for side in _SIDES)


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the chosen and the rejected completion."""
    pair = {side: _divide(row, side) for side in _SIDES}
    same_prompt = pair["chosen"][0] == pair["rejected"][0]
    rest = {name: value for name, value in row.fields.items() if name not in _SIDES}
    number = rest.get("id") or f"{source}-{row.where.line - 1}"  # 0-based, as the data set counts its rows
    for side, letter in _SIDES.items():
        prompt, completion = pair[side]
        identifier = f"{number}{letter}"
        if not completion.strip():
            yield Rejected(f"the {side} completion is empty", row.fields)
            continue
        known = {
            "id": identifier,
            "prompt": _messages(prompt),
            "completion": completion.strip(),
            "group": f"{number}" if same_prompt else identifier,
            "label": side,
        }
        yield from_json({"source": source, **rest, **known}, row.where)


def _divide(row: Row, side: str) -> tuple[str, str]:
    transcript = row.fields.get(side)
    if not isinstance(transcript, str) or not transcript.startswith("\n\nHuman:") or _ASSISTANT not in transcript:
        raise DataError(f"{row.where}: '{side}' is no transcript of \\n\\nHuman: and \\n\\nAssistant: turns")
    prompt, _, completion = transcript.rpartition(_ASSISTANT)
    return prompt, completion


def _messages(prompt: str) -> list[Message]:
    _, *parts = _TURN.split(prompt)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[speaker], "content": text.strip()} for speaker, text in turns]
