"""Anthropic's way of writing a conversation as one text: turns that begin with \\n\\nHuman: or \\n\\nAssistant:."""

import re

from irlhf.core.errors import DataError
from irlhf.core.example import Message
from irlhf.data.formats.base import Row

ASSISTANT = "\n\nAssistant:"
HUMAN = "\n\nHuman:"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: object) -> bool:
    """Return whether a value is a text that begins with a turn."""
    return isinstance(value, str) and _TURN.match(value) is not None


def divide(row: Row, name: str) -> tuple[str, str]:
    """Part a transcript at its last answer: what stands before it, and the answer itself."""
    transcript = row.fields.get(name)
    if not isinstance(transcript, str) or not transcript.startswith(HUMAN) or ASSISTANT not in transcript:
        raise DataError(f"{row.where}: '{name}' is no transcript of \\n\\nHuman: and \\n\\nAssistant: turns")
    prompt, _, completion = transcript.rpartition(ASSISTANT)
    return prompt, completion


def messages(transcript: str) -> list[Message]:
    """Return the turns of a transcript. A "Human:" that begins no paragraph is text like any other."""
    _, *parts = _TURN.split(transcript)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[speaker], "content": text.strip()} for speaker, text in turns]
