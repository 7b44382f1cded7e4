"""Pairs of a chosen and a rejected completion, as texts, messages, or whole chats, with or without a prompt."""

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from irlhf.core.example import CHOSEN, REJECTED, Content, Example, Message, as_messages
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, as_completion, examples_of, text_or_chat

_SIDE_COLUMN = re.compile(r"(?P<side>chosen|rejected)[_-](?P<name>.+)|(?P<first>.+)[_-](?P<last>chosen|rejected)")
_IRLHF_KEYS = {field.name for field in fields(Example)}


class Keys(NamedTuple):
    """The columns of the three parts of a pair."""

    chosen: str = CHOSEN
    rejected: str = REJECTED
    prompt: str = "prompt"


KEYS = Keys()


class Turns(NamedTuple):
    """A prompt and its completion."""

    prompt: Content
    completion: Content


def pair(row: Row, source: str, keys: Keys = KEYS) -> Iterator[Example | Rejected]:
    """Yield the chosen and the rejected completion.

    The prompt is the row's own, else the longest beginning that both sides share, in whole turns of a chat or whole
    words of a text. A column of one side (`score_chosen`, `chosen-model`) becomes a column of that side's example
    (`score`, `model`).
    """
    both = _divided(row, keys)
    if both is None:
        yield Rejected("there is no prompt, and the two texts begin differently", row.fields)
        return
    extra = _side_columns(row, keys)
    labelled = zip(both, (CHOSEN, REJECTED), strict=True)
    candidates = [Candidate(*turns, label, extra[label]) for turns, label in labelled]
    used = {*keys, *(name for name in row.fields if _side_of(name, row, keys))}
    yield from examples_of(row, source, candidates, used)


def shared_beginning(chosen: str, rejected: str) -> str:
    """Return the longest beginning of whole words that two texts share and that is shorter than either text."""
    length = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    length = min(len(chosen), len(rejected)) if length is None else length
    shared = chosen[:length]
    while shared and not (chosen[len(shared) :][:1].isspace() and rejected[len(shared) :][:1].isspace()):
        shared = shared[: max((i for i, sign in enumerate(shared) if sign.isspace()), default=0)]
    return shared.rstrip()


def _side_columns(row: Row, keys: Keys) -> dict[str, dict[str, Any]]:
    """Return the columns of each side under their names without the side."""
    values: dict[str, dict[str, Any]] = {CHOSEN: {}, REJECTED: {}}
    for name, value in row.fields.items():
        side, stem = _side_of(name, row, keys) or ("", "")
        if side:
            values[side][stem] = value
    return values


def _side_of(name: str, row: Row, keys: Keys) -> tuple[str, str] | None:
    """Return the side that a column belongs to and its name without the side; None for other columns."""
    match = _SIDE_COLUMN.fullmatch(name)
    if not match or name in keys:
        return None
    stem = match["name"] or match["first"]
    taken = stem in _IRLHF_KEYS or stem in keys or stem in row.fields
    return None if taken else (match["side"] or match["last"], stem)


def _divided(row: Row, keys: Keys) -> tuple[Turns, Turns] | None:
    """Return both sides divided into prompt and completion; None for texts without a shared beginning."""
    chosen, rejected = (text_or_chat(row, name) for name in (keys.chosen, keys.rejected))
    if row.fields.get(keys.prompt) is None:
        return _divided_at_shared_beginning(chosen, rejected)
    prompt = text_or_chat(row, keys.prompt)
    return _divided_at_prompt(prompt, chosen), _divided_at_prompt(prompt, rejected)


def _divided_at_prompt(prompt: Content, side: Content) -> Turns:
    """Return a side divided into prompt and completion. A chat may repeat the prompt at its beginning."""
    if isinstance(side, str):
        return Turns(prompt, side)
    question = as_messages(prompt)
    if side[: len(question)] == question and side[len(question) :]:
        return Turns(prompt, as_completion(side[len(question) :]))
    return Turns(prompt, as_completion(side)) if side[0]["role"] == "assistant" else _divided_at_last_turn(side)


def _divided_at_shared_beginning(chosen: Content, rejected: Content) -> tuple[Turns, Turns] | None:
    if isinstance(chosen, str) and isinstance(rejected, str):
        shared = shared_beginning(chosen, rejected)
        return (Turns(shared, chosen[len(shared) :]), Turns(shared, rejected[len(shared) :])) if shared else None
    sides = as_messages(chosen, "assistant"), as_messages(rejected, "assistant")
    most = min(map(len, sides)) - 1
    length = next((i for i in range(most) if sides[0][i] != sides[1][i]), most)
    if any(turn["role"] == "user" for side in sides for turn in side[length:]) or not length:
        return _divided_at_last_turn(sides[0]), _divided_at_last_turn(sides[1])
    first, second = (Turns(side[:length], as_completion(side[length:])) for side in sides)
    return first, second


def _divided_at_last_turn(messages: list[Message]) -> Turns:
    return Turns(messages[:-1] or "", as_completion(messages[-1:]))
