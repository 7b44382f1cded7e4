"""The row type of all data files, and its JSON form. Each command adds keys:

    prepare   id prompt completion group label split source
    score     + rewards (or gold)
    sample    + target asked finish tokens entropy logprob (reference k3) policy seed decoding
              (a server gives entropy_low entropy_high (censored) instead of entropy)
    score --keep   + kept candidates spent

A sample is a valid example: `score` and `finetune` read it.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from irlhf.core import console
from irlhf.core.errors import DataError
from irlhf.core.hashing import add_new, fingerprint
from irlhf.core.tool_calls import TOOLS, tools_of

Message = dict[str, Any]  # {"role": "user", "content": "…"}, and vendor-specific keys
Content = str | list[Message]

ROLES = ("system", "developer", "user", "assistant", "tool")
CHOSEN, REJECTED = "chosen", "rejected"  # labels of the two completions of a preference pair
PAIR = "pair"  # row key that identifies the pair if one prompt has several
TRAIN, VALIDATION, TEST = "train", "validation", "test"
STOP, LENGTH = "stop", "length"  # finish reason: the model ended the completion, or it hit the token limit
LARGEST = 1e100  # largest absolute reward; sums of squares of larger ones overflow a float
SPLITS = (TRAIN, VALIDATION, TEST)

_ASKING = ("user", "tool")  # roles whose turns a completion answers
_FIRST_TURN = re.compile(r"\s*Human:.*?\n\nAssistant:", re.DOTALL)


class Where(NamedTuple):
    """The file and line of a row, for messages."""

    path: str
    line: int  # 1-based; the row number if the file does not hold one row per line

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(slots=True, kw_only=True)  # never mutated; not frozen, because that doubles the time to create a row
class Example:
    """One prompt with one completion, and everything known about them.

    `rewards` and `gold` are raw numbers in the units of their scorers. `prompt_numbers` (the row key `asked`) and
    `wanted` are in the units of the policy's scale. `entropy` is the mean over tokens and `logprob` the sum over
    tokens, both in nats at temperature 1, after guidance and before truncation. `entropy_low` and `entropy_high` are
    bounds on the entropy if only the likeliest tokens are known. `reference` is the logprob of the same tokens under
    another model, whose prompt has no reward line, and `k3` is an estimate of the KL from that model
    (irlhf/core/entropy_bounds.py). `kept` names the rule that chose this sample among `candidates` samples, which took
    `spent` tokens. `extra` holds unknown keys.
    """

    id: str
    prompt: Content
    completion: Content = ""
    group: str = ""  # id of the prompt, shared by all its completions
    label: str = ""
    split: str = ""
    source: str = ""
    rewards: Mapping[str, float] = field(default_factory=dict)
    gold: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)  # deviation among the scorers of a pooled reward
    target: Mapping[str, str] = field(default_factory=dict)  # as the user wrote it
    prompt_numbers: Mapping[str, float] = field(default_factory=dict)  # the numbers in the prompt
    wanted: Mapping[str, float] = field(default_factory=dict)  # if calibration changed them in the prompt
    finish: str = ""  # STOP or LENGTH
    tokens: int | None = None
    entropy: float | None = None
    entropy_low: float | None = None
    entropy_high: float | None = None
    logprob: float | None = None
    censored: int | None = None  # tokens without a logprob from the server; if there are any, `logprob` is None
    reference: float | None = None
    k3: float | None = None
    policy: str = ""
    seed: int | None = None
    decoding: Mapping[str, float] = field(default_factory=dict)  # sampling parameters
    kept: str = ""  # "best" or "nearest"
    candidates: int | None = None
    spent: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """The id of the row's prompt, for shards and for clustered intervals: its group, else a hash of its content."""
        return self.group or prompt_key(self.prompt, self.extra)

    @property
    def tools(self) -> list[Any]:
        """The tools that the assistant may call in this row. Raises DataError."""
        return tools_of(self.extra)

    @property
    def wishes(self) -> dict[str, float]:
        """The requested numbers, before calibration changed those in the prompt."""
        return {**self.prompt_numbers, **self.wanted}

    def to_json(self, split: str = "") -> dict[str, Any]:
        """Return the row as written to a file, without empty values. `split` replaces the row's own split."""
        values = list(_optional_of(self))
        if split:
            values[_SPLIT] = split
        given = {name: value for name, value in zip(_OPTIONAL, values, strict=True) if value or value == 0}
        return {"id": self.id, "prompt": self.prompt, "completion": self.completion, **given, **self.extra}


