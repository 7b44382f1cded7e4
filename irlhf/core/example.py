"""The one record that grows along the line: example, scored example, sample.

    prepare   id prompt completion group label split source
    score     + rewards (or gold)
    sample    + target asked finish tokens entropy logprob (reference k3) policy seed decoding
              of a server entropy_low entropy_high (censored) in place of entropy
    score --keep   + kept candidates spent

A sample is a legal example, so it may go back through `score` and into the next `finetune`.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from irlhf.core.errors import DataError
from irlhf.core.hashing import add_new

Message = dict[str, Any]  # {"role": "user", "content": "…"}, and whatever else a vendor puts there
Content = str | list[Message]

ROLES = ("system", "developer", "user", "assistant", "tool")
CHOSEN, REJECTED = "chosen", "rejected"  # labels of the sides of a preference
PAIR = "pair"  # the key of rows by which several pairs of one prompt are told apart
TRAIN, VALIDATION, TEST = "train", "validation", "test"
STOP, LENGTH = "stop", "length"  # how a completion ended: by the model itself, or by the most tokens it may have
LARGEST = 1e100  # size of a reward; sums of squares of larger ones are beyond what a float holds
SPLITS = (TRAIN, VALIDATION, TEST)

_ASKING = ("user", "tool")  # whose turns a completion answers
_FIRST_TURN = re.compile(r"\s*Human:.*?\n\nAssistant:", re.DOTALL)


class Where(NamedTuple):
    """Where a row came from, as a user would look it up."""

    path: str
    line: int  # 1-based; the row, where a file is not a row a line

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(slots=True, kw_only=True)  # nobody changes one; not frozen, which takes half of the time to make a row
class Example:
    """One prompt with one completion, and all that is known about the pair.

    `rewards` and `gold` are raw numbers on their scorers' own scales. `prompt_numbers` (the key `asked` of
    a row) are in the units of the policy's scale, as is `wanted`. `entropy` is the mean over tokens in nats, `logprob`
    the sum over tokens, both at temperature 1, after any guidance and before any truncation; `entropy_low` and
    `entropy_high` are what it lies between, where only the likeliest tokens are known. `reference` is the logprob of
    the same tokens under another model, whose prompt asks for nothing, and `k3` a second estimate of the KL from it
    (irlhf/core/entropy_bounds.py). `kept` says how this one was chosen among `candidates` samples, which took `spent`
    tokens to draw. `extra` holds the keys that irlhf does not know.
    """

    id: str
    prompt: Content
    completion: Content = ""
    group: str = ""  # the prompt's own id, shared by all its completions
    label: str = ""
    split: str = ""
    source: str = ""
    rewards: Mapping[str, float] = field(default_factory=dict)
    gold: Mapping[str, float] = field(default_factory=dict)
    target: Mapping[str, str] = field(default_factory=dict)  # as the user wrote it
    prompt_numbers: Mapping[str, float] = field(default_factory=dict)  # as the prompt spelled it
    wanted: Mapping[str, float] = field(default_factory=dict)  # where the prompt asks for another number to get it
    finish: str = ""  # STOP or LENGTH
    tokens: int | None = None
    entropy: float | None = None
    entropy_low: float | None = None
    entropy_high: float | None = None
    logprob: float | None = None
    censored: int | None = None  # tokens whose logprob a server did not give; where there are any, no logprob is
    reference: float | None = None
    k3: float | None = None
    policy: str = ""
    seed: int | None = None
    decoding: Mapping[str, float] = field(default_factory=dict)  # how the tokens were drawn
    kept: str = ""  # "best" or "nearest"
    candidates: int | None = None
    spent: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """The prompt that this row belongs to, for splitting and for intervals."""
        return self.group or self.id

    @property
    def wishes(self) -> dict[str, float]:
        """What the user wants, whatever the prompt asks for to get it."""
        return {**self.prompt_numbers, **self.wanted}

    def to_json(self, split: str = "") -> dict[str, Any]:
        """Return the row as it stands in a file: what is empty is left out. A `split` stands in place of its own."""
        values = list(_optional_of(self))
        if split:
            values[_SPLIT] = split
        given = {name: value for name, value in zip(_OPTIONAL, values, strict=True) if value or value == 0}
        return {"id": self.id, "prompt": self.prompt, "completion": self.completion, **given, **self.extra}


_ALWAYS = ("id", "prompt", "completion")
_FIELDS = tuple(item.name for item in fields(Example) if item.name not in (*_ALWAYS, "extra"))
_OPTIONAL = tuple("asked" if name == "prompt_numbers" else name for name in _FIELDS)  # as files call them
_SPLIT = _OPTIONAL.index("split")
_KNOWN = frozenset((*_ALWAYS, *_OPTIONAL))
_optional_of = attrgetter(*_FIELDS)
_TEXTS = ("group", "label", "split", "source", "finish", "policy", "kept")
_NUMBERS = ("rewards", "gold", "asked", "wanted", "decoding")
_COUNTS = ("tokens", "seed", "censored", "candidates", "spent")
_MEASURES = ("entropy", "entropy_low", "entropy_high", "logprob", "reference", "k3")
_TEXTS_ALONE = frozenset((*_ALWAYS, *_TEXTS))  # what most rows hold: nothing to check number by number
_NARROW = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_AS_LINE = _NARROW | orjson.OPT_APPEND_NEWLINE
# Rows were JSON before, so nothing in them holds itself.
_WIDER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


def from_json(row: Mapping[str, Any], where: Where | str, completion: bool = True) -> Example:
    """Check one row and return it. Raises DataError that names the place and the key.

    With `completion` False the row need only hold a prompt.
    """
    known = _KNOWN.issuperset(row)
    if known and None not in row.values():
        given = dict(row)
    else:
        given = {name: value for name, value in row.items() if name in _KNOWN and value is not None}
    if "id" not in given:
        raise DataError(f"{where}: no 'id' (keys: {keys_of(row)}); `irlhf prepare` gives every row one")
    for name in ("prompt", "completion") if completion else ("prompt",):
        if name not in given:
            raise DataError(f"{where}: no '{name}' (keys: {keys_of(row)})")
    given["id"] = _identifier(given["id"], where)
    given["prompt"] = content(given["prompt"], where, "prompt")
    given["completion"] = content(given.get("completion", ""), where, "completion")
    for name in _TEXTS:
        if name in given and not isinstance(given[name], str):
            raise DataError(f"{where}: '{name}' is {_kind(given[name])}, not text")
    if not _TEXTS_ALONE.issuperset(given):
        _check_numbers(given, where)
    if given.get("split") and given["split"] not in SPLITS:
        raise DataError(f"{where}: split '{given['split']:.40}' is none of {', '.join(SPLITS)}")
    if "target" in given:
        _check_texts(given["target"], where)
    if not known:
        given["extra"] = {name: value for name, value in row.items() if name not in _KNOWN}
    if "asked" in given:
        given["prompt_numbers"] = given.pop("asked")
    return Example(**given)


def content(value: object, where: Where | str, name: str) -> Content:
    """Check a prompt or a completion: text, or messages with a role and a content each."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: '{name}' is {_kind(value)}, neither text nor messages")
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise DataError(f"{where}: message {number} of '{name}' has no role of {', '.join(ROLES)}")
        body = message.get("content")
        if isinstance(body, str):
            continue
        if body is not None or message["role"] != "assistant" or not message.get("tool_calls"):
            raise DataError(f"{where}: message {number} of '{name}' has no text as content")
    return value


