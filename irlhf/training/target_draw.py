"""Draw the targets of training prompts, and pair the completions of a prompt for comparison under their targets.

target a: completion a preferred to b        target b: completion b preferred to a
"""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from irlhf.core.errors import DataError
from irlhf.core.example import Example
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


_PAIRINGS = 3  # candidate pairings per prompt; the one whose targets differ most is used

Wishes = Mapping[str, RequestedValue]


class Rewarded(NamedTuple):
    """A training row: its example, the token ids of the completion, and the rewards in the units of their scales."""

    example: Example
    completion: list[int]
    actual: Mapping[str, float]


class Preference(NamedTuple):
    """`better` is preferred to `worse` after a prompt with the targets `wishes`."""

    wishes: Wishes
    better: Rewarded
    worse: Rewarded


def paired(rows: Iterable[Rewarded], seed: str) -> Iterator[list[Rewarded]]:
    """Yield pairs of rows of one prompt; the last row of an odd number is yielded alone.

    Three random pairings are drawn per prompt. The one whose targets differ most is used.
    """
    prompts: dict[str, list[Rewarded]] = {}
    for row in rows:
        prompts.setdefault(row.example.cluster, []).append(row)
    for prompt, group in prompts.items():
        rng = random.Random(f"{seed}/{prompt}/pairs")
        orders = [rng.sample(group, len(group)) for _ in range(_PAIRINGS if len(group) > 2 else 1)]
        pairings = [[order[i : i + 2] for i in range(0, len(order), 2)] for order in orders]
        yield from max(pairings, key=_distance)


def pair_random(pair: Sequence[Rewarded], seed: str) -> random.Random:
    """Return the random generator of a pair."""
    return random.Random(f"{seed}/{pair[0].example.id}/contrast")


def shared_names(rows: Sequence[Rewarded]) -> list[str]:
    """Return the names of the rewards that all rows have."""
    return [name for name in rows[0].actual if all(name in row.actual for row in rows)]


def preferences(pair: Sequence[Rewarded], targets: TargetDraw, rng: random.Random) -> Iterator[Preference]:
    """Yield each completion of a pair as preferred under its own target, unless the other satisfies that target."""
    names = targets.names(shared_names(pair), rng)
    for better, worse in (pair, pair[::-1]):
        wishes = targets.wishes(better.actual, names, rng)
        if not targets.holds(wishes, worse.actual):
            yield Preference(wishes, better, worse)


def check_pairs(pairs: int, compared: int, objective: str) -> None:
    """Raise DataError if there are no pairs, or if no pair has different targets (`compared` is 0)."""
    if not pairs:
        raise DataError(f"--objective {objective} needs two completions of one prompt; no prompt has two")
    if not compared:
        raise DataError(f"--objective {objective} needs rows with different targets; all targets are equal")


def _distance(pairing: Iterable[Sequence[Rewarded]]) -> float:
    """Return the sum over the pairs, and over the rewards that both rows have, of the absolute differences."""
    both = [(pair[0].actual, pair[1].actual) for pair in pairing if len(pair) == 2]
    return sum(sum(abs(first[name] - second[name]) for name in first if name in second) for first, second in both)
