"""NVIDIA's data sets: HelpSteer, HelpSteer2 and its preferences, HelpSteer3, SteerLM's chats and NeMo-RL's rankings."""

import re
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Content, Example, Message
from irlhf.data.formats.base import Format, Rejected, Row, has_keys
from irlhf.data.formats.helpers import (
    Candidate,
    as_completion,
    chat,
    columns,
    examples_of,
    identifier,
    labels_by_score,
    number,
    objects,
    scores_of_ranks,
    text,
    text_or_chat,
    tie_note,
)

_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_TURN = re.compile(r"(?<!\s)\s*<extra_id_1>(User|Assistant)\n")
_ROLES = {"User": "user", "Assistant": "assistant"}
_STEERLM_LABEL = re.compile(r"\s*+[\w .-]+:\s*-?[0-9]{1,15}(\.[0-9]{1,15})?\s*")
_STEERLM_UNRATED = -100.0  # the value of an attribute without a rating


def _read_helpsteer(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the response with its five ratings, 0 to 4 each."""
    ratings: dict[str, Any] = {}
    for name in _ATTRIBUTES:
        ratings |= _rating(row, name)
    candidate = Candidate(_turns(text_or_chat(row, "prompt")), text(row, "response"), extra=ratings)
    yield from examples_of(row, source, [candidate], {"prompt", "response", *_ATTRIBUTES})


def _turns(prompt: Content) -> Content:
    """Return a prompt as messages if it has several turns, which HelpSteer2 separates by <extra_id_1>."""
    if not isinstance(prompt, str):
        return prompt
    first, *parts = _TURN.split(prompt)
    if not parts:
        return prompt
    later = zip(parts[::2], parts[1::2], strict=True)
    messages = [{"role": _ROLES[speaker], "content": body} for speaker, body in later]
    return [{"role": "user", "content": first}, *messages]


def _rating(row: Row, name: str) -> dict[str, Any]:
    value = row.fields.get(name)
    if value is None:
        return {}
    if isinstance(value, list):
        each = [rating for rating in map(number, value) if rating is not None]
        return {name: fmean(each), f"{name}_each": value} if each else {f"{name}_each": value}
    if number(value) is None:
        raise DataError(f"{row.where}: '{name}' is not a rating (columns: {columns(row)})")
    return {name: value}


def _read_helpsteer2_preference(row: Row, source: str) -> Iterator[Example | Rejected]:
    used = ("prompt", "response_1", "response_2")
    yield from _graded_pair(row, source, _turns(text_or_chat(row, "prompt")), used, "preference_strength")


def _read_helpsteer3(row: Row, source: str) -> Iterator[Example | Rejected]:
    used = ("context", "response1", "response2")
    yield from _graded_pair(row, source, chat(row.fields.get("context"), row, "context"), used, "overall_preference")


def _graded_pair(
    row: Row, source: str, prompt: Content, used: Sequence[str], strength: str
) -> Iterator[Example | Rejected]:
    """Yield both responses, labelled by the sign of the `strength` column; without labels if it is 0.

    `used` are the columns of the prompt and of the two responses.
    """
    responses = [text(row, name) for name in used[1:]]
    preference = number(row.fields.get(strength))
    if preference is None:
        raise DataError(f"{row.where}: '{strength}' is not a number (columns: {columns(row)})")
    scores = [-preference, preference]
    labelled = zip(responses, labels_by_score(scores), strict=True)
    candidates = [Candidate(prompt, response, label, notes=tie_note(scores)) for response, label in labelled]
    yield from examples_of(row, source, candidates, used)


def _is_steerlm(fields: dict[str, Any]) -> bool:
    turns = fields.get("conversations")
    labelled = isinstance(turns, list) and any(isinstance(turn, dict) and "label" in turn for turn in turns)
    return "mask" in fields and labelled


def _read_steerlm(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every answer that has a label, with the chat before it as the prompt."""
    turns = chat(row.fields.get("conversations"), row, "conversations")
    plain = [{name: value for name, value in turn.items() if name != "label"} for turn in turns]
    rest = {name: value for name, value in row.fields.items() if name != "conversations"}
    rated = [i for i, turn in enumerate(turns) if i and turn["role"] == "assistant" and turn.get("label")]
    if not rated:
        yield Rejected("no answer has a label", row.fields)
    for count, i in enumerate(rated, 1):
        labels = {"labels": _steerlm_labels(turns[i], row)}
        fields = {**rest, "id": f"{identifier(row, source)}/{count}"}
        candidate = Candidate(plain[:i], as_completion([plain[i]]), extra=labels)
        yield from examples_of(Row(row.where, fields), source, [candidate], ())


def _steerlm_labels(turn: Message, row: Row) -> dict[str, float]:
    """Return the label of an answer, such as quality:4,toxicity:0, as numbers by name."""
    parts = turn["label"].split(",") if isinstance(turn["label"], str) else [""]
    if not all(_STEERLM_LABEL.fullmatch(part) for part in parts):
        raise DataError(f"{row.where}: label {turn['label']!r:.60} is not written like quality:4,toxicity:0")
    pairs = [part.rpartition(":") for part in parts]
    return {name.strip(): float(value) for name, _, value in pairs if float(value) != _STEERLM_UNRATED}


def _is_nemo_rl(fields: dict[str, Any]) -> bool:
    completions = fields.get("completions")
    ranked = isinstance(completions, list) and all(isinstance(item, dict) and "rank" in item for item in completions)
    return isinstance(fields.get("context"), list) and ranked


def _read_nemo_rl(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every completion of a ranking; rank 0 is the best."""
    prompt, given = chat(row.fields.get("context"), row, "context"), objects(row, "completions")
    if not given:
        yield Rejected("no completions", row.fields)
    scores = scores_of_ranks(item.get("rank") for item in given)
    candidates = []
    for item, label in zip(given, labels_by_score(scores), strict=True):
        completion = as_completion(chat(item.get("completion"), row, "completion"))
        candidates.append(Candidate(prompt, completion, label, {"rank": item.get("rank")}, tie_note(scores)))
    yield from examples_of(row, source, candidates, {"context", "completions"})


HELPSTEER = Format(
    "helpsteer",
    fields='"prompt", "response", ' + ", ".join(f'"{name}"' for name in _ATTRIBUTES),
    becomes="one row per response, five ratings kept; a list of ratings becomes its mean, with the list in NAME_each",
    matches=has_keys("prompt", "response", *_ATTRIBUTES),
    read=_read_helpsteer,
)
HELPSTEER2_PREFERENCE = Format(
    "helpsteer2-preference",
    fields='"prompt", "response_1", "response_2", "preference_strength" from -3 (the first is better) to 3',
    becomes="two rows per pair, labelled, preference_strength kept; no labels for a tie (0)",
    matches=has_keys("prompt", "response_1", "response_2", "preference_strength"),
    read=_read_helpsteer2_preference,
)
HELPSTEER3 = Format(
    "helpsteer3",
    fields='"context" messages, "response1", "response2", "overall_preference" from -3 (the first is better) to 3',
    becomes="two rows per pair, labelled, overall_preference kept; no labels for a tie (0)",
    matches=has_keys("context", "response1", "response2", "overall_preference"),
    read=_read_helpsteer3,
)
STEERLM = Format(
    "steerlm",
    fields='"conversations" of from, value and label like quality:4,toxicity:0, and "mask"',
    becomes="one row for every labelled answer, with the chat before it; labels.NAME kept as numbers (-100: unrated)",
    matches=_is_steerlm,
    read=_read_steerlm,
)
NEMO_RL = Format(
    "nemo-rl",
    fields='"context" messages, "completions" of rank and completion',
    becomes="one row per completion, rank kept; rank 0 is chosen, all others are rejected",
    matches=_is_nemo_rl,
    read=_read_nemo_rl,
)
