"""Anthropic's transcripts: HH-RLHF's pairs and the red-teaming attempts.

A transcript is one text of turns that begin with "\\n\\nHuman:" or "\\n\\nAssistant:".
"""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, PAIR, REJECTED, Example, from_json
from irlhf.data.formats.base import Format, Rejected, Row
from irlhf.data.formats.helpers import CUT, DIFFER, EQUAL, NOTED, Candidate, examples_of, identifier, notes, own_keys
from irlhf.data.transcripts import ASSISTANT, HUMAN, answer_of, is_transcript, messages_of

_ID_SUFFIXES = {CHOSEN: "a", REJECTED: "b"}


def divide(row: Row, name: str) -> tuple[str, str]:
    """Return a transcript in two parts: everything before the last "Assistant:", and the answer after it.

    Raises DataError for any other text.
    """
    transcript = row.fields.get(name)
    if not isinstance(transcript, str) or not transcript.startswith(HUMAN) or ASSISTANT not in transcript:
        raise DataError(f"{row.where}: '{name}' is not a transcript of \\n\\nHuman: and \\n\\nAssistant: turns")
    prompt, _, completion = transcript.rpartition(ASSISTANT)
    return prompt, completion


def _is_hh(fields: dict[str, Any]) -> bool:
    return all(is_transcript(fields.get(side)) for side in _ID_SUFFIXES)


def _read_hh(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the chosen and the rejected completion; empty ones are rejected.

    The prompt decides the group. If the prompts differ, each completion keeps its own prompt and has its own `pair`, so
    that the two are not compared.
    """
    pair = {side: divide(row, side) for side in _ID_SUFFIXES}
    same_prompt = pair[CHOSEN][0] == pair[REJECTED][0]
    answers = {side: answer_of(pair[side][1]) for side in _ID_SUFFIXES}
    equal = same_prompt and answers[CHOSEN][0] == answers[REJECTED][0]
    chosen = messages_of(pair[CHOSEN][0])
    turns = {CHOSEN: chosen, REJECTED: chosen if same_prompt else messages_of(pair[REJECTED][0])}
    about_both = [EQUAL] if equal else [] if same_prompt else [DIFFER]
    rest = {name: value for name, value in row.fields.items() if name not in (*_ID_SUFFIXES, "label")}
    row_id = identifier(row, source)
    for side, suffix in _ID_SUFFIXES.items():
        completion, cut = answers[side]
        if not completion:
            yield Rejected(f"the {side} completion is empty", row.fields)
            continue
        noted = [*notes(rest), *about_both, *([CUT] if cut else [])]
        known = {
            "id": f"{row_id}{suffix}",
            "prompt": turns[side],
            "completion": completion,
            "label": side,
            PAIR: row_id if same_prompt else f"{row_id}{suffix}",
            **({NOTED: noted} if noted else {}),
        }
        yield from_json({"source": source, **own_keys(rest), **known}, row.where)


def _is_red_team(fields: dict[str, Any]) -> bool:
    return is_transcript(fields.get("transcript")) and "task_description" in fields


def _read_red_team(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the last answer. A question after it, which has no answer, is cut."""
    prompt, rest = divide(row, "transcript")
    completion, cut = answer_of(rest)
    candidate = Candidate(messages_of(prompt), completion, notes=[CUT] if cut else [])
    yield from examples_of(row, source, [candidate], {"transcript"})


HH = Format(
    "hh",
    fields='"chosen" and "rejected" transcripts of \\n\\nHuman: and \\n\\nAssistant:',
    becomes="two rows per pair, labelled, split at the last answer",
    matches=_is_hh,
    read=_read_hh,
)
RED_TEAM = Format(
    "red-team",
    fields='"transcript" of \\n\\nHuman: and \\n\\nAssistant:, "task_description", "rating"',
    becomes="one row per transcript, its last answer the completion; rating and min_harmlessness_score_transcript kept",
    matches=_is_red_team,
    read=_read_red_team,
)
