"""What readers share: texts, numbers and chats found in a raw row, and its completions made into examples."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import (
    CHOSEN,
    PAIR,
    REJECTED,
    SPLITS,
    Content,
    Example,
    Message,
    as_messages,
    content,
    finite,
    from_json,
    keys_of,
)
from irlhf.core.hashing import fingerprint
from irlhf.data.formats.base import Rejected, Row

NOTED = "noted"  # the key of rows that lists what a rule did to them
TIE = "tie"
EQUAL = "completions equal"
DIFFER = "prompts differ"
CUT = "turns behind the completion cut"

_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "chatbot", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function"), "tool"),
    **{role: role for role in ("system", "developer")},
}
_NUMBER = re.compile(r"\s*[-+]?[0-9]{1,15}(\.[0-9]{1,15})?\s*", re.ASCII)


@dataclass(frozen=True)
class Candidate:
    """One completion of a prompt, with what is its own in the row."""

    prompt: Content
    completion: Content
    label: str = ""
    own: Mapping[str, Any] = field(default_factory=dict)
    noted: Sequence[str] = ()


def answers(row: Row, source: str, sides: Sequence[Candidate], used: Collection[str]) -> Iterator[Example | Rejected]:
    """Yield a row's completions as examples, with all its keys but those that were `used`.

    The group is the prompt's own id, the same in every row of a file that asks the same. Where completions are
    labelled, `pair` is the row, within which alone they stand against each other.
    """
    rest = kept(row, used)
    number = identifier(row, source)
    paired = len(sides) > 1 and any(side.label for side in sides)
    differ = [DIFFER] if paired and any(side.prompt != sides[0].prompt for side in sides) else []
    equal = [EQUAL] if len(sides) == 2 and paired and sides[0].completion == sides[1].completion else []
    for position, side in enumerate(sides, 1):
        noted = [*side.noted, *(differ or equal)]
        known = {
            "id": f"{number}/{position}" if len(sides) > 1 else number,
            "prompt": side.prompt,
            "completion": side.completion,
            "group": rest["group"] if isinstance(rest.get("group"), str) else group_of(side.prompt, source),
            **({"label": side.label} if side.label else {}),
            **({PAIR: number} if paired else {}),
            **({NOTED: noted} if noted else {}),
        }
        yield from_json({"source": source, **rest, **side.own, **known}, row.where)


def preferred(standing: Sequence[float | None]) -> list[str]:
    """Return the labels of completions by how good each is, more being better.

    The best are chosen, all below them are rejected. None has a label where all are as good, or fewer than two are
    known.
    """
    known = [score for score in standing if score is not None]
    if len(known) < 2 or min(known) == max(known):
        return [""] * len(standing)
    return ["" if score is None else CHOSEN if score == max(known) else REJECTED for score in standing]


def tied(standing: Sequence[float | None]) -> list[str]:
    """Return what is to be noted where completions were compared and none was better."""
    known = [score for score in standing if score is not None]
    return [TIE] if len(known) > 1 and min(known) == max(known) else []


def identifier(row: Row, source: str) -> str:
    """Return a row's `id`; without one it is called after its file and 0-based row."""
    given = row.fields.get("id")
    return f"{given}" if _is_id(given) else f"{source}-{row.where.line - 1}"


def group_of(prompt: Content, source: str) -> str:
    """Return the id of a prompt, from its text alone."""
    return f"{source}-{fingerprint(json.dumps(as_messages(prompt), sort_keys=True)):016x}"


def kept(row: Row, used: Collection[str]) -> dict[str, Any]:
    """Return what is left of a row.

    What only looks like irlhf's own key is kept as `given_…`; an empty text under one says nothing.
    """
    rest = {name: value for name, value in row.fields.items() if name not in used}
    for name in ("id", "source", "group", "split", "label"):
        value = rest.get(name)
        fits = _is_id(value) if name == "id" else isinstance(value, str) and (name != "split" or value in SPLITS)
        if value == "":
            del rest[name]
        elif name in rest and not fits:
            rest[f"given_{name}"] = rest.pop(name)
    return rest


def notes(extra: Mapping[str, Any]) -> list[Any]:
    """Return what is noted of a row so far; what its data call so and is no list is one text."""
    given = extra.get(NOTED) or []
    return given if isinstance(given, list) else [f"{given}"]


def text(row: Row, name: str) -> str:
    """Return the text under a key."""
    value = row.fields.get(name)
    if not isinstance(value, str):
        raise DataError(f"{row.where}: no text in '{name}' (columns: {columns(row)})")
    return value


def objects(row: Row, name: str) -> list[dict[str, Any]]:
    """Return the list of objects under a key."""
    value = row.fields.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{row.where}: '{name}' is no list of objects (columns: {columns(row)})")
    return value


def number(value: object) -> float | None:
    """Return a number, also one that is written as text; None for "N/A" and its kind."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return float(value) if isinstance(value, int | float) and finite(value) else None


def columns(row: Row) -> str:
    """Return a row's keys, for an error message."""
    return keys_of(row.fields)


def chat(value: object, row: Row, name: str) -> list[Message]:
    """Return messages, whatever the data calls their roles and keys, with content of several texts as one."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{row.where}: '{name}' is no list of messages")
    messages = content([_message(item, row, name) for item in value], row.where, name)
    return as_messages(messages)


def led(messages: list[Message], system: object) -> list[Message]:
    """Put a row's system message, if there is one, before a chat that begins with none."""
    if not isinstance(system, str) or not system or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": system}, *messages]


def as_completion(messages: list[Message]) -> Content:
    """Return a completion: the bare text of an answer that is nothing more, else its messages."""
    bare = len(messages) == 1 and set(messages[0]) == {"role", "content"}
    return messages[0]["content"] if bare and messages[0]["role"] == "assistant" else messages


def _is_id(value: object) -> bool:
    return bool(value) if isinstance(value, str) else isinstance(value, int) and not isinstance(value, bool)


def _message(given: dict[str, Any], row: Row, name: str) -> Message:
    speaker = given.get("role", given.get("from"))
    role = _ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise DataError(f"{row.where}: role {speaker!r:.40} in '{name}' is none of {', '.join(_ROLES)}")
    words = next((given[key] for key in ("content", "value", "text") if key in given), None)
    rest = {key: item for key, item in given.items() if key not in ("role", "from", "content", "value", "text")}
    call = _call(words) if speaker == "function_call" else None
    if call:
        return {"role": role, "content": None, "tool_calls": [call], **rest}
    return {"role": role, "content": _words(words, row, name), **rest}


def _words(value: object, row: Row, name: str) -> object:
    """Join content of parts that are all text, as vision models have them."""
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        return value
    kinds = [part.get("type", "text") for part in value]
    others = sorted({f"{kind}" for kind in kinds if kind != "text"})
    if others:
        held = ", ".join(others)
        raise DataError(
            f"{row.where}: a message of '{name}' holds {held:.60}, and only text is read; leave the row out"
        )
    texts = [part.get("text") for part in value]
    return "\n\n".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else value


def _call(words: object) -> dict[str, Any] | None:
    """Return a function call that is written as JSON as a message holds it."""
    try:
        parsed = json.loads(words) if isinstance(words, str) else None
        if not isinstance(parsed, dict) or not isinstance(parsed.get("name"), str):
            return None
        arguments = parsed.get("arguments", {})
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        f"{parsed['name']}{written}".encode()
    except (ValueError, RecursionError):  # UnicodeEncodeError too: half characters can be read and not be written
        return None
    return {"type": "function", "function": {"name": parsed["name"], "arguments": written}}