_ALWAYS = ("id", "prompt", "completion")
_FIELDS = tuple(item.name for item in fields(Example) if item.name not in (*_ALWAYS, "extra"))
_OPTIONAL = tuple("asked" if name == "prompt_numbers" else name for name in _FIELDS)  # as named in files
_SPLIT = _OPTIONAL.index("split")
_KNOWN = frozenset((*_ALWAYS, *_OPTIONAL))
_optional_of = attrgetter(*_FIELDS)
_TEXTS = ("group", "label", "split", "source", "finish", "policy", "kept")
_NUMBERS = ("rewards", "gold", "spread", "asked", "wanted", "decoding")
_COUNTS = ("tokens", "seed", "censored", "candidates", "spent")
_MEASURES = ("entropy", "entropy_low", "entropy_high", "logprob", "reference", "k3")
_TEXTS_ALONE = frozenset((*_ALWAYS, *_TEXTS))  # most rows have only these keys and need no numeric checks
_NARROW = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_AS_LINE = _NARROW | orjson.OPT_APPEND_NEWLINE
# Rows come from JSON, so they contain no reference cycles.
_WIDER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


def from_json(row: Mapping[str, Any], where: Where | str, completion: bool = True) -> Example:
    """Return a validated row. Raises DataError with the place and the key.

    With `completion=False`, only the prompt is required.
    """
    known = _KNOWN.issuperset(row)
    if known and None not in row.values():
        given = dict(row)
    else:
        given = {name: value for name, value in row.items() if name in _KNOWN and value is not None}
    if "id" not in given:
        raise DataError(f"{where}: no 'id' (keys: {keys_of(row)}); `irlhf prepare` adds an id to every row")
    for name in ("prompt", "completion") if completion else ("prompt",):
        if name not in given:
            hint = f"`irlhf prepare --map {name}=COLUMN` reads another column as {name}"
            raise DataError(f"{where}: no '{name}' (keys: {keys_of(row)}); {hint}")
    given["id"] = _identifier(given["id"], where)
    given["prompt"] = content(given["prompt"], where, "prompt")
    given["completion"] = content(given.get("completion", ""), where, "completion")
    for name in _TEXTS:
        if name in given and not isinstance(given[name], str):
            raise DataError(f"{where}: '{name}' is {_kind(given[name])}, not text")
    if not _TEXTS_ALONE.issuperset(given):
        _check_numbers(given, where)
    if given.get("split") and given["split"] not in SPLITS:
        raise DataError(f"{where}: split '{given['split']:.40}' is invalid; use {', '.join(SPLITS)}")
    if "target" in given:
        _check_texts(given["target"], where)
    if not known:
        given["extra"] = {name: value for name, value in row.items() if name not in _KNOWN}
    if "asked" in given:
        given["prompt_numbers"] = given.pop("asked")
    return Example(**given)


def content(value: object, where: Where | str, name: str) -> Content:
    """Return a validated prompt or completion: text or messages with role and content. Raises DataError."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: '{name}' is {_kind(value)}, but must be text or a list of messages")
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise DataError(f"{where}: message {number} of '{name}' needs a role: {', '.join(ROLES)}")
        body = message.get("content")
        if isinstance(body, str):
            continue
        if body is not None or message["role"] != "assistant" or not message.get("tool_calls"):
            raise DataError(f"{where}: message {number} of '{name}' needs text as 'content'")
    return value


def as_messages(prompt: Content, role: str = "user") -> list[Message]:
    """Return a prompt as messages, or a completion if the role is assistant."""
    return [{"role": role, "content": prompt}] if isinstance(prompt, str) else prompt


def as_text(value: Content) -> str:
    """Return the text of a prompt or a completion, with a blank line between messages."""
    if isinstance(value, str):
        return value
    return "\n\n".join(message.get("content") or "" for message in value)


def beginning(prompt: Content) -> Content:
    """Return the turns of a conversation up to and including its first user or tool turn.

    All prompts that continue one conversation have the same beginning. A prompt of one turn is returned whole. A text
    in the format of Anthropic's transcripts is cut after its first turn; any other text is returned whole.
    """
    if isinstance(prompt, str):
        transcript = _FIRST_TURN.match(prompt)
        return transcript[0] if transcript else prompt
    first_question = next((number for number, turn in enumerate(prompt, 1) if turn["role"] in _ASKING), len(prompt))
    return prompt[:first_question]


def words(prompt: Content) -> str:
    """Return a prompt's roles and words, normalized: single spaces, case folded, NFKC."""
    turns = " ".join([f"{turn['role']} {turn.get('content') or ''}" for turn in as_messages(prompt)])
    same_width = turns if turns.isascii() else unicodedata.normalize("NFKC", turns)
    return " ".join(same_width.casefold().split())


