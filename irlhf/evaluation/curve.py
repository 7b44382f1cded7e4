"""Curves along the target, from the lowest level to the highest: actual reward, gold reward and costs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irlhf.core.bootstrap import Bootstrap, Floats, Interval, clustered
from irlhf.evaluation.arms import Pair, costs

Levels = NDArray[np.int64]  # level of each row, from 0

LEVELS = 10  # maximum


def curve(pairs: Sequence[Pair], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Return one entry per level of the target, ascending.

    A level is one distinct target, or a tenth of the samples if there are more than ten targets.
    """
    targets = np.array([pair.target for pair in pairs])
    levels = levels_of(targets)
    prompts = [pair.prompt for pair in pairs]
    actual = np.array([pair.actual for pair in pairs])
    given = _means(prompts, actual, levels, bootstrap)
    enough = _means(prompts, np.array([float(pair.enough) for pair in pairs]), levels, bootstrap)
    gold = _gold(pairs, levels, bootstrap)
    entries = []
    for level in range(int(levels.max()) + 1):
        members = np.flatnonzero(levels == level).tolist()
        low, high = np.percentile(actual[members], [10, 90])
        rows = [pairs[i].row for i in members]
        entry = {
            "asked": float(targets[members].mean()),
            "n": len(members),
            "actual": given[level],
            "p10": float(low),
            "p90": float(high),
            "at_least": enough[level],
            **costs(rows),
        }
        entries.append(entry | ({"gold": gold[level]} if level in gold else {}))
    return entries


def levels_of(targets: Floats, most: int = LEVELS) -> Levels:
    """Return the level of each target, from 0. Equal targets share a level; there are at most `most` levels."""
    distinct, level_of_row = np.unique(targets, return_inverse=True)
    if len(distinct) <= most:
        return level_of_row
    edges = np.unique(np.quantile(targets, np.arange(1, most) / most))
    return np.unique(np.searchsorted(edges, targets, "right"), return_inverse=True)[1]


def _means(prompts: Sequence[str], values: Floats, levels: Levels, bootstrap: Bootstrap) -> dict[int, Interval]:
    """Return the mean of each level with its interval."""
    there = sorted(set(levels.tolist()))

    def measure(times: Floats) -> dict[str, Floats]:
        means = level_means(times, values, levels, there)
        return {str(level): means[:, i] for i, level in enumerate(there)}

    return {int(level): mean for level, mean in clustered(prompts, measure, bootstrap).items()}


def level_means(times: Floats, values: Floats, levels: Levels, wanted: Sequence[int]) -> Floats:
    """Return the mean of each wanted level in each draw [draws, wanted]; NaN if a draw has no row of the level."""
    member = (levels[:, None] == np.array(wanted)).astype(float)  # [rows, wanted]
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Floats = (times @ (member * values[:, None])) / (times @ member)
    return means


def _gold(pairs: Sequence[Pair], levels: Levels, bootstrap: Bootstrap) -> dict[int, Interval]:
    known = {i: pair.gold for i, pair in enumerate(pairs) if pair.gold is not None}
    if not known:
        return {}
    prompts = [pairs[i].prompt for i in known]
    return _means(prompts, np.array(list(known.values())), levels[list(known)], bootstrap)
