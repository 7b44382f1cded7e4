"""From what a user asks for to the numbers, or thresholds, that each sample's prompt spells."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import NamedTuple

from irlhf.core.errors import ConfigError
from irlhf.policy.policy_file import Achieved, Policy, Reach
from irlhf.policy.scales import UNIT, WITHIN, percentile
from irlhf.policy.targets import Target, parse_targets, weight_text
from irlhf.policy.templates import Bound, RequestedValue

BEST, FRONT, ACHIEVED = "best", "front", "achieved"
PICKS = (BEST, FRONT, ACHIEVED)  # how a mix finds its targets

_NO_RESERVOIR = "the policy kept no joint vectors of its training data (no row has every reward)"
_TRIES = 64  # sets of joint vectors of which the most even is taken
_BEST = 0.02  # share of the training rows, by weighted reward, that a mix draws its vectors from
_FEWEST = 10  # of them, so that one odd row does not stand for the mix
_MOST_LISTED = 5  # numbers that no training row has
_SPAN = (1, 99)  # percentiles that `uniform` lies between where the scale has no ends

Vector = Sequence[float]  # of the policy's reservoir


class RequestedRewards(NamedTuple):
    """What one sample is asked for, in the units of the scales, and the user's own words for it."""

    prompt_values: dict[str, RequestedValue]
    target: dict[str, str]
    wanted: dict[str, float]  # the numbers that another one is asked for, to get them


