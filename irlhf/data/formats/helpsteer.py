"""HelpSteer and HelpSteer2: replies that people rated from 0 to 4 on five attributes."""

import re
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Content, Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, columns, number, text

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
FIELDS = '"prompt", "response", ' + ", ".join(f'"{name}"' for name in ATTRIBUTES)
BECOMES = "one row a reply, the five numbers kept; of lists of ratings the mean, and the list as NAME_each"

_TURN = re.compile(r"(?<!\s)\s*<extra_id_1>(User|Assistant)\n")
_ROLES = {"User": "user", "Assistant": "assistant"}


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds a reply and its ratings."""
    return {"prompt", "response", *ATTRIBUTES} <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the reply with its ratings."""
    own: dict[str, Any] = {}
    for name in ATTRIBUTES:
        own |= _rating(row, name)
    side = Candidate(turns(text(row, "prompt")), text(row, "response"), own=own)
    yield from answers(row, source, [side], {"prompt", "response", *ATTRIBUTES})


def turns(prompt: str) -> Content:
    """Return a prompt of several turns, which HelpSteer2 parts by <extra_id_1>, as messages."""
    first, *parts = _TURN.split(prompt)
    if not parts:
        return prompt
    later = zip(parts[::2], parts[1::2], strict=True)
    messages = [{"role": _ROLES[speaker], "content": words} for speaker, words in later]
    return [{"role": "user", "content": first}, *messages]


def _rating(row: Row, name: str) -> dict[str, Any]:
    value = row.fields.get(name)
    if isinstance(value, list):
        each = [rating for rating in map(number, value) if rating is not None]
        return {name: fmean(each), f"{name}_each": value} if each else {f"{name}_each": value}
    if number(value) is None and value is not None:
        raise DataError(f"{row.where}: '{name}' is no rating (columns: {columns(row)})")
    return {name: value}
