"""How well the actual reward follows the target."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from irlhf.evaluate.intervals import clustered

Floats = NDArray[np.float64]

POINTS = 2000  # (target, actual) pairs that eval.json keeps for the picture
_LEAST_TARGETS = 3  # different targets a prompt needs before its own correlation means anything


def tracking(pairs: Sequence[tuple[str, float, float]], resamples: int, seed: int) -> dict[str, Any]:
    """Return the figures of one reward from (prompt, asked, actual), the last two in scale units.

    `pooled` correlates over all samples. `within` is the mean over prompts of each prompt's own
    correlation, so that easy and hard prompts cannot make it up; a prompt whose actual rewards are all
    equal follows nothing and counts 0. `error` is the mean absolute error beside two floors that take no
    steering at all: the targets dealt out anew (the mean over all deals), and one constant answer (the
    best one, the targets' median). Where all targets are the same there is nothing to correlate with, and
    `pooled` and `within` are empty.
    """
    prompts = [prompt for prompt, _, _ in pairs]
    asked = np.array([target for _, target, _ in pairs])
    actual = np.array([reward for _, _, reward in pairs])
    intervals = clustered(prompts, lambda rows: _pooled(asked[rows], actual[rows]), resamples, seed)
    own = _own_correlations(prompts, asked, actual)
    names = list(own)
    within = clustered(names, lambda rows: _mean_own([own[names[i]] for i in rows]), resamples, seed) if own else {}
    return {
        "n": len(pairs),
        "prompts": len(set(prompts)),
        "pooled": {name: intervals[name] for name in ("spearman", "pearson")} if np.ptp(asked) else {},
        "within": {**within, "prompts": len(own)},
        "error": {
            "mean_absolute": intervals["error"],
            "floor_permuted": _permuted_error(asked, actual),
            "floor_constant": float(np.abs(asked - np.median(asked)).mean()),
        },
        "actual": intervals["actual"],
        "asked": intervals["asked"],
        "points": _points(asked, actual, seed),
    }


def rank_tracking(pairs: Sequence[tuple[str, float, float]], resamples: int, seed: int) -> dict[str, Any]:
    """Return the rank correlations alone, for a gold reward, whose numbers lie on a scale of its own."""
    found = tracking(pairs, resamples, seed)
    return {"n": found["n"], **{name: found[name].get("spearman") for name in ("within", "pooled")}}


def _pooled(asked: Floats, actual: Floats) -> dict[str, float]:
    return {
        "spearman": correlation(stats.rankdata(asked), stats.rankdata(actual)),
        "pearson": correlation(asked, actual),
        "error": float(np.abs(asked - actual).mean()),
        "actual": float(actual.mean()),
        "asked": float(asked.mean()),
    }


def correlation(x: Floats, y: Floats) -> float:
    """Return Pearson's r; 0 where either side is constant, because then nothing follows anything."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 1e-12 else 0.0


def _own_correlations(prompts: Sequence[str], asked: Floats, actual: Floats) -> dict[str, dict[str, float]]:
    rows: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(i)
    return {
        prompt: {
            "spearman": correlation(stats.rankdata(asked[mine]), stats.rankdata(actual[mine])),
            "pearson": correlation(asked[mine], actual[mine]),
        }
        for prompt, mine in rows.items()
        if len(set(asked[mine])) >= _LEAST_TARGETS
    }


def _mean_own(own: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in own])) for name in ("spearman", "pearson")}


def _permuted_error(asked: Floats, actual: Floats) -> float:
    """Return the mean of |target - actual| over all pairs, in n log n: sums below and above each target."""
    ordered = np.sort(actual)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    below = np.searchsorted(ordered, asked)
    total = asked * below - sums[below] + (sums[-1] - sums[below]) - asked * (len(ordered) - below)
    return float(total.mean() / len(ordered))


def _points(asked: Floats, actual: Floats, seed: int) -> list[list[float]]:
    kept = np.arange(len(asked))
    if len(kept) > POINTS:
        kept = np.sort(np.random.default_rng(seed).choice(kept, POINTS, replace=False))
    return [[round(float(asked[i]), 4), round(float(actual[i]), 4)] for i in kept]
