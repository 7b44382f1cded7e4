"""Resolve targets and weights to the numbers or thresholds in each sample's prompt."""

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
from irlhf.policy.targets import RAW, Target, parse_targets, weight_text
from irlhf.policy.templates import Bound, RequestedValue

BEST, FRONT, ACHIEVED = "best", "front", "achieved"
PICKS = (BEST, FRONT, ACHIEVED)  # methods that choose the targets of a mix

_NO_RESERVOIR = "the policy has no joint reward vectors, because no training row has all rewards; use other targets"
_TRIES = 64  # random sets of joint vectors; the most even one is used
_BEST = 0.02  # share of the training rows with the highest weighted reward, from which a mix draws
_FEWEST = 10  # minimum number of these rows, to limit the effect of outliers
_MOST_LISTED = 5  # maximum numbers listed in a note
_SPAN = (1, 99)  # percentiles that bound `uniform` on unbounded scales

Vector = Sequence[float]  # of the policy's reservoir


class RequestedRewards(NamedTuple):
    """The targets of one sample in the units of the scales, and the user's texts for them."""

    prompt_values: dict[str, RequestedValue]
    target: dict[str, str]
    wanted: dict[str, float]  # the user's numbers, where calibration put another into the prompt


@dataclass(frozen=True)
class TargetSpec:
    """The targets for some rewards of a policy, and the weights for a mix of others.

    `pick` chooses the targets of the mix. If empty, it is `achieved` if a suitable request was measured, else `front`
    (docs/asking.md compares them). `reach` is the calibration that maps and clips numbers, if measured. With `raw`,
    numbers are written into the prompt unchanged.
    """

    policy: Policy
    targets: Mapping[str, Target]
    weights: Mapping[str, float] = field(default_factory=dict)
    pick: str = ""
    reach: Mapping[str, Reach] = field(default_factory=dict)
    raw: bool = False

    @property
    def varies(self) -> bool:
        """Whether the samples of a prompt have different targets, besides the points of a sweep."""
        return bool(self.weights) or len(self._fixed) < len(self.targets)

    def size(self, count: int) -> int:
        """Return the number of samples per prompt."""
        return count * math.prod(map(len, self._fixed.values()))

    def requests(self, count: int, seed: str) -> Iterator[RequestedRewards]:
        """Yield the targets of each sample of one prompt: every point of every sweep, `count` times each.

        Targets drawn from the training data come from one row for all rewards, so that they are jointly feasible.
        `seed` seeds the random choices. Raises ConfigError if no training row fits.
        """
        texts = {name: target.text for name, target in self.targets.items()}
        texts |= {name: weight_text(weight) for name, weight in self.weights.items()}
        for number, points in enumerate(product(*self._fixed.values())):
            at = f"{seed}/{number}"
            drawn = self._mixed(count, seed if len(texts) == len(self.weights) else at) if self.weights else None
            drawn = drawn or self._drawn(count, at)
            rng, others = random.Random(f"{at}/uniform"), random.Random(f"{at}/others")
            for i in range(count):
                wishes = {**dict(zip(self._fixed, points, strict=True)), **drawn[i], **self._anywhere(rng)}
                wishes |= self._others(wishes, others)
                prompt_values = {
                    name: self._calibrated(name, wishes[name]) for name in self.policy.names if name in wishes
                }
                numbers = {name: wish for name, wish in wishes.items() if not isinstance(wish, Bound) and not self.raw}
                plain = {name: self.policy.shown(name, number) for name, number in numbers.items()}
                wanted = {name: number for name, number in plain.items() if prompt_values[name] != number}
                yield RequestedRewards(prompt_values, texts, wanted)

    def beyond(self) -> Iterator[str]:
        """Yield a warning for each number outside the scale or the measured reach, with its replacement."""
        if self.raw:
            return
        for name, number in ((name, number_of(wish)) for name, wishes in self._fixed.items() for wish in wishes):
            text = f"{name}={self.targets[name].text}"
            if self.policy.held(name, number) != number:
                yield f"{text} is outside the training data; clipped to the end of the scale{self._units(name)}"
            elif self._reaches(name) and not _within(number, self.reach[name]):
                replacement = number_of(self._calibrated(name, number))
                yield f"{text} is outside the measured reach of this policy; the prompt has {replacement:.2f}"

    def _units(self, name: str) -> str:
        """Return what the numbers of a quantile scale mean, for users who write ratings."""
        scale = self.policy.reward(name).scale
        if scale.kind != "quantile":
            return ""
        median = f"{scale.inverse(0.5):.3g}"
        return (
            f" (0 to 1 is the share of training rows that are worse; 0.5 is a reward of {median}, and"
            f" {name}={RAW}{median} requests that reward)"
        )

    def unseen(self) -> Iterator[str]:
        """Yield a note for each reward with numbers that no training row has, with their replacements."""
        if self.raw:
            return
        for name, wishes in self._fixed.items():
            numbers = [self.policy.held(name, number_of(wish)) for wish in wishes]
            pairs = [(number, self.policy.shown(name, number)) for number in numbers]
            missing = [f"{shown:.2f} for {number:g}" for number, shown in pairs if shown != number]
            if missing:
                more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
                listed = ", ".join(missing[:_MOST_LISTED])
                yield f"{name}: requesting the nearest target of a training row: {listed}{more}"

    @cached_property
    def filled(self) -> list[str]:
        """The rewards without a target that the prompts have all the same.

        A policy that saw all reward lines in every training prompt does not know what a single line means. The rewards
        that a request leaves out are those of a training row near the request.
        """
        requested = {*self.targets, *(name for name, weight in self.weights.items() if weight)}
        fills = bool(requested) and self.policy.always_all_lines and bool(self.policy.reservoir)
        return [name for name in self.policy.names if fills and name not in requested]

    def _others(self, wishes: Mapping[str, RequestedValue], rng: random.Random) -> dict[str, RequestedValue]:
        """Draw the rewards in `filled` from the training rows nearest to the numbers of a request."""
        missing = [name for name in self.filled if name not in wishes]
        if not missing:
            return {}
        numbers = [(name, wish) for name, wish in wishes.items() if not isinstance(wish, Bound)]
        key = tuple(sorted(numbers))
        if key not in self._near:
            distances = [
                sum(abs(row[name] - number) / self._widths[name] for name, number in key) for row in self._numbers
            ]
            nearest_first = sorted(range(len(distances)), key=distances.__getitem__)
            self._near[key] = nearest_first[: _FEWEST if key else None]
        row = self._numbers[rng.choice(self._near[key])]
        return {name: row[name] for name in missing}

    @cached_property
    def _near(self) -> dict[tuple[tuple[str, float], ...], list[int]]:
        """The nearest rows of `_numbers` by the numbers of a request."""
        return {}

    @cached_property
    def _numbers(self) -> list[dict[str, float]]:
        return [self.policy.numbers(vector) for vector in self._pool]

    @cached_property
    def _widths(self) -> dict[str, float]:
        """The range of each reward in the training rows, to compare distances on different scales."""
        columns = {name: [row[name] for row in self._numbers] for name in self.policy.names}
        return {name: (max(column) - min(column)) or 1.0 for name, column in columns.items()}

    @cached_property
    def _fixed(self) -> dict[str, list[RequestedValue]]:
        """The rewards with explicit targets, which are not drawn from training rows."""
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
        """Return a percentile of the training rows, in the units of the scale."""
        if self.policy.reward(name).scale.kind in ("quantile", WITHIN):
            return per_cent / 100
        return percentile(sorted(self.policy.numbers(vector)[name] for vector in self._rows), per_cent)

    def _anywhere(self, rng: random.Random) -> dict[str, RequestedValue]:
        """Draw the rewards with the target `uniform`."""
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
        """The training rows inside all requested ranges. Raises ConfigError if there are none."""
        ranges = {name: target for name, target in self.targets.items() if target.ranged}
        if not ranges:
            return self._rows
        vectors = [vector for vector in self._rows if self._keeps(self.policy.numbers(vector), ranges)]
        if not vectors:
            ranges_text = " and ".join(f"{name}={target.text}" for name, target in ranges.items())
            together = " together" if len(ranges) > 1 else ""
            raise ConfigError(
                f"none of {len(self._rows):,} training rows has {ranges_text}{together}; use wider ranges"
            )
        return vectors

    def _keeps(self, numbers: Mapping[str, float], ranges: Mapping[str, Target]) -> bool:
        return all(target.holds(numbers[name]) for name, target in ranges.items())

    @property
    def _joint(self) -> list[str]:
        """The rewards whose targets are drawn from training rows."""
        return [name for name, target in self.targets.items() if name not in self._fixed and target.kind != "uniform"]

    def _drawn(self, count: int, seed: str) -> Sequence[Mapping[str, RequestedValue]]:
        """Draw joint vectors from the pool, spread evenly over the range of each reward."""
        if not self._joint:
            return [{}] * count
        columns = [self.policy.names.index(name) for name in self._joint]
        drawn = [self.policy.numbers(vector) for vector in _spread(self._pool, columns, count, seed)]
        return [{name: row[name] for name in self._joint} for row in drawn]

    def _mixed(self, count: int, seed: str) -> Sequence[Mapping[str, RequestedValue]]:
        """Return targets for the mix: the rewards of good training rows, or the best measured request."""
        if self._uses_measured:
            return [self._achieved()] * count
        wanted = [*(name for name, weight in self.weights.items() if weight), *self._joint]
        rows = [self.policy.numbers(vector) for vector in self._best]
        chosen = random.Random(seed).choices(rows, k=count)
        return [{name: row[name] for name in wanted} for row in chosen]

    @cached_property
    def _best(self) -> Sequence[Vector]:
        """The rows of the pool with the highest weighted reward; as they exist, they are jointly feasible."""

        def weighted(vector: Vector) -> float:
            return self.policy.weighted_vector(vector, self.weights)

        ordered = sorted(self._pool, key=weighted, reverse=True)
        return ordered[: max(_FEWEST, round(_BEST * len(ordered))) if self.pick == BEST else 1]

    @property
    def _uses_measured(self) -> bool:
        """Whether the mix uses a measured request."""
        return bool(self.weights) and (self.pick == ACHIEVED or (not self.pick and bool(self._requests)))

    @cached_property
    def _requests(self) -> list[Achieved]:
        """The measured requests whose rewards on validation prompts are inside the ranges."""
        measured = self.policy.calibration
        ranges = {name: target for name, target in self.targets.items() if target.ranged}
        return [
            request
            for request in (measured.achieved if measured else ())
            if self.weights.keys() <= request.rewards.keys()
            and self._keeps(self.policy.scaled(request.rewards), ranges)
        ]

    def _achieved(self) -> Mapping[str, RequestedValue]:
        """Return the measured request with the highest weighted reward on validation prompts. Raises ConfigError."""
        if not self._requests:
            known = self.policy.calibration and self.policy.calibration.achieved
            reason = "no measured request fits" if known else "this policy is not calibrated"
            raise ConfigError(
                f"--mix-from {ACHIEVED}: {reason}; run `irlhf eval --calibrate`, or use --mix-from {FRONT}"
            )
        best = max(self._requests, key=lambda request: self.policy.weighted(request.rewards, self.weights))
        return {name: number for name, number in best.prompt_numbers.items() if name not in self._fixed}

    def _calibrated(self, name: str, wish: RequestedValue) -> RequestedValue:
        """Return the number or threshold in the prompt for a target."""
        if self.raw:
            return wish
        if isinstance(wish, Bound):
            return wish._replace(number=self.policy.shown(name, wish.number))
        return self.policy.shown(name, self.reach[name](wish) if self._reaches(name) else wish)

    def _reaches(self, name: str) -> bool:
        # A measured request must be repeated unchanged.
        return name in self.reach and not self._uses_measured


