"""Anthropic's red-teaming transcripts: a person tries to make a model do harm, and rates how far it went."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import CUT, Candidate, answers
from irlhf.data.formats.transcript import HUMAN, divide, is_transcript, messages

FIELDS = '"transcript" of \\n\\nHuman: and \\n\\nAssistant:, "task_description", "rating"'
BECOMES = "one row a transcript, its last answer the completion; rating and min_harmlessness_score_transcript kept"


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row is a transcript of a task."""
    return is_transcript(row.get("transcript")) and "task_description" in row


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the last answer; a question behind it, which nobody answered, is cut."""
    prompt, rest = divide(row, "transcript")
    completion, cut, _ = rest.partition(HUMAN)
    side = Candidate(messages(prompt), completion.strip(), noted=[CUT] if cut else [])
    yield from answers(row, source, [side], {"transcript"})
