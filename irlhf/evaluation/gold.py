"""Gold rewards along the target, and over-optimisation of the proxy."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.evaluation.arms import Pair
from irlhf.evaluation.curve import level_means, levels_of
from irlhf.evaluation.tracking import rank_tracking

_LEAST_LEVELS = 3  # for a peak between the lowest and the highest
_LEAST_PROMPTS = 4  # two in each half


def gold_tracking(pairs: Sequence[Pair], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the rank correlations of gold with the target, and over-optimisation; {} without gold rewards."""
    scored = [pair for pair in pairs if pair.gold is not None]
    if not scored:
        return {}
    ranked = rank_tracking([(pair.prompt, pair.target, pair.gold or 0.0) for pair in scored], bootstrap)
    return {**ranked, "over": over_optimisation(scored, bootstrap)}


def over_optimisation(pairs: Sequence[Pair], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the level at which gold peaks, and the fall of gold from the peak to the highest target.

    A fall means that the proxy is over-optimised. The peak is located on one half of the prompts and the fall is
    measured on the other half, because on the same samples the fall would be positive by chance. Returns {} for fewer
    than four prompts or three levels, or if one half of the prompts lacks a level.
    """
    prompts = sorted({pair.prompt for pair in pairs})
    order = np.random.default_rng(bootstrap.seed).permutation(len(prompts))
    finding = {prompts[i] for i in order[: len(prompts) // 2]}
    targets = np.array([pair.target for pair in pairs])
    gold = np.array([pair.gold for pair in pairs], dtype=float)
    in_half = np.array([pair.prompt in finding for pair in pairs])
    levels = levels_of(targets)
    there = range(int(levels.max()) + 1)
    halves = (set(levels[half].tolist()) for half in (in_half, ~in_half))
    if len(prompts) < _LEAST_PROMPTS or len(there) < _LEAST_LEVELS or any(len(half) < len(there) for half in halves):
        return {}
    peak = int(np.argmax(level_means(in_half[None].astype(float), gold, levels, there)))
    rest = np.flatnonzero(~in_half).tolist()

    def measure(times: Floats) -> dict[str, Floats]:
        high, last = level_means(times, gold[rest], levels[rest], [peak, there[-1]]).T
        return {"fall": high - last}

    fall = clustered([pairs[i].prompt for i in rest], measure, bootstrap)["fall"]
    return {
        "peak": float(targets[levels == peak].mean()),
        "top": float(targets[levels == there[-1]].mean()),
        "fall": fall,
    }
