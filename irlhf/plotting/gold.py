"""Gold against proxy rewards along the target."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "Gold against proxy along the target: above, the proxy reward, which was in the prompt; below, the gold reward,"
    " which was not. If gold falls while the proxy rises, the proxy is over-optimised."
)


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure: for each reward with gold, the proxy above the gold over the same targets."""
    drawn = {}
    for reward in style.rewards_of(evaluation):
        arms = [(look, metrics) for look, metrics in style.arms(evaluation, reward) if _gold_levels(metrics)]
        if arms:
            drawn[reward] = arms
    if not drawn:
        return None
    columns = min(2, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    lines = max(len(arms) for arms in drawn.values())
    figure = Figure(figsize=(4.8 * columns, (5.6 + 0.4 * lines) * rows), layout="constrained")
    places = figure.subfigures(rows, columns, squeeze=False).flat
    for (reward, arms), subfigure in zip(drawn.items(), places, strict=False):
        _pair(subfigure, reward, arms)
    return figure


def _gold_levels(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    return [level for level in metrics["curve"] if style.measured(level.get("gold"))]


def _pair(subfigure: Any, reward: str, arms: Sequence[style.Arm]) -> None:
    above, below = subfigure.subplots(2, 1, sharex=True)
    for look, metrics in arms:
        levels = _gold_levels(metrics)
        targets = [level["asked"] for level in levels]
        for axis, kind, label in ((above, "actual", ""), (below, "gold", f"{look.label}\n{_summary(metrics)}")):
            figures = [level[kind] for level in levels]
            values = [level["value"] for level in figures]
            axis.errorbar(targets, values, yerr=style.whiskers(figures), capsize=2.5, label=label, **look.joined)
        peak = metrics.get("gold", {}).get("over", {}).get("peak")
        if peak is not None and look.steered:
            _mark(above, below, look, peak)
    above.set(title=style.short(reward), ylabel="proxy reward")
    negated = ", negated" * any(metrics.get("direction") == "lower" for _, metrics in arms)  # by `irlhf eval`
    below.set(xlabel="target", ylabel=f"gold reward, own units{negated}")
    style.legend_below(below)


def _mark(above: Any, below: Any, look: style.Look, peak: float) -> None:
    """Mark the target with the highest gold in both panels."""
    for axis in (above, below):
        axis.axvline(peak, color=look.colour, linewidth=1.4, linestyle=style.DOTTED)
    label = {"transform": below.get_xaxis_transform(), "ha": "center", "va": "bottom", "fontsize": 10.5}
    below.text(peak, 1.01, "gold peaks", color=style.INK, **label)


def _summary(metrics: dict[str, Any]) -> str:
    gold = metrics.get("gold", {})
    over = gold.get("over", {})
    n = f"n = {gold.get('n', metrics['n']):,}"
    if not over:
        return n
    if over["peak"] >= over["top"]:
        return f"{n}; highest at the highest target"
    return f"{n}; peak at {over['peak']:.2f}, then falls by {style.shown(over['fall'])}"
