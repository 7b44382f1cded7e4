"""How often samples keep a requested bound, such as `0.6..`, and what they give besides."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irlhf.core import statistics
from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import Example
from irlhf.evaluation.arms import ROUNDING, Arm
from irlhf.policy.targets import Target, parse_value, weighs


def bounds(arm: Arm, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Return one entry per request that has a bound, for the samples whose rewards are all known.

    `kept` is the share of the samples whose rewards lie within all bounds, `rewards` the mean of each requested reward
    in the units of the policy's scale, `weighted` that of the mix in standard deviations above the training data, as
    in `tradeoff`; None without weights. Rewards ranked within prompts have no bounds of their own.
    """
    requests: dict[tuple[tuple[str, str], ...], list[Example]] = {}
    for row in arm.rows:
        if any(_bound(name, text) for name, text in row.target.items()):
            requests.setdefault(tuple(row.target.items()), []).append(row)
    entries = [_entry(arm, dict(request), rows, bootstrap) for request, rows in requests.items()]
    return [entry for entry in entries if entry]


def _entry(arm: Arm, target: Mapping[str, str], rows: Sequence[Example], bootstrap: Bootstrap) -> dict[str, Any]:
    names = [name for name in target if name in arm.policy.names and name not in arm.policy.ranked]
    limits = {name: bound for name in names if (bound := _bound(name, target[name]))}
    known = [row for row in rows if all(name in row.rewards for name in names)]
    if not known or not limits:
        return {}
    actual = {name: np.array([arm.policy.reward(name).scale(row.rewards[name]) for row in known]) for name in names}
    kept = np.array([all(_within(actual[name][i], limits[name]) for name in limits) for i in range(len(known))], float)
    weights = {name: float(target[name].removesuffix("*")) for name in names if weighs(target[name])}
    columns = {"kept": kept, **{f"reward {name}": column for name, column in actual.items()}}
    if any(weights.values()):
        columns["weighted"] = np.array([arm.policy.weighted(row.rewards, weights) for row in known])

    def measure(times: Floats) -> dict[str, Floats]:
        return {name: statistics.mean(times, column) for name, column in columns.items()}

    figures = clustered([row.cluster for row in known], measure, bootstrap)
    return {
        "target": dict(target),
        "bounds": list(limits),
        "weights": weights,
        "n": len(known),
        "prompts": len({row.cluster for row in known}),
        "kept": figures["kept"],
        "weighted": figures.get("weighted"),
        "rewards": {name: figures[f"reward {name}"] for name in names},
    }


def _bound(name: str, text: str) -> Target | None:
    """Return the target if it is a bound. A number drawn from a range (`~0.6..`) is a target like any other."""
    target = None if weighs(text) else parse_value(name, text)
    return target if target and target.ranged and target.kind != "draw" else None


def _within(actual: float, bound: Target) -> bool:
    ends = [end for end in (bound.low, bound.high) if end is not None]
    return bound.holds(actual) or any(abs(actual - end) <= ROUNDING for end in ends)
