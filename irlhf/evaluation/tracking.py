"""How closely the actual reward follows the target."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irlhf.core import statistics
from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.evaluation.arms import ROUNDING, Pair, by_prompt
from irlhf.policy.scales import within_ranks

POINTS = 2000  # most (target, actual) pairs in eval.json, for the plot
_LEAST_TARGETS = 3  # distinct targets a prompt needs for a correlation of its own
_CORRELATIONS = ("pearson", "spearman", "slope")

Prompts = Mapping[str, Mapping[str, float]]  # metrics by prompt


def tracking(pairs: Sequence[Pair], tolerance: float, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the tracking metrics of one reward.

    `pooled` is over all samples. `within` is the mean over prompts of each prompt's own metric, which differences
    between prompts do not affect. `error` is the mean absolute error, `success` the share of samples within
    `tolerance` of their target, `at_least` the share within the requested bounds. Each has floors, its values without
    steering: with shuffled targets (the mean over all permutations), and with the best constant. `pooled` and `within`
    are empty if all targets are equal.
    """
    targets, actual = _columns(pairs)
    enough = np.array([pair.enough for pair in pairs], dtype=float)
    prompts = [pair.prompt for pair in pairs]
    pooled = clustered(prompts, lambda times: _pooled(times, (targets, actual, enough), tolerance), bootstrap)
    return {
        "n": len(pairs),
        "prompts": len(set(prompts)),
        "asked": pooled["asked"],
        "actual": pooled["actual"],
        "pooled": {name: pooled[name] for name in _CORRELATIONS} if np.ptp(targets) else {},
        "within": within(own_figures(pairs), bootstrap),
        "error": {"mean_absolute": pooled["error"], **_error_floors(targets, actual)},
        "success": {"tolerance": tolerance, "share": pooled["success"], **_success_floors(targets, actual, tolerance)},
        "at_least": {"share": pooled["at_least"], "floor_permuted": _share_enough(pairs)},
        "points": _points(targets, actual, bootstrap.seed),
    }


def ordered_error(pairs: Sequence[Pair]) -> float:
    """Return the mean absolute error on the scale `within` if the samples had the order of their targets."""
    ranks = within_ranks([pair.target for pair in pairs], [pair.prompt for pair in pairs], "higher")
    return float(np.mean([abs(pair.target - (rank or 0.0)) for pair, rank in zip(pairs, ranks, strict=True)]))


def rank_tracking(pairs: Sequence[tuple[str, float, float]], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return rank correlations with the target, within prompts and pooled, from (prompt, target, number)."""
    prompts = [prompt for prompt, _, _ in pairs]
    targets, given = (np.array(column) for column in zip(*(pair[1:] for pair in pairs), strict=True))
    pooled = clustered(prompts, lambda times: {"spearman": statistics.spearman(times, targets, given)}, bootstrap)
    own = within(_own(prompts, targets, given), bootstrap)
    return {
        "n": len(pairs),
        "prompts": len(set(prompts)),
        "within": own.get("spearman"),
        "pooled": pooled["spearman"] if np.ptp(targets) else None,
    }


def own_figures(pairs: Sequence[Pair]) -> Prompts:
    """Return correlations and violations by prompt, for prompts with at least three distinct targets.

    Correlations are 0 if all actual rewards of a prompt are equal. Violations are the share of sample pairs with
    different targets in which the one with the higher target has the lower reward.
    """
    targets, actual = _columns(pairs)
    return _own([pair.prompt for pair in pairs], targets, actual)


def within(own: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the mean of the metrics over prompts, with intervals."""
    if not own:
        return {"prompts": 0}
    columns = {
        name: np.array([correlations[name] for correlations in own.values()]) for name in next(iter(own.values()))
    }

    def measure(times: Floats) -> dict[str, Floats]:
        return {name: statistics.mean(times, column) for name, column in columns.items()}

    return {"prompts": len(own), **clustered(list(own), measure, bootstrap)}


def _columns(pairs: Sequence[Pair]) -> tuple[Floats, Floats]:
    targets, actual = np.array([(pair.target, pair.actual) for pair in pairs]).T
    return targets, actual


def _pooled(times: Floats, columns: tuple[Floats, Floats, Floats], tolerance: float) -> dict[str, Floats]:
    targets, actual, enough = columns
    missed = np.abs(targets - actual)
    return {
        "pearson": statistics.pearson(times, targets, actual),
        "spearman": statistics.spearman(times, targets, actual),
        "slope": statistics.slope(times, targets, actual),
        "error": statistics.mean(times, missed),
        "success": statistics.mean(times, (missed <= tolerance + ROUNDING).astype(float)),
        "at_least": statistics.mean(times, enough),
        "actual": statistics.mean(times, actual),
        "asked": statistics.mean(times, targets),
    }


def _own(prompts: Sequence[str], targets: Floats, actual: Floats) -> dict[str, dict[str, float]]:
    groups = {prompt: indices for prompt, indices in by_prompt(prompts) if len(set(targets[indices])) >= _LEAST_TARGETS}
    return {prompt: _prompt_correlations(targets[indices], actual[indices]) for prompt, indices in groups.items()}


def _prompt_correlations(targets: Floats, actual: Floats) -> dict[str, float]:
    once = np.ones((1, len(targets)))
    targets_rise, actual_rises = (np.sign(column[:, None] - column) for column in (targets, actual))
    return {
        "pearson": float(statistics.pearson(once, targets, actual)[0]),
        "spearman": float(statistics.spearman(once, targets, actual)[0]),
        "violations": float((targets_rise * actual_rises < 0).sum() / (targets_rise != 0).sum()),
    }


def _error_floors(targets: Floats, actual: Floats) -> dict[str, float]:
    """Return the mean of |target - actual| over all target-actual combinations, and that of the median target.

    Takes O(n log n) time.
    """
    ordered = np.sort(actual)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    below = np.searchsorted(ordered, targets)
    total = targets * below - sums[below] + (sums[-1] - sums[below]) - targets * (len(ordered) - below)
    constant = float(np.abs(targets - np.median(targets)).mean())
    return {"floor_permuted": float(total.mean() / len(ordered)), "floor_constant": constant}


def _success_floors(requested: Floats, actual: Floats, tolerance: float) -> dict[str, float]:
    ordered, tolerance = np.sort(actual), tolerance + ROUNDING
    near = np.searchsorted(ordered, requested + tolerance, "right") - np.searchsorted(
        ordered, requested - tolerance, "left"
    )
    targets = np.sort(requested)
    # The best constant has a target at its lower bound.
    held = np.searchsorted(targets, targets + 2 * tolerance, "right") - np.arange(len(targets))
    return {"floor_permuted": float(near.mean() / len(ordered)), "floor_constant": float(held.max() / len(targets))}


def _share_enough(pairs: Sequence[Pair]) -> float:
    """Return the share of all target-actual combinations in which the actual lies within the bounds."""
    actual, least, most = np.array([(pair.actual, pair.least, pair.most) for pair in pairs]).T
    ordered = np.sort(actual)
    reached = len(ordered) - np.searchsorted(ordered, least - ROUNDING, "left")
    passed = len(ordered) - np.searchsorted(ordered, most + ROUNDING, "right")
    return float((reached - passed).mean() / len(ordered))


def _points(targets: Floats, actual: Floats, seed: int) -> list[list[float]]:
    kept = np.arange(len(targets))
    if len(kept) > POINTS:
        kept = np.sort(np.random.default_rng(seed).choice(kept, POINTS, replace=False))
    return [[round(float(targets[i]), 4), round(float(actual[i]), 4)] for i in kept]
