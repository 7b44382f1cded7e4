"""Pair the completions of each prompt, and draw under which target which of a pair is preferred.

target a: completion a preferred to b        target b: completion b preferred to a
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from irlhf.core.errors import DataError
from irlhf.core.example import Example
from irlhf.policy.templates import RequestedValue
from irlhf.training.target_draw import TargetDraw

_PAIRINGS = 3  # of a prompt's completions, of which that with the most different targets is taken

Wishes = Mapping[str, RequestedValue]


class Rewarded(NamedTuple):
    """A training row: its completion's token ids, and its rewards in the units of their scales."""

    example: Example
    completion: list[int]
    actual: Mapping[str, float]


class Preference(NamedTuple):
    """`better` is preferred to `worse` behind a prompt that requests `wishes`."""

    wishes: Wishes
    better: Rewarded
    worse: Rewarded


def paired(rows: Iterable[Rewarded], seed: str) -> Iterator[list[Rewarded]]:
    """Yield the rows in pairs of one prompt, and alone where one is left over.

    Of several pairings the one whose targets differ most is taken.
    """
    prompts: dict[str, list[Rewarded]] = {}
    for row in rows:
        prompts.setdefault(row.example.cluster, []).append(row)
    for prompt, group in prompts.items():
        rng = random.Random(f"{seed}/{prompt}/pairs")
        orders = [rng.sample(group, len(group)) for _ in range(_PAIRINGS if len(group) > 2 else 1)]
        pairings = [[order[i : i + 2] for i in range(0, len(order), 2)] for order in orders]
        yield from max(pairings, key=lambda pairs: sum(_distance(*pair) for pair in pairs if len(pair) == 2))


def pair_random(pair: Sequence[Rewarded], seed: str) -> random.Random:
    """Return the source of randomness of what is drawn for one pair."""
    return random.Random(f"{seed}/{pair[0].example.id}/contrast")


def shared_names(rows: Sequence[Rewarded]) -> list[str]:
    """Return the rewards that all of these rows have."""
    return [name for name in rows[0].actual if all(name in row.actual for row in rows)]


def preferences(pair: Sequence[Rewarded], targets: TargetDraw, rng: random.Random) -> Iterator[Preference]:
    """Yield each completion of a pair as preferred under its own target, unless the other has that target too."""
    names = targets.names(shared_names(pair), rng)
    for better, worse in (pair, pair[::-1]):
        wishes = targets.wishes(better.actual, names, rng)
        if not targets.holds(wishes, worse.actual):
            yield Preference(wishes, better, worse)


def check_pairs(pairs: int, compared: int, objective: str) -> None:
    """Raise DataError where no completions can be compared, given the pairs and how many of them are compared."""
    if not pairs:
        raise DataError(f"--objective {objective} needs two completions of one prompt, and no prompt has two")
    if not compared:
        raise DataError(f"--objective {objective} needs rows with different targets, and all rows have the same")


def _distance(first: Rewarded, second: Rewarded) -> float:
    return sum(abs(first.actual[name] - second.actual[name]) for name in first.actual if name in second.actual)
