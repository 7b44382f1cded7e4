"""Assign rows to splits by a hash of the beginning of the conversation, so that conversations are not divided."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from irlhf.core import console
from irlhf.core.example import TEST, TRAIN, VALIDATION, Content, Example, beginning, words
from irlhf.core.hashing import fingerprint

_HASH_RANGE = 2**64
_ENOUGH = 100  # expected rows of a split below which its share is not checked
_FAR = 2  # factor between actual and expected rows that triggers a warning


@dataclass
class Splits:
    """Assigns and counts splits. Shares are in [0, 1]; the rest is the training split."""

    test: float
    validation: float
    counts: Counter[str] = field(default_factory=Counter)  # of rows without a split of their own
    given: dict[int, str] = field(default_factory=dict)  # fingerprint of a prompt's beginning → a split of the data
    leaks: Counter[str] = field(default_factory=Counter)  # rows by split whose prompt has another split as well
    _last: tuple[Content | None, str] = (
        None,
        "",
    )  # the last prompt and its split; completions of a prompt are adjacent

    def of(self, example: Example) -> str:
        """Return the split of a row: its own, else the split of its prompt."""
        if example.split:
            self.take_given(fingerprint(words(beginning(example.prompt))), example.split)
            return example.split
        if example.prompt is not self._last[0]:
            self._last = example.prompt, self._hashed(example.prompt)
        split = self._last[1]
        self.counts[split] += 1
        return split

    def take_given(self, prompt: int, split: str) -> None:
        """Count a row whose data gives its split, and whether its prompt has another split elsewhere."""
        if self.given.setdefault(prompt, split) != split:
            self.leaks[split] += 1

    def tell(self) -> None:
        """Warn if the share of a split is far from the requested one, or if a prompt is in two splits of the data."""
        if self.leaks:
            leaking = ", ".join(f"{count:,} {name} rows" for name, count in sorted(self.leaks.items()))
            console.warn(
                f"the data gives splits that share prompts: {leaking} have a prompt of another split; to split by"
                " prompt, rename the column: --map given_split=split"
            )
        rows = self.counts.total()
        for split, share in ((TEST, self.test), (VALIDATION, self.validation)):
            actual, requested = self.counts[split], share * rows
            if requested >= _ENOUGH and not requested / _FAR <= actual <= requested * _FAR:
                console.warn(
                    f"the {split} split has {actual:,} of {rows:,} rows instead of {share:.0%}, because conversations"
                    " with the same first turn stay together; to change it, add a column named split"
                )

    def _hashed(self, prompt: Content) -> str:
        point = int.from_bytes(hashlib.sha256(words(beginning(prompt)).encode()).digest()[:8]) / _HASH_RANGE
        if point < self.test:
            return TEST
        return VALIDATION if point < self.test + self.validation else TRAIN
