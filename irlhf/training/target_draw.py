"""Draw the targets of training prompts, and check whether a completion satisfies a target."""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from irlhf.policy.templates import Bound, Kind, RequestedValue, Template


@dataclass(frozen=True)
class TargetDraw:
    """Draws the targets of training prompts. All rewards are in the units of their scales.

    `known` holds the sorted rewards of the training rows by name; thresholds are drawn from it. `drop` is the
    probability of omitting a reward line, `drop_all` the probability of omitting all lines of a row.
    """

    template: Template
    known: Mapping[str, Sequence[float]]
    drop: float
    drop_all: float

    def names(self, names: Iterable[str], rng: random.Random) -> list[str]:
        """Return the names of the rewards to request; names are dropped at random."""
        kept = [name for name in names if rng.random() >= self.drop]
        return [] if self.drop_all and rng.random() < self.drop_all else kept

    def wishes(
        self, actual: Mapping[str, float], names: Iterable[str], rng: random.Random
    ) -> dict[str, RequestedValue]:
        """Return the targets of a row by name: its actual rewards, or thresholds that they satisfy."""
        kinds = [kind for kind in self.template.kinds if kind != "line"]
        values: dict[str, RequestedValue] = {}
        for name in names:
            values[name] = actual[name]
            if kinds and rng.random() < self.template.bounded:
                values[name] = _threshold(rng.choice(kinds), actual[name], self.known[name], rng)
        return values

    def holds(self, wishes: Mapping[str, RequestedValue], actual: Mapping[str, float]) -> bool:
        """Return whether the actual rewards satisfy every target, exactly or after rounding to the spelling."""
        spelling = self.template.spelling
        for name, wish in wishes.items():
            if not isinstance(wish, Bound):
                kept = spelling(wish) == spelling(actual[name])
            elif wish.kind == "at_least":
                kept = actual[name] >= min(wish.number, spelling.centre(wish.number))
            else:
                kept = actual[name] <= max(wish.number, spelling.centre(wish.number))
            if not kept:
                return False
        return True


def _threshold(kind: Kind, actual: float, known: Sequence[float], rng: random.Random) -> Bound:
    """Return a threshold that `actual` satisfies, drawn from the rewards of the training rows."""
    if kind == "at_least":
        return Bound("at_least", known[rng.randrange(bisect_right(known, actual) or 1)])
    first = min(bisect_left(known, actual), len(known) - 1)
    return Bound("at_most", known[rng.randrange(first, len(known))])
