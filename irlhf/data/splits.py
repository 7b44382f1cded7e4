"""Which split a row falls into: a hash of how its conversation begins, so that no conversation is parted."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from irlhf.core import console
from irlhf.core.example import TEST, TRAIN, VALIDATION, Content, Example, beginning, words

_HASH_RANGE = 2**64
_ENOUGH = 100  # rows that a split is to have, before its share says anything
_FAR = 2  # times as many, or as few, as were asked for


@dataclass
class Splits:
    """Gives rows their splits and counts them. Shares are in [0, 1]; what is left is the training split."""

    test: float
    validation: float
    counts: Counter[str] = field(default_factory=Counter)  # of rows that did not bring a split
    _last: tuple[Content | None, str] = (None, "")  # a prompt and its split: the completions of one stand side by side

    def of(self, example: Example) -> str:
        """Return the split that a row brings, else the one that its prompt falls into."""
        if example.split:
            return example.split
        if example.prompt is not self._last[0]:
            self._last = example.prompt, self._drawn(example.prompt)
        split = self._last[1]
        self.counts[split] += 1
        return split

    def tell(self) -> None:
        """Warn where a share is far from what was asked for."""
        rows = self.counts.total()
        for split, share in ((TEST, self.test), (VALIDATION, self.validation)):
            there, requested = self.counts[split], share * rows
            if requested >= _ENOUGH and not requested / _FAR <= there <= requested * _FAR:
                console.warn(
                    f"the {split} split holds {there:,} of {rows:,} rows, {share:.0%} was asked for: conversations that"
                    " begin with the same turn are not parted; a column called split decides otherwise"
                )

    def _drawn(self, prompt: Content) -> str:
        point = int.from_bytes(hashlib.sha256(words(beginning(prompt)).encode()).digest()[:8]) / _HASH_RANGE
        if point < self.test:
            return TEST
        return VALIDATION if point < self.test + self.validation else TRAIN
