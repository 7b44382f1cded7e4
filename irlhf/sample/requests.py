"""From what a user asks for to the numbers that each sample's prompt spells."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from irlhf.errors import ConfigError
from irlhf.policy import Policy
from irlhf.scales import UNIT
from irlhf.targets import Target, parse_targets, weight_text

_NO_RESERVOIR = "the policy kept no joint vectors of its training data (no row has every reward)"
_TRIES = 64  # sets of joint vectors of which the most even is taken


_BEST = 0.02  # share of the training rows, by weighted reward, that --weights draws its vectors from
_FEWEST = 10  # of them, so that one odd row does not stand for the mix


class Request(NamedTuple):
    """What one sample is asked for: numbers in scale units, and the user's own words for them."""

    asked: dict[str, float]
    target: dict[str, str]


def read_targets(texts: Sequence[str], policy: Policy) -> dict[str, Target]:
    """Read --target texts against a policy, in the order of its reward lines.

    Raises ConfigError for a reward that the policy does not know and for a kind of target that this
    version does not answer.
    """
    targets = parse_targets(texts)
    for name, target in targets.items():
        policy.reward(name)
        if target.kind not in ("exact", "sweep", "data"):
            raise ConfigError(
                f"target '{name}={target.text}': {target.kind} targets are not answered by this version;"
                " ask with a number, a sweep like 0:1:0.1, or data"
            )
    return {name: targets[name] for name in policy.names if name in targets}


def weighted_requests(weights: Mapping[str, float], policy: Policy, count: int, seed: str) -> Iterator[Request]:
    """Yield `count` requests for a mix: each the rewards of one of the best training rows by weighted reward.

    The rows exist, so what is asked is possible together; per-reward maxima are not. A reward of weight 0
    is not asked for.
    """
    wanted = [name for name, weight in weights.items() if weight]
    rows = [dict(zip(policy.names, vector, strict=True)) for vector in policy.reservoir]
    if not rows:
        raise ConfigError(_NO_RESERVOIR)
    rows.sort(key=lambda row: policy.weighted(row, weights), reverse=True)
    best = rows[: max(_FEWEST, round(_BEST * len(rows)))]
    texts = {name: weight_text(weight) for name, weight in weights.items()}
    for row in random.Random(seed).choices(best, k=count):
        yield Request({name: policy.reward(name).scale(row[name]) for name in wanted}, texts)


def clamped(targets: Mapping[str, Target], policy: Policy) -> list[str]:
    """Return the targets that ask beyond a scale within [0, 1]; they are held to it."""
    return [
        f"{name}={target.text}"
        for name, target in targets.items()
        if policy.reward(name).scale.kind in UNIT and any(not 0 <= point <= 1 for point in target.points())
    ]


def requests(targets: Mapping[str, Target], policy: Policy, count: int, seed: str) -> Iterator[Request]:
    """Yield what each sample of one prompt is asked for: every point of every sweep, `count` times each.

    Rewards asked with `data` get joint vectors of training rows, spread evenly over each reward's range
    within the prompt. `seed` names the prompt's draw.
    """
    fixed = {name: target.points() for name, target in targets.items() if target.kind != "data"}
    joint = [name for name, target in targets.items() if target.kind == "data"]
    texts = {name: target.text for name, target in targets.items()}
    for number, points in enumerate(product(*fixed.values())):
        vectors = _vectors(joint, policy, count, f"{seed}/{number}")
        for i in range(count):
            numbers = {**dict(zip(fixed, points, strict=True)), **(vectors[i] if joint else {})}
            asked = {name: _held(policy, name, numbers[name]) for name in targets}
            yield Request(asked, texts)


def _vectors(names: Sequence[str], policy: Policy, count: int, seed: str) -> list[dict[str, float]]:
    """Draw `count` joint vectors of training rows that cover each reward's range evenly.

    Of _TRIES random sets the one is taken whose sorted values lie nearest to the middles of `count`
    equal strata of the training data, summed over the rewards.
    """
    if not names:
        return []
    if not policy.reservoir:
        raise ConfigError(_NO_RESERVOIR)
    rng = random.Random(seed)
    columns = [policy.names.index(name) for name in names]
    scales = [policy.rewards[column].scale for column in columns]
    ranks = [sorted(vector[column] for vector in policy.reservoir) for column in columns]
    strata = [[ordered[int((i + 0.5) / count * len(ordered))] for i in range(count)] for ordered in ranks]
    spans = [(ordered[-1] - ordered[0]) or 1.0 for ordered in ranks]

    def unevenness(chosen: Sequence[Sequence[float]]) -> float:
        total = 0.0
        for column, wanted, span in zip(columns, strata, spans, strict=True):
            values = sorted(vector[column] for vector in chosen)
            total += sum(((a - b) / span) ** 2 for a, b in zip(values, wanted, strict=True))
        return total

    tries = [rng.choices(policy.reservoir, k=count) for _ in range(_TRIES if count > 1 else 1)]
    best = min(tries, key=unevenness)
    return [
        {name: scale(vector[column]) for name, column, scale in zip(names, columns, scales, strict=True)}
        for vector in best
    ]


def _held(policy: Policy, name: str, number: float) -> float:
    """Hold a number to its scale where the scale has ends."""
    return min(1.0, max(0.0, number)) if policy.reward(name).scale.kind in UNIT else number
