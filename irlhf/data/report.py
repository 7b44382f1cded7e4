"""What there is to say of the data once all of it is read: how it was taken, what was done to it, what stands in it."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.example import Example, Where, as_messages
from irlhf.core.hashing import add_new
from irlhf.data.cleaning import special_text
from irlhf.data.features import Columns
from irlhf.data.formats.base import Format
from irlhf.data.formats.helpers import NOTED

SPECIAL = "special tokens"  # the count of rows that hold text like one


@dataclass
class PrepareReport:
    """Counts of what examples hold, and of those that stand twice."""

    formats: dict[str, Format] = field(default_factory=dict)  # of each source
    read: int = 0  # raw rows, readable or not
    counts: Counter[str] = field(default_factory=Counter)
    shapes: dict[str, str] = field(default_factory=dict)  # of each source whose name does not say it
    first: str = ""  # place and text of what is like a special token
    seen: set[int] = field(default_factory=set)  # fingerprints of prompts with their completions
    ids: set[int] = field(default_factory=set)  # fingerprints
    columns: Columns | None = None  # where each is to have one type

    def say(self, path: Path, shape: str) -> None:
        """Keep how a file was read."""
        self.shapes[str(path)] = shape

    def is_again(self, example: Example) -> bool:
        """Return whether an earlier example had this very prompt and completion."""
        contents = [as_messages(example.prompt), as_messages(example.completion, "assistant")]
        return not add_new(self.seen, json.dumps(contents, sort_keys=True))

    def look(self, where: Where, example: Example) -> None:
        """Count what an example holds."""
        noted = example.extra.get(NOTED, ())
        for note in noted if isinstance(noted, list) else ():
            self.counts[f"{NOTED} {' '.join(str(note).split()):.80}"] += 1
        special = special_text(example)
        if special:
            self.counts[SPECIAL] += 1
            self.first = self.first or f"'{special}' at {where}"

    def to_json(self) -> dict[str, Any]:
        """Return what `add` takes, as JSON."""
        return {"read": self.read, "counts": self.counts, "first": self.first}

    def add(self, summary: Mapping[str, Any]) -> None:
        """Add what was found in rows behind these."""
        self.read += summary["read"]
        self.counts.update(summary["counts"])
        self.first = self.first or summary["first"]

    def tell(self) -> None:
        """Say it, a line each."""
        for source, shape in self.shapes.items():
            console.note(f"{source}: read {shape}")
        for source, known in self.formats.items():
            console.note(f"{source}: read as {known.reason}")
        for name, count in sorted(self.counts.items()):
            if name == SPECIAL:
                console.warn(f"{count:,} rows hold text that a tokenizer may read as a command, first {self.first}")
            else:
                console.note(f"{name}: {count:,} rows")
