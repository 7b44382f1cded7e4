"""Functions that the readers share: values of a raw row, chats, and examples from the completions of a row."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import (
    CHOSEN,
    LENGTH,
    PAIR,
    REJECTED,
    SPLITS,
    STOP,
    Content,
    Example,
    Message,
    as_messages,
    content,
    finite,
    from_json,
    keys_of,
    prompt_key,
)
from irlhf.data.formats.base import Rejected, Row
from irlhf.io.jsonl import DEPTH_LIMIT, depth

NOTED = "noted"  # the key of a row that lists the changes made to it
TIE = "tie"
EQUAL = "completions equal"
DIFFER = "prompts differ"
CUT = "turns behind the completion cut"

_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "chatbot", "model", "ai", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function"), "tool"),
    **{role: role for role in ("system", "developer")},
}
_LABELS = {
    **dict.fromkeys(("true", "1", "1.0", "yes", CHOSEN), CHOSEN),
    **dict.fromkeys(("false", "0", "0.0", "no", REJECTED), REJECTED),
}
_MARKS = ("weight", "train", "loss")  # keys of a message that is not to be trained on, if 0 or false
_OFF = (0, "0", "false", "False")
_BODIES = ("content", "value", "text")
_SAMPLE_KEYS = {item.name for item in fields(Example)} | {"asked"}
_SAMPLE_KEYS -= {"id", "prompt", "completion", "prompt_numbers", "extra", "rewards", "gold"}
_SAMPLE_KEYS -= {"group", "label", "split", "source", "finish"}
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
    row: Row, source: str, candidates: Sequence[Candidate], used: Collection[str], group: str = ""
) -> Iterator[Example | Rejected]:
    """Yield a row's completions as examples that keep all columns but the `used` ones.

    `group` is given, or the row's own; without either, the prompt decides (irlhf/data/cleaning.py). If completions are
    labelled, `pair` is the id of the row, and only completions of the same row are compared.
    """
    rest = {name: value for name, value in row.fields.items() if name not in used}
    row_id = identifier(row, source)
    paired = len(candidates) > 1 and any(candidate.label for candidate in candidates)
    differ = [DIFFER] if paired and any(other.prompt != candidates[0].prompt for other in candidates) else []
    equal = [EQUAL] if len(candidates) == 2 and paired and candidates[0].completion == candidates[1].completion else []
    for position, candidate in enumerate(candidates, 1):
        noted = [*notes(rest), *candidate.notes, *(differ or equal)]
        labelled = {"given_label": rest["label"]} if candidate.label and rest.get("label") else {}
        known = {
            "id": f"{row_id}/{position}" if len(candidates) > 1 else row_id,
            "prompt": candidate.prompt,
            "completion": candidate.completion,
            **({"group": group} if group else {}),
            **({"label": candidate.label} if candidate.label else {}),
            **({PAIR: row_id} if paired else {}),
            **({NOTED: noted} if noted else {}),
        }
        kept = own_keys({**rest, **labelled, **candidate.extra})
        yield from_json({"source": source, **kept, **known}, row.where)


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
    """Return chosen for true, 1, yes and chosen, rejected for their opposites, and no label for any other value."""
    return _LABELS.get(str(liked).strip().lower(), "") if isinstance(liked, str | bool | int | float) else ""


def identifier(row: Row, source: str) -> str:
    """Return a row's `id`, or one made of the source and the position of the row, from 0."""
    given = row.fields.get("id")
    return f"{given}" if _is_id(given) else f"{source}-{row.where.line - 1}"


def group_of(prompt: Content, source: str, extra: Mapping[str, Any]) -> str:
    """Return a group id made of the source and a hash of the prompt and its tools."""
    return f"{source}-{prompt_key(prompt, extra)}"