def prompt_key(prompt: Content, extra: Mapping[str, Any] | None = None) -> str:
    """Return a hash of a prompt's messages and of the tools in the row's extra keys, equal for equal prompts."""
    tools = (extra or {}).get(TOOLS)
    turns = [*as_messages(prompt), {TOOLS: tools}] if tools else as_messages(prompt)
    return f"{fingerprint(json.dumps(turns, sort_keys=True)):016x}"


@dataclass
class UniqueIds:
    """Gives repeated ids a number, such as `7#2`, in the order of the rows."""

    seen: set[int] = field(default_factory=set)  # fingerprints of ids
    last: dict[int, int] = field(default_factory=dict)  # fingerprint of a repeated id → its last number
    first: str = ""  # the first repeated id and its place
    count: int = 0  # rows with a new id

    def __call__(self, identifier: str, where: Where) -> str:
        """Return the id of a row: its own, or a new one if an earlier row has it."""
        if add_new(self.seen, identifier):
            return identifier
        key = fingerprint(identifier)
        number = self.last.get(key, 1) + 1
        while not add_new(self.seen, f"{identifier}#{number}"):
            number += 1
        self.last[key] = number
        self.count += 1
        self.first = self.first or f"'{identifier:.80}' at {where}"
        return f"{identifier}#{number}"

    def tell(self) -> None:
        """Warn if ids were repeated."""
        if self.count:
            console.warn(f"rows that repeat the id of an earlier row get a number: {self.count:,}, first {self.first}")


def unique(examples: Iterable[tuple[Where, Example]], announce: bool = True) -> Iterator[Example]:
    """Yield the examples with unique ids. Raises DataError if a sample of irlhf occurs twice."""
    ids = UniqueIds()
    for where, example in examples:
        identifier = ids(example.id, where)
        if identifier != example.id and example.policy:
            raise DataError(f"{where}: the sample '{example.id:.80}' occurs twice; remove the second one")
        yield example if identifier == example.id else replace(example, id=identifier)
    if announce:
        ids.tell()


def value_at(fields: object, path: str) -> Any:
    """Return the value at a path: a name, or names and list positions with dots between. Raises KeyError.

    A name may contain dots itself; the longest name that exists is used.
    """
    if isinstance(fields, Mapping):
        if path in fields:
            return fields[path]
        for i in range(len(path) - 1, 0, -1):
            if path[i] == "." and path[:i] in fields:
                try:
                    return value_at(fields[path[:i]], path[i + 1 :])
                except KeyError:
                    continue
    elif isinstance(fields, list):
        position, _, rest = path.partition(".")
        if position.isdecimal() and int(position[:9]) < len(fields):
            item = fields[int(position[:9])]
            return value_at(item, rest) if rest else item
    raise KeyError(path)


def finite(value: object) -> bool:
    """Return whether a value is a valid reward: a number of at most LARGEST in size, not a bool, NaN or infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def keys_of(row: Mapping[str, Any]) -> str:
    """Return the keys of a row for an error message: up to 40 keys of up to 60 characters."""
    return ", ".join(f"{name:.60}" for name in islice(row, 40)) or "none"


def dumps(row: Mapping[str, Any]) -> bytes:
    """Return one JSONL line with its newline. Lone surrogates, as in some file names, become question marks.

    Raises ValueError if a number is NaN or infinite.
    """
    try:
        line = orjson.dumps(row, option=_AS_LINE)
    except TypeError:  # a lone surrogate, an integer of over 64 bits, or a numeric key
        return _dumps_slowly(row)
    # orjson writes NaN and infinity as null; Python's encoder raises.
    return _dumps_slowly(row) if b"null" in line else line


def _dumps_slowly(row: Mapping[str, Any]) -> bytes:
    return _WIDER.encode(row).encode(errors="replace") + b"\n"


def _identifier(value: object, where: Where | str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: 'id' is {'empty' if value == '' else _kind(value)}, not text")
    return value


def _check_numbers(given: Mapping[str, Any], where: Where | str) -> None:
    for name in _NUMBERS:
        if name in given:
            _check_object(given[name], where, name)
    for name in _COUNTS + _MEASURES:
        if name in given and not (isinstance(given[name], int) if name in _COUNTS else finite(given[name])):
            raise DataError(f"{where}: '{name}' is {given[name]!r:.40}, which is not a valid number here")


def _check_object(value: object, where: Where | str, name: str) -> None:
    if not isinstance(value, dict):
        raise DataError(f"{where}: '{name}' is {_kind(value)}, not an object of numbers")
    for key, number in value.items():
        if not finite(number):
            raise DataError(
                f"{where}: {name}.{key:.40} is {number!r:.40}, not a finite number up to {LARGEST:g} in size"
            )


def _check_texts(value: object, where: Where | str) -> None:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise DataError(f"{where}: 'target' is not an object with text values")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
