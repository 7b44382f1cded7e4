"""Two completions of which one was chosen, in every way that rows of `chosen` and `rejected` are written."""

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Content, Example, Message, as_messages
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, as_completion, chat, text
from irlhf.io.jsonl import DEPTH_LIMIT, depth

_OWN = re.compile(r"(?P<side>chosen|rejected)[_-](?P<name>.+)|(?P<first>.+)[_-](?P<last>chosen|rejected)")
_IRLHF = {field.name for field in fields(Example)}


class Keys(NamedTuple):
    """What a format calls the three parts of a pair."""

    chosen: str = CHOSEN
    rejected: str = REJECTED
    prompt: str = "prompt"


KEYS = Keys()


class Turns(NamedTuple):
    """A prompt and what follows it."""

    prompt: Content
    completion: Content


def pair(row: Row, source: str, keys: Keys = KEYS) -> Iterator[Example | Rejected]:
    """Yield the chosen and the rejected completion.

    The prompt is the row's own, else the longest beginning that both share: whole turns of a chat, whole words of a
    text. A column of one side (`score_chosen`, `chosen-model`) becomes a column of that side's row (`score`, `model`).
    """
    both = _divided(row, keys)
    if both is None:
        yield Rejected("the two texts begin differently, and there is no prompt", row.fields)
        return
    owned = _own(row, keys)
    sides = [Candidate(*turns, label, owned[label]) for turns, label in zip(both, (CHOSEN, REJECTED), strict=True)]
    used = {*keys, *(name for name in row.fields if _side_of(name, row, keys))}
    yield from answers(row, source, sides, used)


def _own(row: Row, keys: Keys) -> dict[str, dict[str, Any]]:
    """Return the columns of each side, called as what they are."""
    values: dict[str, dict[str, Any]] = {CHOSEN: {}, REJECTED: {}}
    for name, value in row.fields.items():
        side, stem = _side_of(name, row, keys) or ("", "")
        if side:
            values[side][stem] = value
    return values


def _divided(row: Row, keys: Keys) -> tuple[Turns, Turns] | None:
    """Return both sides parted into prompt and completion; None where texts share no beginning."""
    chosen, rejected = (_content(row, name) for name in (keys.chosen, keys.rejected))
    given = row.fields.get(keys.prompt)
    if given is None:
        return _implicit(chosen, rejected)
    prompt = text(row, keys.prompt) if isinstance(given, str) else chat(given, row, keys.prompt)
    return _explicit(prompt, chosen), _explicit(prompt, rejected)


def shared_beginning(chosen: str, rejected: str) -> str:
    """Return the longest beginning of whole words that two texts share, and that leaves something of each."""
    length = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    length = min(len(chosen), len(rejected)) if length is None else length
    shared = chosen[:length]
    while shared and not (chosen[len(shared) :][:1].isspace() and rejected[len(shared) :][:1].isspace()):
        shared = shared[: max((i for i, sign in enumerate(shared) if sign.isspace()), default=0)]
    return shared.rstrip()


def _content(row: Row, name: str) -> Content:
    value = row.fields.get(name)
    if isinstance(value, dict):
        if depth(value) > DEPTH_LIMIT - 2:  # it will stand in a list, in a row
            raise DataError(f"{row.where}: '{name}' is nested too deeply (over {DEPTH_LIMIT - 2} levels)")
        return chat([value], row, name)
    return chat(value, row, name) if isinstance(value, list) else text(row, name)


def _explicit(prompt: Content, side: Content) -> Turns:
    """Part a side from its prompt, which some data write at the beginning of either side once more."""
    if isinstance(side, str):
        return Turns(prompt, side)
    question = as_messages(prompt)
    if side[: len(question)] == question and side[len(question) :]:
        return Turns(prompt, as_completion(side[len(question) :]))
    return Turns(prompt, as_completion(side)) if side[0]["role"] == "assistant" else _last_answer(side)


def _implicit(chosen: Content, rejected: Content) -> tuple[Turns, Turns] | None:
    if isinstance(chosen, str) and isinstance(rejected, str):
        shared = shared_beginning(chosen, rejected)
        return (Turns(shared, chosen[len(shared) :]), Turns(shared, rejected[len(shared) :])) if shared else None
    sides = as_messages(chosen, "assistant"), as_messages(rejected, "assistant")
    length = _shared_turns(*sides)
    if any(turn["role"] == "user" for side in sides for turn in side[length:]) or not length:
        return _last_answer(sides[0]), _last_answer(sides[1])
    return Turns(sides[0][:length], as_completion(sides[0][length:])), Turns(
        sides[1][:length], as_completion(sides[1][length:])
    )


def _shared_turns(chosen: list[Message], rejected: list[Message]) -> int:
    """Return how many turns two chats share, of those before an answer of each."""
    most = min(len(chosen), len(rejected)) - 1
    return next((i for i in range(most) if chosen[i] != rejected[i]), most)


def _last_answer(messages: list[Message]) -> Turns:
    """Part a chat at its last turn, for chats that went apart before it."""
    return Turns(messages[:-1] or "", as_completion(messages[-1:]))


def _side_of(name: str, row: Row, keys: Keys) -> tuple[str, str] | None:
    """Return the side that a column belongs to, and what it is called there."""
    match = _OWN.fullmatch(name)
    if not match or name in keys:
        return None
    stem = match["name"] or match["first"]
    return None if stem in _IRLHF or stem in keys or stem in row.fields else (match["side"] or match["last"], stem)
