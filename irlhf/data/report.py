"""Counts of a data preparation: formats, repairs, duplicates and special tokens."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.example import Example, UniqueIds, Where, as_messages, prompt_key
from irlhf.core.hashing import add_new
from irlhf.data.cleaning import LOOKS_LIKE_TRANSCRIPT, SYSTEM, special_text
from irlhf.data.formats.base import Format
from irlhf.data.formats.helpers import NOTED
from irlhf.data.raw_rows import UNPARSED
from irlhf.io.column_types import ColumnTypes

SPECIAL = "special tokens"  # count of rows with text like a special token
_GIVEN = "given_"
# Columns that a reader of the data would expect in the prompt, if no format put them there.
_EXPECTED = frozenset(
    {*SYSTEM, "context", "contexts", "document", "documents", "passage", "history", "input", "instruction"}
    | {"instructions", "background", "persona", "functions"}
)
_WARNED = ("column '", UNPARSED, LOOKS_LIKE_TRANSCRIPT)  # beginnings of counts that are warnings


@dataclass
class PrepareReport:
    """Counts of a run, and fingerprints of examples to find duplicates."""

    formats: dict[str, Format] = field(default_factory=dict)  # by source
    read: int = 0  # raw rows, readable or not
    counts: Counter[str] = field(default_factory=Counter)
    shapes: dict[str, str] = field(default_factory=dict)  # how each source was read, if its name does not tell
    first: str = ""  # location and text of the first special token
    seen: set[int] = field(default_factory=set)  # fingerprints of prompt and completion
    ids: UniqueIds = field(default_factory=UniqueIds)
    columns: ColumnTypes | None = None  # column types, for data sets with a data card

    def say(self, path: Path, shape: str) -> None:
        """Record how a file was read."""
        self.shapes[str(path)] = shape

    def is_again(self, example: Example) -> bool:
        """Return whether an earlier example had the same prompt and completion."""
        contents = [prompt_key(example.prompt, example.extra), as_messages(example.completion, "assistant")]
        return not add_new(self.seen, json.dumps(contents, sort_keys=True))

    def look(self, where: Where, example: Example) -> None:
        """Count the repairs and special tokens of an example."""
        noted = example.extra.get(NOTED, ())
        for note in noted if isinstance(noted, list) else ():
            self.counts[f"{NOTED} {' '.join(str(note).split()):.80}"] += 1
        for name, value in example.extra.items():
            if name in _EXPECTED and value:
                self.counts[f"column '{name}' is not in the prompt"] += 1
            elif name.startswith(_GIVEN):
                self.counts[f"column '{name.removeprefix(_GIVEN):.40}' kept as {name:.46}{_reason(name)}"] += 1
        special = special_text(example)
        if special:
            self.counts[SPECIAL] += 1
            self.first = self.first or f"'{special}' at {where}"

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON, for `add`."""
        return {"read": self.read, "counts": self.counts, "first": self.first}

    def add(self, summary: Mapping[str, Any]) -> None:
        """Add the counts of later rows."""
        self.read += summary["read"]
        self.counts.update(summary["counts"])
        self.first = self.first or summary["first"]

    def tell(self) -> None:
        """Print the counts, one per line."""
        for source, shape in self.shapes.items():
            console.note(f"{source}: read {shape}")
        for source, known in self.formats.items():
            console.note(f"{source}: read as {known.reason}")
        for name, count in sorted(self.counts.items()):
            if name == SPECIAL:
                console.warn(f"{count:,} rows contain text that looks like a special token, first {self.first}")
            elif name.removeprefix(f"{NOTED} ").startswith(_WARNED):
                console.warn(f"{name}: {count:,} rows")
            else:
                console.note(f"{name}: {count:,} rows")
        self.ids.tell()


def _reason(name: str) -> str:
    if name == f"{_GIVEN}label":
        return ", because only chosen, rejected, true, false, 1 and 0 are labels"
    if name == f"{_GIVEN}group":
        return ", because equal prompts form a group; --map group=group keeps it"
    return ", because irlhf has a key of this name"