@dataclass(frozen=True)
class TargetSpec:
    """What a user wants of a policy: targets for some rewards, and weights for a mix of others.

    `pick` says how the mix finds its targets; left open, it is `achieved` where a fitting request was measured and
    `front` elsewhere, the better ones in docs/asking.md. `reach` is what numbers are put through and held to, where it
    was measured. With `raw` they stand in the prompt as they were written, whether the scale knows them or not.
    """

    policy: Policy
    targets: Mapping[str, Target]
    weights: Mapping[str, float] = field(default_factory=dict)
    pick: str = ""
    reach: Mapping[str, Reach] = field(default_factory=dict)
    raw: bool = False

    def size(self, count: int) -> int:
        """Return how many samples of one prompt are asked for."""
        return count * math.prod(map(len, self._fixed.values()))

    def requests(self, count: int, seed: str) -> Iterator[RequestedRewards]:
        """Yield what each sample of one prompt is asked for: every point of every sweep, `count` times each.

        What is drawn from the training data comes from one row for all rewards, so that it is possible together.
        `seed` names the prompt's draw.
        """
        texts = {name: target.text for name, target in self.targets.items()}
        texts |= {name: weight_text(weight) for name, weight in self.weights.items()}
        for number, points in enumerate(product(*self._fixed.values())):
            at = f"{seed}/{number}"
            drawn = self._mixed(count, seed if len(texts) == len(self.weights) else at) if self.weights else None
            drawn = drawn or self._drawn(count, at)
            rng = random.Random(f"{at}/uniform")
            for i in range(count):
                wishes = {**dict(zip(self._fixed, points, strict=True)), **drawn[i], **self._anywhere(rng)}
                prompt_values = {name: self._put(name, wishes[name]) for name in self.policy.names if name in wishes}
                yield RequestedRewards(prompt_values, texts, self._others(wishes, prompt_values))

    def beyond(self) -> Iterator[str]:
        """Yield, for each number that lies too far out to be asked for, why and what is asked for instead."""
        if self.raw:
            return
        for name, number in ((name, number_of(wish)) for name, wishes in self._fixed.items() for wish in wishes):
            text = f"{name}={self.targets[name].text}"
            if self.policy.held(name, number) != number:
                yield f"{text} lies beyond the training data; held to the scale's end"
            elif self._reaches(name) and not _within(number, self.reach[name]):
                put = number_of(self._put(name, number))
                yield f"{text} lies beyond what this policy was measured to reach; asked for {put:.2f}"

    def unseen(self) -> Iterator[str]:
        """Yield, for each reward, the numbers that no training row has, and those that are asked for instead."""
        if self.raw:
            return
        for name, wishes in self._fixed.items():
            numbers = [self.policy.held(name, number_of(wish)) for wish in wishes]
            pairs = [(number, self.policy.shown(name, number)) for number in numbers]
            missing = [f"{number:g} ({shown:.2f})" for number, shown in pairs if shown != number]
            if missing:
                more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
                listed = ", ".join(missing[:_MOST_LISTED])
                yield f"{name}: no training row has {listed}{more}; asked for the nearest, in brackets"

    @cached_property
    def _fixed(self) -> dict[str, list[RequestedValue]]:
        """The rewards that are asked for with wishes of their own, not with what training rows have."""
        fixed = {name: self._wishes(target) for name, target in self.targets.items()}
        return {name: wishes for name, wishes in fixed.items() if wishes}

    def _wishes(self, target: Target) -> list[RequestedValue]:
        if target.kind == "at-least" and "at_least" in self.policy.template.kinds and target.low is not None:
            return [Bound("at_least", target.low)]
        if target.kind == "at-most" and "at_most" in self.policy.template.kinds and target.high is not None:
            return [Bound("at_most", target.high)]
        if target.kind == "percentile" and target.low is not None:
            return [self._percentile(target.name, target.low)]
        return list(target.points()) if target.kind in ("exact", "sweep") else []

    def _percentile(self, name: str, per_cent: float) -> float:
        """Return what so many per cent of the training rows do not exceed, in the units of the scale."""
        if self.policy.reward(name).scale.kind in ("quantile", WITHIN):
            return per_cent / 100
        return percentile(sorted(self.policy.numbers(vector)[name] for vector in self._rows), per_cent)

    def _anywhere(self, rng: random.Random) -> dict[str, RequestedValue]:
        """Draw the rewards that are asked for `uniform`."""
        values: dict[str, RequestedValue] = {}
        for name, target in self.targets.items():
            if target.kind == "uniform":
                unit = self.policy.reward(name).scale.kind in UNIT
                low, high = (0.0, 1.0) if unit else (self._percentile(name, end) for end in _SPAN)
                values[name] = rng.uniform(low, high)
        return values

    @property
    def _rows(self) -> Sequence[Vector]:
        if not self.policy.reservoir:
            raise ConfigError(_NO_RESERVOIR)
        return self.policy.reservoir

    @cached_property
    def _pool(self) -> Sequence[Vector]:
        """The training rows that keep every range that is asked for. Raises ConfigError where none does."""
        ranges = {name: target for name, target in self.targets.items() if target.ranged}
        if not ranges:
            return self._rows
        vectors = [vector for vector in self._rows if self._keeps(self.policy.numbers(vector), ranges)]
        if not vectors:
            ranges_text = " and ".join(f"{name}={target.text}" for name, target in ranges.items())
            together = " together" if len(ranges) > 1 else ""
            raise ConfigError(f"none of {len(self._rows):,} training rows has {ranges_text}{together}; ask for less")
        return vectors

    def _keeps(self, numbers: Mapping[str, float], ranges: Mapping[str, Target]) -> bool:
        return all(target.holds(numbers[name]) for name, target in ranges.items())

    @property
    def _joint(self) -> list[str]:
        """The rewards that are asked for with what training rows have."""
        return [name for name, target in self.targets.items() if name not in self._fixed and target.kind != "uniform"]

    def _drawn(self, count: int, seed: str) -> Sequence[Mapping[str, RequestedValue]]:
        """Draw joint vectors of the pool, spread evenly over each reward's range within it."""
        if not self._joint:
            return [{}] * count
        columns = [self.policy.names.index(name) for name in self._joint]
        drawn = [self.policy.numbers(vector) for vector in _spread(self._pool, columns, count, seed)]
        return [{name: row[name] for name in self._joint} for row in drawn]

    def _mixed(self, count: int, seed: str) -> Sequence[Mapping[str, RequestedValue]]:
        """Return targets for the mix: the rewards of good training rows, or what is known to have worked."""
        if self._asks_again:
            return [self._achieved()] * count
        wanted = [*(name for name, weight in self.weights.items() if weight), *self._joint]
        rows = [self.policy.numbers(vector) for vector in self._best]
        chosen = random.Random(seed).choices(rows, k=count)
        return [{name: row[name] for name in wanted} for row in chosen]

    @cached_property
    def _best(self) -> Sequence[Vector]:
        """The best rows of the pool by weighted reward; they exist, so what is asked is possible together."""

        def weighted(vector: Vector) -> float:
            return self.policy.weighted_vector(vector, self.weights)

        ordered = sorted(self._pool, key=weighted, reverse=True)
        return ordered[: max(_FEWEST, round(_BEST * len(ordered))) if self.pick == BEST else 1]

    @property
    def _asks_again(self) -> bool:
        """Whether the mix is asked for as it was asked for before."""
        return bool(self.weights) and (self.pick == ACHIEVED or (not self.pick and bool(self._requests)))

    @cached_property
    def _requests(self) -> list[Achieved]:
        """The requests whose rewards on validation prompts are known, and within the ranges."""
        measured = self.policy.calibration
        ranges = {name: target for name, target in self.targets.items() if target.ranged}
        return [
            request
            for request in (measured.achieved if measured else ())
            if self.weights.keys() <= request.rewards.keys()
            and self._keeps(self.policy.scaled(request.rewards), ranges)
        ]

    def _achieved(self) -> Mapping[str, RequestedValue]:
        """Return the request that brought the best weighted reward on validation prompts. Raises ConfigError."""
        if not self._requests:
            known = self.policy.calibration and self.policy.calibration.achieved
            reason = "no request is known to have brought that" if known else "what requests bring was not measured"
            raise ConfigError(
                f"--mix-from {ACHIEVED}: {reason}; see `irlhf eval --calibrate`, or use --mix-from {FRONT}"
            )
        best = max(self._requests, key=lambda request: self.policy.weighted(request.rewards, self.weights))
        return {name: number for name, number in best.prompt_numbers.items() if name not in self._fixed}

    def _put(self, name: str, wish: RequestedValue) -> RequestedValue:
        """Return what stands in the prompt for a wish."""
        if self.raw:
            return wish
        if isinstance(wish, Bound):
            return wish._replace(number=self.policy.shown(name, wish.number))
        return self.policy.shown(name, self.reach[name](wish) if self._reaches(name) else wish)

    def _others(
        self, wishes: Mapping[str, RequestedValue], prompt_values: Mapping[str, RequestedValue]
    ) -> dict[str, float]:
        """Return the numbers that are wanted where the prompt asks for another, because of what was measured."""
        numbers = {name: wish for name, wish in wishes.items() if not isinstance(wish, Bound) and not self.raw}
        plain = {name: self.policy.shown(name, number) for name, number in numbers.items()}
        return {name: number for name, number in plain.items() if prompt_values[name] != number}

    def _reaches(self, name: str) -> bool:
        # What a request is known to have brought, it brought as it was asked.
        return name in self.reach and not self._asks_again


