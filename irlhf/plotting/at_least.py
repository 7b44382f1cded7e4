"""The share of samples that reach at least their target, by level of the target."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "Share of samples with at least the requested reward, by level of the target, with 95% intervals. Low targets are"
    " easy to reach without steering; compare the policies at the same target."
)

_NEAR = 0.04  # of the range of targets; nearer levels share a position


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure, a panel for each reward, bars for each policy."""
    drawn = style.followed(evaluation)
    if not drawn:
        return None
    lines = max(len(arms) for arms in drawn.values())
    columns = 1 if len(drawn) <= 4 else 2
    figure, axes = style.panels(len(drawn), width=7.4, height=3.2 + 0.22 * lines, columns=columns)
    for (reward, arms), axis in zip(drawn.items(), axes, strict=True):
        _panel(axis, reward, arms)
    return figure


def _panel(axis: Any, reward: str, arms: Sequence[style.Arm]) -> None:
    levels, placed = _places([[level["asked"] for level in metrics["curve"]] for _, metrics in arms])
    width = 0.84 / len(arms)
    for i, (look, metrics) in enumerate(arms):
        places = [position + (i + 0.5) * width - 0.42 for position in placed[i]]
        shares = [level["at_least"] for level in metrics["curve"]]
        bars = {
            "color": look.colour,
            "hatch": style.HATCHES[i % len(style.HATCHES)],
            "edgecolor": "white",
            "linewidth": 0.6,
        }
        least = metrics["at_least"]
        share = f"{style.shown(least['share'])} of {metrics['n']:,}"
        label = f"{look.label}: {share} (without steering: {least['floor_permuted']:.2f})"
        axis.bar(places, [level["value"] for level in shares], width, label=label, **bars)
        whiskers = {"fmt": "none", "ecolor": style.INK, "elinewidth": 1, "capsize": 1.5}
        axis.errorbar(places, [level["value"] for level in shares], yerr=style.whiskers(shares), **whiskers)
    axis.set_xticks(range(len(levels)), [style.number(level) for level in levels])
    axis.set(ylim=(0, 1.02), title=style.short(reward), xlabel="target", ylabel="samples at or above it")
    axis.grid(visible=False, axis="x")
    style.legend_below(axis)


def _places(curves: Sequence[Sequence[float]]) -> tuple[list[float], list[list[int]]]:
    """Return the positions on the axis of targets, and the position of each level of each curve.

    Policies with nearly equal levels share positions; otherwise nearby levels are merged.
    """
    if len({len(curve) for curve in curves}) == 1:
        ranks = list(zip(*curves, strict=True))
        apart = (max(curves[0]) - min(curves[0])) / len(ranks)
        if all(max(rank) - min(rank) <= apart for rank in ranks):
            return [sum(rank) / len(rank) for rank in ranks], [list(range(len(ranks)))] * len(curves)
    all_levels = sorted(level for curve in curves for level in curve)
    levels = all_levels[:1]
    for level in all_levels:
        if level > levels[-1] + _NEAR * (all_levels[-1] - all_levels[0]):
            levels.append(level)
    nearest = np.abs(np.subtract.outer(all_levels, levels)).argmin(axis=1)
    index_of = dict(zip(all_levels, nearest.tolist(), strict=True))
    return levels, [[index_of[level] for level in curve] for curve in curves]