def as_messages(prompt: Content, role: str = "user") -> list[Message]:
    """Return a prompt (or, with role assistant, a completion) as messages."""
    return [{"role": role, "content": prompt}] if isinstance(prompt, str) else prompt


def as_text(value: Content) -> str:
    """Return the bare text of a prompt or a completion, messages parted by blank lines."""
    if isinstance(value, str):
        return value
    return "\n\n".join(message.get("content") or "" for message in value)


def beginning(prompt: Content) -> Content:
    """Return how a conversation begins: its turns up to the first that asks something.

    It is the same for all prompts that continue one conversation, and the whole of a prompt of one turn. Of a text it
    is the first turn where it is written as Anthropic's transcripts are.
    """
    if isinstance(prompt, str):
        transcript = _FIRST_TURN.match(prompt)
        return transcript[0] if transcript else prompt
    first_question = next((number for number, turn in enumerate(prompt, 1) if turn["role"] in _ASKING), len(prompt))
    return prompt[:first_question]


def words(prompt: Content) -> str:
    """Return a prompt's words and who says them; spacing, case and width of letters do not matter."""
    spoken = " ".join([f"{turn['role']} {turn.get('content') or ''}" for turn in as_messages(prompt)])
    same_width = spoken if spoken.isascii() else unicodedata.normalize("NFKC", spoken)
    return " ".join(same_width.casefold().split())


def unique(examples: Iterable[tuple[Where, Example]], seen: set[int] | None = None) -> Iterator[Example]:
    """Pass the examples on. Raises DataError where an id stands a second time; `seen` are fingerprints of ids."""
    seen = set() if seen is None else seen
    for where, example in examples:
        check_new(example.id, where, seen)
        yield example


def check_new(identifier: str, where: Where, seen: set[int]) -> None:
    """Add an id to those seen. Raises DataError where it is among them."""
    if not add_new(seen, identifier):
        raise DataError(f"{where}: id '{identifier:.80}' stands twice; ids must differ")


def finite(value: object) -> bool:
    """Return whether this is a number that can be a reward: no bool, NaN, infinity or one whose square is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def keys_of(row: Mapping[str, Any]) -> str:
    """Return a row's keys for an error message: the first of them, and the beginning of each."""
    return ", ".join(f"{name:.60}" for name in islice(row, 40)) or "none"


def dumps(row: Mapping[str, Any]) -> bytes:
    """Return one JSONL line, newline included. Half characters, as in odd file names, become question marks.

    Raises ValueError where a number is NaN or infinity.
    """
    try:
        line = orjson.dumps(row, option=_AS_LINE)
    except TypeError:  # half a character, a whole number of over 64 bits, a key that is a number
        return _dumps_slowly(row)
    # orjson writes null for what is no number, where Python refuses.
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
            raise DataError(f"{where}: '{name}' is {given[name]!r:.40}, not a number that it can be")


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
        raise DataError(f"{where}: 'target' is not an object of texts")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
