"""Draw what a training prompt requests, and whether a completion has what a prompt requests."""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from irlhf.policy.templates import Bound, Kind, RequestedValue, Template


@dataclass(frozen=True)
class TargetDraw:
    """Draws the targets of training prompts. All rewards are in the units of their scales.

    `known` are the rewards of the training rows by name, in order, from which thresholds are drawn; `drop` is the
    probability that a reward line is left out, `drop_all` that all lines of a row are.
    """

    template: Template
    known: Mapping[str, Sequence[float]]
    drop: float
    drop_all: float

    def names(self, names: Iterable[str], rng: random.Random) -> list[str]:
        """Return the rewards that a prompt requests: some are left out at random."""
        kept = [name for name in names if rng.random() >= self.drop]
        return [] if self.drop_all and rng.random() < self.drop_all else kept

    def wishes(
        self, actual: Mapping[str, float], names: Iterable[str], rng: random.Random
    ) -> dict[str, RequestedValue]:
        """Return what a prompt requests of a row: its actual rewards, or thresholds that they keep."""
        kinds = [kind for kind in self.template.kinds if kind != "line"]
        values: dict[str, RequestedValue] = {}
        for name in names:
            values[name] = actual[name]
            if kinds and rng.random() < self.template.bounded:
                values[name] = _threshold(rng.choice(kinds), actual[name], self.known[name], rng)
        return values

    def holds(self, wishes: Mapping[str, RequestedValue], actual: Mapping[str, float]) -> bool:
        """Return whether these rewards are all that a prompt requests, exactly or as it is spelled."""
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
    """Return a threshold that a row with this actual reward keeps: a training row's, not above it (or not below)."""
    if kind == "at_least":
        return Bound("at_least", known[rng.randrange(bisect_right(known, actual) or 1)])
    first = min(bisect_left(known, actual), len(known) - 1)
    return Bound("at_most", known[rng.randrange(first, len(known))])
