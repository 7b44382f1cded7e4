"""Transcripts: one text of turns that begin with "\\n\\nHuman:" or "\\n\\nAssistant:", as Anthropic writes them."""

import re

from irlhf.core.example import Message

ASSISTANT = "\n\nAssistant:"
HUMAN = "\n\nHuman:"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
# Turns in another form; `*+` keeps the search linear.
_OTHER_HUMAN = re.compile(r"\s*+(?:#++ ?(?:Human|User|Instruction)\b|(?:User|USER|Q|Question|Human|HUMAN):)")
_OTHER_ASSISTANT = re.compile(r"\n[ \t]*+(?:#++ ?(?:Assistant|Response)\b|(?:Assistant|ASSISTANT|A|Answer|AI|Bot):)")


def is_transcript(value: object) -> bool:
    """Return whether a value is a text that begins with a turn."""
    return isinstance(value, str) and _TURN.match(value) is not None


def prompt_turns(prompt: str) -> list[Message] | None:
    """Return the turns of a prompt that is a transcript, without an empty answer at its end; None for other texts."""
    start = prompt.lstrip()
    if not start.startswith("Human:") or not (is_transcript(prompt) or ASSISTANT in start):
        return None
    return messages_of(f"\n\n{start.rstrip().removesuffix(ASSISTANT)}")


def looks_like_transcript(prompt: str) -> bool:
    """Return whether a text has turns in another form, such as "### Human:" or "Q:"."""
    return bool(_OTHER_HUMAN.match(prompt) and _OTHER_ASSISTANT.search(prompt))


def messages_of(transcript: str) -> list[Message]:
    """Return the turns of a transcript as messages. "Human:" inside a paragraph is text."""
    _, *parts = _TURN.split(transcript)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[speaker], "content": text.strip()} for speaker, text in turns]


def answer_of(text: str) -> tuple[str, bool]:
    """Return the answer at the beginning of a text, and whether a turn of the human after it was cut."""
    answer, cut, _ = text.partition(HUMAN)
    return answer.strip(), bool(cut)
