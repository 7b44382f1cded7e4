"""Map a raw reward onto the number that the prompt carries, fitted once on the training split.

More is always better on a scale: a reward with `direction: lower` is negated before anything else.
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

KNOTS = 1000  # at most; enough for a tenth of a per cent of the data
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
WITHIN = "within"  # the kind whose numbers are ranks among the completions of one prompt
UNIT = ("quantile", "linear", WITHIN)  # the kinds whose numbers lie in [0, 1]


def _number(value: Any) -> float:
    if not finite(value):
        raise ValueError(f"{value!r:.40} is no number")
    number: float = value  # as it was written: an integer stays one, or the digest of what is written back differs
    return number


Number = Annotated[float, PlainValidator(_number)]  # in a JSON file of ours


@dataclass(frozen=True)
class Scale:
    """A fitted scale.

    quantile  the share of the training data that is worse, ties at their mid-rank, in [0, 1]
    zscore    (x - mean) / standard deviation, unbounded
    linear    (x - low) / (high - low), held to [0, 1]
    none      x itself
    within    the share of the completions of the same prompt that are worse, ties at their mid-rank, in [0, 1]

    `xs` are oriented raw rewards (negated where lower is better). For quantile they are the distinct
    values and `ys` their mid-ranks; for zscore `xs` is (mean, deviation), for linear (low, high). For within
    `xs` is empty and `ys` are the distinct numbers of the training rows: a raw reward alone has no number on this
    scale, see `within_ranks`.
    """

    kind: StrictStr
    direction: StrictStr
    xs: tuple[Number, ...] = ()
    ys: tuple[Number, ...] = ()

    def __call__(self, reward: float) -> float:
        """Return the scaled number of a raw reward. Not for `within`."""
        assert self.kind != WITHIN, "a reward has a rank among the completions of its prompt only"
        x = -reward if self.direction == "lower" else reward
        if self.kind == "quantile":
            return interpolate(x, self.xs, self.ys, 0.0, 1.0)
        if self.kind == "zscore":
            return (x - self.xs[0]) / self.xs[1]
        if self.kind == "linear":
            return min(1.0, max(0.0, (x - self.xs[0]) / (self.xs[1] - self.xs[0])))
        return x

    def inverse(self, number: float) -> float:
        """Return the raw reward that a scaled number stands for, held to what the scale knows. Not for `within`."""
        assert self.kind != WITHIN, "each prompt has another reward at a rank"
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
        """Return the scale as policy.json keeps it."""
        return {"kind": self.kind, "direction": self.direction, "xs": list(self.xs), "ys": list(self.ys)}


def fit(name: str, spec: Reward, rewards: Sequence[float], prompts: Sequence[str] = ()) -> Scale:
    """Fit a reward's scale on the raw rewards of the training split; `within` needs the prompt of each.

    Raises DataError for a constant reward: no target could be told from another.
    """
    if not rewards:
        raise DataError(f"no training row has the reward '{name}'")
    oriented = sorted(-reward if spec.direction == "lower" else reward for reward in rewards)
    if oriented[0] == oriented[-1]:
        raise DataError(f"reward '{name}' is {rewards[0]} in all {len(rewards):,} training rows: nothing to steer")
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
            raise DataError(f"reward '{name}' is the same in all completions of each prompt: nothing to steer")
        return Scale(kind, spec.direction, (), tuple(ranks))
    return Scale(kind, spec.direction)


def within_ranks(rewards: Sequence[float | None], prompts: Sequence[str], direction: str) -> list[float | None]:
    """Return for each reward the share of its prompt's rewards that are worse, ties at their mid-rank, in [0, 1].

    None where there is no reward, or no other of the same prompt.
    """
    sign = -1 if direction == "lower" else 1
    groups: dict[str, list[float]] = {}
    for prompt, reward in zip(prompts, rewards, strict=True):
        if reward is not None:
            groups.setdefault(prompt, []).append(sign * reward)
    for group in groups.values():
        group.sort()

    def rank(prompt: str, reward: float | None) -> float | None:
        if reward is None or len(groups[prompt]) < 2:
            return None
        return mid_rank(sign * reward, groups[prompt])

    return list(map(rank, prompts, rewards))


def mid_rank(x: float, ordered: Sequence[float]) -> float:
    """Return the share of sorted numbers that are below x, those equal to it counted half."""
    return (bisect_left(ordered, x) + bisect_right(ordered, x)) / (2 * len(ordered))


def nearest(number: float, ordered: Sequence[float]) -> float:
    """Return the one of these numbers, in order, that lies nearest; of two the smaller."""
    right = bisect_left(ordered, number)
    return min(ordered[max(0, right - 1) : right + 1], key=lambda known: abs(known - number))


def percentile(ordered: Sequence[float], per_cent: float) -> float:
    """Return a percentile of sorted numbers, linear between neighbours."""
    position = per_cent / 100 * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def _bounds(name: str, spec: Reward, oriented: Sequence[float]) -> tuple[float, float]:
    low, high = spec.scale.low, spec.scale.high
    if low is None or high is None:
        bounds = percentile(oriented, 1), percentile(oriented, 99)
        if bounds[0] == bounds[1]:
            raise ConfigError(f"reward '{name}': p1 and p99 are equal, give the linear scale low and high")
        return bounds
    # `low` and `high` are written on the reward's own scale; better must still be more.
    return (-high, -low) if spec.direction == "lower" else (low, high)


def _mid_ranks(ordered: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the distinct values with the middle of the ranks that each holds, thinned to KNOTS."""
    xs = sorted(set(ordered))
    if len(xs) > KNOTS:
        last = len(xs) - 1
        xs = [xs[round(i * last / (KNOTS - 1))] for i in range(KNOTS)]
    return tuple(xs), tuple(mid_rank(x, ordered) for x in xs)


def interpolate(x: float, xs: Sequence[float], ys: Sequence[float], below: float, above: float) -> float:
    """Return y at x on the line through the knots; `below` and `above` where x lies outside them."""
    if x < xs[0]:
        return below
    if x > xs[-1]:
        return above
    right = bisect_left(xs, x)
    if xs[right] == x:
        return ys[right]
    share = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return ys[right - 1] + share * (ys[right] - ys[right - 1])