def read_targets(texts: Sequence[str], policy: Policy) -> dict[str, Target]:
    """Return the parsed --target texts by reward, in the order of the policy's reward lines.

    Targets in the units of a scorer (`raw:4`) are returned in the units of the reward's scale. Raises ConfigError for
    an invalid target, and for a reward that the policy does not have.
    """
    targets = parse_targets(texts)
    for name, target in targets.items():
        scale = policy.reward(name).scale
        if target.raw and scale.kind == WITHIN:
            raise ConfigError(
                f"{name}={target.text}: scale within has no number for a reward; request a rank from 0 to 1"
            )
        if target.raw:
            targets[name] = target.scaled(scale, scale.direction == "lower")
    return {name: targets[name] for name in policy.names if name in targets}


def number_of(wish: RequestedValue) -> float:
    """Return the number of a target or threshold."""
    return wish.number if isinstance(wish, Bound) else wish


def opposite(policy: Policy, requested: Mapping[str, RequestedValue], raw: bool = False) -> dict[str, RequestedValue]:
    """Return every target mirrored on its scale, for guidance with `--against opposite`.

    A number x becomes 1 - x on a scale from 0 to 1, and 2m - x on any other, where m is the scaled mean of the
    training rows. At least x becomes at most x, and the reverse, if the policy's template has a line for it; otherwise
    it becomes the mirrored number. Numbers that no training row has are replaced by the nearest one, unless `raw`.
    """
    mirrored: dict[str, RequestedValue] = {}
    for name, wish in requested.items():
        if isinstance(wish, Bound):
            flipped = Bound("at_most" if wish.kind == "at_least" else "at_least", wish.number)
            if flipped.kind in policy.template.kinds:
                mirrored[name] = flipped
                continue
        reward, number = policy.reward(name), number_of(wish)
        number = 1 - number if reward.scale.kind in UNIT else 2 * reward.scale(reward.mean) - number
        mirrored[name] = number if raw else policy.shown(name, number)
    return mirrored


def _within(number: float, reach: Reach) -> bool:
    low, high = (reach.ys[0], reach.ys[-1]) if reach.ys else (reach.low, reach.high)
    return low <= number <= high


def _spread(rows: Sequence[Vector], columns: Sequence[int], count: int, seed: str) -> Sequence[Vector]:
    """Draw `count` rows that cover the range of each column evenly.

    Of _TRIES random sets, this returns the one whose sorted values are nearest to the midpoints of `count` equal strata
    of the rows, summed over the columns.
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