def own_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns with those renamed to `given_NAME` that have the name of an irlhf key but another meaning.

    Empty ones are removed. The keys of a sample belong to irlhf only if the row is one.
    """
    kept = dict(given)
    if label := label_of(kept.get("label")):
        kept["label"] = label
    for name, fits in _FITTING.items():
        value = kept.get(name)
        if value == "":
            del kept[name]
        elif name in kept and not fits(value):
            kept[f"given_{name}"] = kept.pop(name)
    if not (isinstance(kept.get("policy"), str) and isinstance(kept.get("seed"), int) and "id" in kept):
        for name in _SAMPLE_KEYS & kept.keys():
            kept[f"given_{name}"] = kept.pop(name)
    return kept


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
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{row.where}: '{name}' is not a list of messages")
    if depth(value) > DEPTH_LIMIT - 1:
        raise DataError(f"{row.where}: '{name}' is nested too deeply (over {DEPTH_LIMIT - 2} levels)")
    messages = content([_message(item, row, name) for item in value], row.where, name)
    return as_messages(messages)


def text_or_chat(row: Row, name: str) -> Content:
    """Return a column that holds a text or a chat. Raises DataError for any other value."""
    value = row.fields.get(name)
    return chat(value, row, name) if isinstance(value, list | dict) else text(row, name)


def is_trained(message: Message) -> bool:
    """Return whether a message may be trained on: it is the assistant's and has no weight of 0."""
    return message["role"] == "assistant" and not any(message.get(mark) in _OFF for mark in _MARKS if mark in message)


def unmarked(message: Message) -> Message:
    """Return a message without nulls and without marks for training."""
    return {name: value for name, value in message.items() if name not in _MARKS and _is_kept(name, value)}


def last_answer(messages: Sequence[Message]) -> int | None:
    """Return the position of the last trained message of the assistant after another message; None without one."""
    return next((i for i in range(len(messages) - 1, 0, -1) if is_trained(messages[i])), None)


def split_chat(messages: Sequence[Message]) -> tuple[list[Message], Content, list[str]] | None:
    """Return the prompt, the completion and the notes of a chat that ends with its last answer; None without one."""
    end = last_answer(messages)
    if end is None:
        return None
    turns = [unmarked(message) for message in messages]
    return turns[:end], as_completion([turns[end]]), [CUT] if end + 1 < len(turns) else []


def as_completion(messages: list[Message]) -> Content:
    """Return a completion: the text of a single plain message of the assistant, else the messages."""
    plain = len(messages) == 1 and set(messages[0]) == {"role", "content"}
    return messages[0]["content"] if plain and messages[0]["role"] == "assistant" else messages


def _are_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(finite, value.values()))


def _is_id(value: object) -> bool:
    return bool(value) if isinstance(value, str) else isinstance(value, int) and not isinstance(value, bool)


def _is_kept(name: str, value: object) -> bool:
    return value is not None or name == "content"


def _message(given: dict[str, Any], row: Row, name: str) -> Message:
    speaker = given.get("role", given.get("from"))
    role = _ROLES.get(speaker.strip().lower()) if isinstance(speaker, str) else None
    if role is None:
        raise DataError(f"{row.where}: unknown role {speaker!r:.40} in '{name}'; known are {', '.join(_ROLES)}")
    key = next((key for key in _BODIES if given.get(key) is not None), "content")
    body = given.get(key)
    rest = {
        other: item
        for other, item in given.items()
        if other not in ("role", "from", "content", key) and item is not None
    }
    call = _function_call(body) if speaker == "function_call" else None
    if call:
        return {"role": role, "content": None, "tool_calls": [call], **rest}
    return {"role": role, "content": _joined_parts(body, row, name), **rest}


def _joined_parts(value: object, row: Row, name: str) -> object:
    """Return a list of text parts as one text, and any other value unchanged. Raises DataError for other parts."""
    if not isinstance(value, list) or not all(isinstance(part, dict | str) for part in value):
        return value
    parts = [{"text": part} if isinstance(part, str) else part for part in value]
    kinds = [part.get("type", "text") for part in parts]
    others = ", ".join(sorted({f"{kind}" for kind in kinds if kind not in _TEXT_PARTS}))
    if others:
        raise DataError(
            f"{row.where}: a message of '{name}' contains {others:.60}; only text is supported, so remove the row"
        )
    texts = [part.get("text") for part in parts]
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


_TEXT_PARTS = ("text", "input_text", "output_text")
_FITTING: Mapping[str, Callable[[Any], bool]] = {
    "id": _is_id,
    "source": lambda value: isinstance(value, str),
    "group": lambda value: isinstance(value, str),
    "split": lambda value: value in SPLITS,
    "label": lambda value: value in (CHOSEN, REJECTED),
    "finish": lambda value: value in (STOP, LENGTH),
    "rewards": _are_numbers,
    "gold": _are_numbers,
}
