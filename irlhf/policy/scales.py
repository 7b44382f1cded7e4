"""Map raw rewards to the numbers in the prompt. Scales are fitted once, on the training split.

Higher is always better on a scale: a reward with `direction: lower` is negated first.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Annotated, Any

from pydantic import PlainValidator, StrictStr

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import finite
from irlhf.policy.rewards_file import Reward

KNOTS = 1000  # maximum; resolves 0.1% of the data
_OF_SPREAD, _OF_SIZE = 1e-5, 1e-6  # differences that are rounding, see `rounding`
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
WITHIN = "within"  # kind: ranks among the completions of one prompt
UNIT = ("quantile", "linear", WITHIN)  # kinds with numbers in [0, 1]


def _number(value: Any) -> float:
    if not finite(value):
        raise ValueError(f"{value!r:.40} is not a number")
    number: float = value  # keep integers: converting them would change the digest of the file
    return number


Number = Annotated[float, PlainValidator(_number)]  # in a JSON file written by irlhf


@dataclass(frozen=True)
class Scale:
    """A fitted scale.

    quantile  the share of the training data that is worse, ties at their mid-rank, in [0, 1]; rewards that differ by
              rounding only are ties (see `rounding`)
    zscore    (x - mean) / standard deviation, unbounded
    linear    (x - low) / (high - low), clipped to [0, 1]
    none      x itself
    within    the share of the completions of the same prompt that are worse, ties at their mid-rank, in [0, 1]

    `xs` holds oriented raw rewards (negated if lower is better). For quantile, `xs` holds the distinct values and `ys`
    their mid-ranks; a tie of several values is two knots of equal rank. For zscore, `xs` is (mean, standard deviation);
    for linear, (low, high). For within, `xs` is empty and `ys` holds the distinct numbers of the training rows, because
    a single raw reward has no rank (see `within_ranks`).
    """

    kind: StrictStr
    direction: StrictStr
    xs: tuple[Number, ...] = ()
    ys: tuple[Number, ...] = ()

    def __call__(self, reward: float) -> float:
        """Return the scaled number of a raw reward. Not for `within`."""
        assert self.kind != WITHIN, "ranks need the other completions of the prompt"
        x = -reward if self.direction == "lower" else reward
        if self.kind == "quantile":
            return interpolate(self._in_tie(x), self.xs, self.ys, 0.0, 1.0)
        if self.kind == "zscore":
            return (x - self.xs[0]) / self.xs[1]
        if self.kind == "linear":
            return min(1.0, max(0.0, (x - self.xs[0]) / (self.xs[1] - self.xs[0])))
        return x

    def _in_tie(self, x: float) -> float:
        """Return the lowest or the highest value if they are ties, and x lies beyond them by rounding only."""
        xs, ys = self.xs, self.ys
        tolerance = _OF_SPREAD * (xs[-1] - xs[0])
        if ys[0] == ys[1] and xs[0] - tolerance <= x < xs[0]:
            return xs[0]
        return xs[-1] if ys[-1] == ys[-2] and xs[-1] < x <= xs[-1] + tolerance else x

    def inverse(self, number: float) -> float:
        """Return the raw reward for a scaled number; quantile clips to the training data. Not for `within`."""
        assert self.kind != WITHIN, "the reward at a rank differs by prompt"
        if self.kind == "quantile":
            x = interpolate(number, self.ys, self.xs, self.xs[0], self.xs[-1])
        elif self.kind == "zscore":
            x = number * self.xs[1] + self.xs[0]
        elif self.kind == "linear":
            x = self.xs[0] + number * (self.xs[1] - self.xs[0])
        else:
            x = number
        return -x if self.direction == "lower" else x

    def to_json(self) -> dict[str, Any]:
        """Return the scale as stored in policy.json."""
        return {"kind": self.kind, "direction": self.direction, "xs": list(self.xs), "ys": list(self.ys)}


def fit(name: str, spec: Reward, rewards: Sequence[float], prompts: Sequence[str] = ()) -> Scale:
    """Return a reward's scale, fitted on the raw rewards of the training split; `within` needs their prompts.

    Raises DataError for a reward that is missing or constant, and ConfigError if a linear scale has no range.
    """
    if not rewards:
        raise DataError(f"no training row has the reward '{name}'")
    oriented = sorted(-reward if spec.direction == "lower" else reward for reward in rewards)
    if oriented[-1] - oriented[0] <= rounding(oriented):
        raise DataError(
            f"reward '{name}' is {rewards[0]} in all {len(rewards):,} training rows, so it cannot be steered"
        )
    kind = spec.scale.kind
    if kind == "quantile":
        xs, ys = _mid_ranks(oriented)
        return Scale(kind, spec.direction, xs, ys)
    if kind == "zscore":
        mean = sum(oriented) / len(oriented)
        deviation = sqrt(sum((x - mean) ** 2 for x in oriented) / len(oriented))
        return Scale(kind, spec.direction, (mean, deviation))
    if kind == "linear":
        return Scale(kind, spec.direction, _bounds(name, spec, oriented))
    if kind == WITHIN:
        ranks = sorted({rank for rank in within_ranks(rewards, prompts, spec.direction) if rank is not None})
        if len(ranks) < 2:
            raise DataError(f"reward '{name}' is equal in all completions of each prompt, so it cannot be steered")
        return Scale(kind, spec.direction, (), tuple(ranks))
    return Scale(kind, spec.direction)


def within_ranks(rewards: Sequence[float | None], prompts: Sequence[str], direction: str) -> list[float | None]:
    """Return for each reward the share of its prompt's rewards that are worse, ties at their mid-rank, in [0, 1].

    None for a missing reward, and for the only reward of a prompt.
    """
    sign = -1 if direction == "lower" else 1
    groups: dict[str, list[float]] = {}
    for prompt, reward in zip(prompts, rewards, strict=True):
        if reward is not None:
            groups.setdefault(prompt, []).append(sign * reward)
    for group in groups.values():
        group.sort()
    tolerance = rounding(sorted(reward for group in groups.values() for reward in group))

    def rank(prompt: str, reward: float | None) -> float | None:
        if reward is None or len(groups[prompt]) < 2:
            return None
        return mid_rank(sign * reward, groups[prompt], tolerance)

    return list(map(rank, prompts, rewards))


def mid_rank(x: float, ordered: Sequence[float], tolerance: float = 0.0) -> float:
    """Return the share of sorted numbers below x, in [0, 1]; numbers within `tolerance` of x count one half."""
    return (bisect_left(ordered, x - tolerance) + bisect_right(ordered, x + tolerance)) / (2 * len(ordered))


def rounding(ordered: Sequence[float]) -> float:
    """Return the difference up to which sorted rewards differ by rounding only, such as 0.9999999 and 1 of a judge.

    It is 1e-5 of the range of the middle 90%, or 1e-6 of the median's size if that is more; 0 for whole numbers.
    """
    if all(float(x).is_integer() for x in ordered):
        return 0.0
    spread = percentile(ordered, 95) - percentile(ordered, 5)
    return max(_OF_SPREAD * spread, _OF_SIZE * abs(percentile(ordered, 50)))


def ties(ordered: Sequence[float]) -> list[tuple[float, float]]:
    """Return the lowest and the highest value of each tie of sorted numbers, without values that differ by rounding."""
    tolerance = rounding(ordered)
    spans: list[tuple[float, float]] = []
    for x in ordered:
        if spans and x - spans[-1][0] <= tolerance:
            spans[-1] = spans[-1][0], x
        else:
            spans.append((x, x))
    return spans


def nearest(number: float, ordered: Sequence[float]) -> float:
    """Return the nearest of the sorted numbers; the smaller one in a tie."""
    right = bisect_left(ordered, number)
    return min(ordered[max(0, right - 1) : right + 1], key=lambda known: abs(known - number))


def percentile(ordered: Sequence[float], per_cent: float) -> float:
    """Return a percentile (in [0, 100]) of sorted numbers, by linear interpolation."""
    position = per_cent / 100 * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def _bounds(name: str, spec: Reward, oriented: Sequence[float]) -> tuple[float, float]:
    low, high = spec.scale.low, spec.scale.high
    if low is None or high is None:
        bounds = percentile(oriented, 1), percentile(oriented, 99)
        if bounds[0] == bounds[1]:
            raise ConfigError(f"reward '{name}': p1 and p99 are equal; set low and high of the linear scale")
        return bounds
    # `low` and `high` are raw rewards; orient them.
    return (-high, -low) if spec.direction == "lower" else (low, high)


def _mid_ranks(ordered: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the distinct values and their mid-ranks, thinned to KNOTS. A tie of several values is two knots."""
    spans = ties(ordered)
    most = KNOTS if all(low == high for low, high in spans) else KNOTS // 2
    if len(spans) > most:
        last = len(spans) - 1
        spans = [spans[round(i * last / (most - 1))] for i in range(most)]
    xs: list[float] = []
    ys: list[float] = []
    for low, high in spans:
        ends = [low] if low == high else [low, high]
        xs += ends
        ys += [(bisect_left(ordered, low) + bisect_right(ordered, high)) / (2 * len(ordered))] * len(ends)
    return tuple(xs), tuple(ys)


def interpolate(x: float, xs: Sequence[float], ys: Sequence[float], below: float, above: float) -> float:
    """Return y at x by linear interpolation between the knots; `below` or `above` if x is outside them."""
    if x < xs[0]:
        return below
    if x > xs[-1]:
        return above
    right = bisect_left(xs, x)
    if xs[right] == x:
        return ys[right]
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])
