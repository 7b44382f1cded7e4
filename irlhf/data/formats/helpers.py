"""Functions that the readers share: values of a raw row, chats, and examples from the completions of a row."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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

NOTED = "noted"  # the key of a row that lists the changes made to it
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
    """A completion of a prompt, with its own columns and notes."""

    prompt: Content
    completion: Content
    label: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def examples_of(
    row: Row, source: str, candidates: Sequence[Candidate], used: Collection[str]
) -> Iterator[Example | Rejected]:
    """Yield a row's completions as examples that keep all columns but the `used` ones.

    `group` is the row's own, or a hash of the prompt, so that equal prompts of a file share a group. If completions
    are labelled, `pair` is the id of the row, and only completions of the same row are compared.
    """
    rest = unused(row, used)
    row_id = identifier(row, source)
    paired = len(candidates) > 1 and any(candidate.label for candidate in candidates)
    differ = [DIFFER] if paired and any(other.prompt != candidates[0].prompt for other in candidates) else []
    equal = [EQUAL] if len(candidates) == 2 and paired and candidates[0].completion == candidates[1].completion else []
    for position, candidate in enumerate(candidates, 1):
        noted = [*candidate.notes, *(differ or equal)]
        known = {
            "id": f"{row_id}/{position}" if len(candidates) > 1 else row_id,
            "prompt": candidate.prompt,
            "completion": candidate.completion,
            "group": rest["group"] if isinstance(rest.get("group"), str) else group_of(candidate.prompt, source),
            **({"label": candidate.label} if candidate.label else {}),
            **({PAIR: row_id} if paired else {}),
            **({NOTED: noted} if noted else {}),
        }
        yield from_json({"source": source, **rest, **candidate.extra, **known}, row.where)


def labels_by_score(scores: Sequence[float | None]) -> list[str]:
    """Return a label for each completion: chosen for the highest score, rejected for lower ones.

    All labels are empty if the scores are equal or fewer than two are known.
    """
    known = [score for score in scores if score is not None]
    if len(known) < 2 or min(known) == max(known):
        return [""] * len(scores)
    return ["" if score is None else CHOSEN if score == max(known) else REJECTED for score in scores]


def tie_note(scores: Sequence[float | None]) -> list[str]:
    """Return the note of a tie if at least two scores are known and all are equal, else no note."""
    known = [score for score in scores if score is not None]
    return [TIE] if len(known) > 1 and min(known) == max(known) else []


def scores_of_ranks(ranks: Iterable[object]) -> list[float | None]:
    """Return a score for each rank, higher for a better (smaller) rank; None for a rank that is not a number."""
    return [None if (rank := number(value)) is None else -rank for value in ranks]


def label_of(liked: object) -> str:
    """Return chosen for true, rejected for false, and no label for any other value."""
    return (CHOSEN if liked else REJECTED) if isinstance(liked, bool) else ""


def identifier(row: Row, source: str) -> str:
    """Return a row's `id`, or one made of the source and the position of the row, from 0."""
    given = row.fields.get("id")
    return f"{given}" if _is_id(given) else f"{source}-{row.where.line - 1}"


def group_of(prompt: Content, source: str) -> str:
    """Return a group id made of the source and a hash of the prompt."""
    return f"{source}-{fingerprint(json.dumps(as_messages(prompt), sort_keys=True)):016x}"


def unused(row: Row, used: Collection[str]) -> dict[str, Any]:
    """Return the columns that were not used.

    A column with the name of an irlhf key but a value of another kind is renamed to `given_NAME`; empty ones are
    removed.
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
    """Return the notes of a row. A `noted` of the data that is not a list becomes one note."""
    given = extra.get(NOTED) or []
    return given if isinstance(given, list) else [f"{given}"]


def text(row: Row, name: str) -> str:
    """Return the text in a column. Raises DataError if there is none."""
    value = row.fields.get(name)
    if not isinstance(value, str):
        raise DataError(f"{row.where}: no text in '{name}' (columns: {columns(row)})")
    return value


def objects(row: Row, name: str) -> list[dict[str, Any]]:
    """Return the list of objects in a column. Raises DataError if there is none."""
    value = row.fields.get(name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{row.where}: '{name}' is not a list of objects (columns: {columns(row)})")
    return value


def number(value: object) -> float | None:
    """Return a number, which may be written as text; None for other values such as "N/A"."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return float(value) if isinstance(value, int | float) and finite(value) else None


def columns(row: Row) -> str:
    """Return the names of a row's columns, for an error message."""
    return keys_of(row.fields)


def chat(value: object, row: Row, name: str) -> list[Message]:
    """Return a chat as messages with standard roles and keys.

    Several text parts of one message are joined by blank lines. Raises DataError for anything but a list of
    messages, for an unknown role, and for parts that are not text.
    """
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{row.where}: '{name}' is not a list of messages")
    messages = content([_message(item, row, name) for item in value], row.where, name)
    return as_messages(messages)


def with_system(messages: list[Message], system: object) -> list[Message]:
    """Return the messages with the row's system message, if any, in front, unless they begin with one."""
    if not isinstance(system, str) or not system or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": system}, *messages]


def last_answer(messages: Sequence[Message]) -> int | None:
    """Return the position of the last message of the assistant that follows another message; None without one."""
    return next((i for i in range(len(messages) - 1, 0, -1) if messages[i]["role"] == "assistant"), None)


def as_completion(messages: list[Message]) -> Content:
    """Return a completion: the text of a single plain message of the assistant, else the messages."""
    plain = len(messages) == 1 and set(messages[0]) == {"role", "content"}
    return messages[0]["content"] if plain and messages[0]["role"] == "assistant" else messages


def _is_id(value: object) -> bool:
    return bool(value) if isinstance(value, str) else isinstance(value, int) and not isinstance(value, bool)


def _message(given: dict[str, Any], row: Row, name: str) -> Message:
    speaker = given.get("role", given.get("from"))
    role = _ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise DataError(f"{row.where}: unknown role {speaker!r:.40} in '{name}'; known are {', '.join(_ROLES)}")
    body = next((given[key] for key in ("content", "value", "text") if key in given), None)
    rest = {key: item for key, item in given.items() if key not in ("role", "from", "content", "value", "text")}
    call = _function_call(body) if speaker == "function_call" else None
    if call:
        return {"role": role, "content": None, "tool_calls": [call], **rest}
    return {"role": role, "content": _joined_parts(body, row, name), **rest}


def _joined_parts(value: object, row: Row, name: str) -> object:
    """Return a list of text parts as one text, and any other value unchanged. Raises DataError for other parts."""
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        return value
    kinds = [part.get("type", "text") for part in value]
    others = ", ".join(sorted({f"{kind}" for kind in kinds if kind != "text"}))
    if others:
        raise DataError(
            f"{row.where}: a message of '{name}' contains {others:.60}; only text is supported, so remove the row"
        )
    texts = [part.get("text") for part in value]
    return "\n\n".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else value


def _function_call(body: object) -> dict[str, Any] | None:
    """Return a function call, given as JSON text, as a tool call of a message; None for any other text."""
    try:
        parsed = json.loads(body) if isinstance(body, str) else None
        if not isinstance(parsed, dict) or not isinstance(parsed.get("name"), str):
            return None
        given = parsed.get("arguments", {})
        arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        f"{parsed['name']}{arguments}".encode()
    except (ValueError, RecursionError):  # ValueError includes UnicodeEncodeError: JSON can hold lone surrogates
        return None
    return {"type": "function", "function": {"name": parsed["name"], "arguments": arguments}}
