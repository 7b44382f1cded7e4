"""Anthropic's helpful and harmless pairs: two transcripts, `chosen` and `rejected`.

A transcript is split at its last "\\n\\nAssistant:"; what follows is the completion, blank lines and all.
An empty completion cannot be trained on and is set aside. Where the two prompts of a pair differ, each
completion keeps its own prompt and its own group, so that no comparison crosses them.
"""

from collections.abc import Iterator
from typing import Any

from irlhf.core.example import Example, from_json
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import DIFFER, EQUAL, NOTED, identifier, kept
from irlhf.data.formats.transcript import divide, is_transcript, messages

FIELDS = '"chosen" and "rejected" transcripts of \\n\\nHuman: and \\n\\nAssistant:'
BECOMES = "two rows a pair, labelled, split at the last answer"

_SIDES = {"chosen": "a", "rejected": "b"}


def matches(row: dict[str, Any]) -> bool:
    """Return whether both sides are transcripts."""
    return all(is_transcript(row.get(side)) for side in _SIDES)


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the chosen and the rejected completion."""
    pair = {side: divide(row, side) for side in _SIDES}
    same_prompt = pair["chosen"][0] == pair["rejected"][0]
    equal = same_prompt and pair["chosen"][1].strip() == pair["rejected"][1].strip()
    chosen = messages(pair["chosen"][0])
    turns = {"chosen": chosen, "rejected": chosen if same_prompt else messages(pair["rejected"][0])}
    noted = [EQUAL] if equal else [] if same_prompt else [DIFFER]
    rest = kept(row, _SIDES)
    shared = {"source": source, **rest, **({NOTED: noted} if noted else {})}
    number = identifier(row, source)
    for side, letter in _SIDES.items():
        completion = pair[side][1]
        name = f"{number}{letter}"
        if not completion.strip():
            yield Rejected(f"the {side} completion is empty", row.fields)
            continue
        known = {
            "id": name,
            "prompt": turns[side],
            "completion": completion.strip(),
            "group": f"{number}" if same_prompt else name,
            "label": side,
        }
        yield from_json({**shared, **known}, row.where)
