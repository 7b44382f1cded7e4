"""How well the actual reward follows the target."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.evaluation import statistics
from irlhf.evaluation.arms import ROUNDING, Pair, by_prompt
from irlhf.policy.scales import within_ranks

POINTS = 2000  # (target, actual) pairs that eval.json keeps for the picture
_LEAST_TARGETS = 3  # different targets a prompt needs before its own correlation means anything
_CORRELATIONS = ("pearson", "spearman", "slope")

Prompts = Mapping[str, Mapping[str, float]]  # each prompt's own figures


def tracking(pairs: Sequence[Pair], tolerance: float, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the figures of one reward.

    `pooled` is over all samples. `within` is the mean over prompts of each prompt's own figure, so that easy
    and hard prompts cannot make it up. `error` is the mean absolute error, `success` the share of samples
    within `tolerance` of their target, `at_least` the share that gave what was asked or more; each beside
    what it would be without any steering: with the targets dealt out anew (the mean over all deals), and
    with one constant answer (the best one). Where all targets are the same there is nothing to correlate
    with: `pooled` and `within` are empty.
    """
    asked, actual = _columns(pairs)
    enough = np.array([pair.enough for pair in pairs], dtype=float)
    prompts = [pair.prompt for pair in pairs]
    found = clustered(prompts, lambda times: _pooled(times, (asked, actual, enough), tolerance), bootstrap)
    return {
        "n": len(pairs),
        "prompts": len(set(prompts)),
        "asked": found["asked"],
        "actual": found["actual"],
        "pooled": {name: found[name] for name in _CORRELATIONS} if np.ptp(asked) else {},
        "within": within(own_figures(pairs), bootstrap),
        "error": {"mean_absolute": found["error"], **_error_floors(asked, actual)},
        "success": {"tolerance": tolerance, "share": found["success"], **_success_floors(asked, actual, tolerance)},
        "at_least": {"share": found["at_least"], "floor_permuted": _share_enough(pairs)},
        "points": _points(asked, actual, bootstrap.seed),
    }


def ordered_error(pairs: Sequence[Pair]) -> float:
    """Return the mean absolute error on the scale `within` of samples whose order is that of their targets."""
    ranks = within_ranks([pair.asked for pair in pairs], [pair.prompt for pair in pairs], "higher")
    return float(np.mean([abs(pair.asked - (rank or 0.0)) for pair, rank in zip(pairs, ranks, strict=True)]))


def rank_tracking(pairs: Sequence[tuple[str, float, float]], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return how well numbers on a scale of their own follow the target, from (prompt, asked, number)."""
    prompts = [prompt for prompt, _, _ in pairs]
    asked, given = (np.array(column) for column in zip(*(pair[1:] for pair in pairs), strict=True))
    pooled = clustered(prompts, lambda times: {"spearman": statistics.spearman(times, asked, given)}, bootstrap)
    own = within(_own(prompts, asked, given), bootstrap)
    return {
        "n": len(pairs),
        "prompts": len(set(prompts)),
        "within": own.get("spearman"),
        "pooled": pooled["spearman"] if np.ptp(asked) else None,
    }


def own_figures(pairs: Sequence[Pair]) -> Prompts:
    """Return each prompt's own correlations and violations.

    A prompt whose actual rewards are all equal follows nothing and counts 0. A violation is a pair of
    samples of which the one that was asked for more gave less, as a share of the pairs asked differently.
    """
    asked, actual = _columns(pairs)
    return _own([pair.prompt for pair in pairs], asked, actual)


def within(own: Prompts, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the mean of the prompts' own figures."""
    if not own:
        return {"prompts": 0}
    columns = {name: np.array([one[name] for one in own.values()]) for name in next(iter(own.values()))}

    def measure(times: Floats) -> dict[str, Floats]:
        return {name: statistics.mean(times, column) for name, column in columns.items()}

    return {"prompts": len(own), **clustered(list(own), measure, bootstrap)}


def _columns(pairs: Sequence[Pair]) -> tuple[Floats, Floats]:
    asked, actual = np.array([(pair.asked, pair.actual) for pair in pairs]).T
    return asked, actual


def _pooled(times: Floats, columns: tuple[Floats, Floats, Floats], tolerance: float) -> dict[str, Floats]:
    asked, actual, enough = columns
    missed = np.abs(asked - actual)
    return {
        "pearson": statistics.pearson(times, asked, actual),
        "spearman": statistics.spearman(times, asked, actual),
        "slope": statistics.slope(times, asked, actual),
        "error": statistics.mean(times, missed),
        "success": statistics.mean(times, (missed <= tolerance + ROUNDING).astype(float)),
        "at_least": statistics.mean(times, enough),
        "actual": statistics.mean(times, actual),
        "asked": statistics.mean(times, asked),
    }


def _own(prompts: Sequence[str], asked: Floats, actual: Floats) -> dict[str, dict[str, float]]:
    groups = {prompt: mine for prompt, mine in by_prompt(prompts) if len(set(asked[mine])) >= _LEAST_TARGETS}
    return {prompt: _prompt_correlations(asked[mine], actual[mine]) for prompt, mine in groups.items()}


def _prompt_correlations(asked: Floats, actual: Floats) -> dict[str, float]:
    once = np.ones((1, len(asked)))
    more_asked, more_given = (np.sign(column[:, None] - column) for column in (asked, actual))
    return {
        "pearson": float(statistics.pearson(once, asked, actual)[0]),
        "spearman": float(statistics.spearman(once, asked, actual)[0]),
        "violations": float((more_asked * more_given < 0).sum() / (more_asked != 0).sum()),
    }


def _error_floors(asked: Floats, actual: Floats) -> dict[str, float]:
    """Return the mean of |target - actual| over all pairs, in n log n, and that of the targets' own median."""
    ordered = np.sort(actual)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    below = np.searchsorted(ordered, asked)
    total = asked * below - sums[below] + (sums[-1] - sums[below]) - asked * (len(ordered) - below)
    constant = float(np.abs(asked - np.median(asked)).mean())
    return {"floor_permuted": float(total.mean() / len(ordered)), "floor_constant": constant}


def _success_floors(asked: Floats, actual: Floats, tolerance: float) -> dict[str, float]:
    ordered, tolerance = np.sort(actual), tolerance + ROUNDING
    near = np.searchsorted(ordered, asked + tolerance, "right") - np.searchsorted(ordered, asked - tolerance, "left")
    targets = np.sort(asked)
    # The best constant has some target just at its lower reach.
    held = np.searchsorted(targets, targets + 2 * tolerance, "right") - np.arange(len(targets))
    return {"floor_permuted": float(near.mean() / len(ordered)), "floor_constant": float(held.max() / len(targets))}


def _share_enough(pairs: Sequence[Pair]) -> float:
    """Return the share of all pairs of a target and an actual, of whichever samples, that keep the target."""
    actual, least, most = np.array([(pair.actual, pair.least, pair.most) for pair in pairs]).T
    ordered = np.sort(actual)
    reached = len(ordered) - np.searchsorted(ordered, least - ROUNDING, "left")
    passed = len(ordered) - np.searchsorted(ordered, most + ROUNDING, "right")
    return float((reached - passed).mean() / len(ordered))


def _points(asked: Floats, actual: Floats, seed: int) -> list[list[float]]:
    kept = np.arange(len(asked))
    if len(kept) > POINTS:
        kept = np.sort(np.random.default_rng(seed).choice(kept, POINTS, replace=False))
    return [[round(float(asked[i]), 4), round(float(actual[i]), 4)] for i in kept]
