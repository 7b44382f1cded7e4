"""Anthropic's transcripts: HH-RLHF's pairs and the red-teaming attempts.

A transcript is one text of turns that begin with "\\n\\nHuman:" or "\\n\\nAssistant:".
"""

import re
from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example, Message, from_json
from irlhf.data.formats.base import Format, Rejected, Row
from irlhf.data.formats.helpers import CUT, DIFFER, EQUAL, NOTED, Candidate, examples_of, identifier, unused

ASSISTANT = "\n\nAssistant:"
HUMAN = "\n\nHuman:"

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_ID_SUFFIXES = {CHOSEN: "a", REJECTED: "b"}


def is_transcript(value: object) -> bool:
    """Return whether a value is a text that begins with a turn."""
    return isinstance(value, str) and _TURN.match(value) is not None


def divide(row: Row, name: str) -> tuple[str, str]:
    """Return a transcript in two parts: everything before the last "Assistant:", and the answer after it.

    Raises DataError for any other text.
    """
    transcript = row.fields.get(name)
    if not isinstance(transcript, str) or not transcript.startswith(HUMAN) or ASSISTANT not in transcript:
        raise DataError(f"{row.where}: '{name}' is not a transcript of \\n\\nHuman: and \\n\\nAssistant: turns")
    prompt, _, completion = transcript.rpartition(ASSISTANT)
    return prompt, completion


def messages_of(transcript: str) -> list[Message]:
    """Return the turns of a transcript as messages. "Human:" inside a paragraph is text."""
    _, *parts = _TURN.split(transcript)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[speaker], "content": text.strip()} for speaker, text in turns]


def _is_hh(fields: dict[str, Any]) -> bool:
    return all(is_transcript(fields.get(side)) for side in _ID_SUFFIXES)


def _read_hh(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the chosen and the rejected completion; empty ones are rejected.

    If the prompts differ, each completion keeps its own prompt and gets its own group, so that the two are not
    compared.
    """
    pair = {side: divide(row, side) for side in _ID_SUFFIXES}
    same_prompt = pair[CHOSEN][0] == pair[REJECTED][0]
    equal = same_prompt and pair[CHOSEN][1].strip() == pair[REJECTED][1].strip()
    chosen = messages_of(pair[CHOSEN][0])
    turns = {CHOSEN: chosen, REJECTED: chosen if same_prompt else messages_of(pair[REJECTED][0])}
    noted = [EQUAL] if equal else [] if same_prompt else [DIFFER]
    shared = {"source": source, **unused(row, _ID_SUFFIXES), **({NOTED: noted} if noted else {})}
    row_id = identifier(row, source)
    for side, suffix in _ID_SUFFIXES.items():
        completion = pair[side][1].strip()
        if not completion:
            yield Rejected(f"the {side} completion is empty", row.fields)
            continue
        known = {
            "id": f"{row_id}{suffix}",
            "prompt": turns[side],
            "completion": completion,
            "group": row_id if same_prompt else f"{row_id}{suffix}",
            "label": side,
        }
        yield from_json({**shared, **known}, row.where)


def _is_red_team(fields: dict[str, Any]) -> bool:
    return is_transcript(fields.get("transcript")) and "task_description" in fields


def _read_red_team(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the last answer. A question after it, which has no answer, is cut."""
    prompt, rest = divide(row, "transcript")
    completion, cut, _ = rest.partition(HUMAN)
    candidate = Candidate(messages_of(prompt), completion.strip(), notes=[CUT] if cut else [])
    yield from examples_of(row, source, [candidate], {"transcript"})


HH = Format(
    "hh",
    fields='"chosen" and "rejected" transcripts of \\n\\nHuman: and \\n\\nAssistant:',
    becomes="two rows a pair, labelled, split at the last answer",
    matches=_is_hh,
    read=_read_hh,
)
RED_TEAM = Format(
    "red-team",
    fields='"transcript" of \\n\\nHuman: and \\n\\nAssistant:, "task_description", "rating"',
    becomes="one row a transcript, its last answer the completion; rating and min_harmlessness_score_transcript kept",
    matches=_is_red_team,
    read=_read_red_team,
)