def read_targets(texts: Sequence[str], policy: Policy) -> dict[str, Target]:
    """Read --target texts against a policy, in the order of its reward lines.

    Raises ConfigError for a reward that the policy does not know.
    """
    targets = parse_targets(texts)
    for name in targets:
        policy.reward(name)
    return {name: targets[name] for name in policy.names if name in targets}


def number_of(wish: RequestedValue) -> float:
    """Return the number that a wish names."""
    return wish.number if isinstance(wish, Bound) else wish


def _within(number: float, reach: Reach) -> bool:
    low, high = (reach.ys[0], reach.ys[-1]) if reach.ys else (reach.low, reach.high)
    return low <= number <= high


def _spread(rows: Sequence[Vector], columns: Sequence[int], count: int, seed: str) -> Sequence[Vector]:
    """Draw `count` of the rows that cover each column's range evenly.

    Of _TRIES random sets the one is taken whose sorted values lie nearest to the middles of `count`
    equal strata of the rows, summed over the columns.
    """
    rng = random.Random(seed)
    ranks = [sorted(vector[column] for vector in rows) for column in columns]
    strata = [[ordered[int((i + 0.5) / count * len(ordered))] for i in range(count)] for ordered in ranks]
    spans = [(ordered[-1] - ordered[0]) or 1.0 for ordered in ranks]

    def unevenness(chosen: Sequence[Vector]) -> float:
        total = 0.0
        for column, wanted, span in zip(columns, strata, spans, strict=True):
            values = sorted(vector[column] for vector in chosen)
            total += sum(((a - b) / span) ** 2 for a, b in zip(values, wanted, strict=True))
        return total

    tries = [rng.choices(rows, k=count) for _ in range(_TRIES if count > 1 else 1)]
    return min(tries, key=unevenness)
