"""Cross-talk: the change of each reward when the target of another one changes."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "Cross-talk: change of a column's reward when a row's target rises by 1 and the other targets stay constant, with"
    " 95% intervals. Ideal is 1 on the diagonal and 0 elsewhere."
)

_INTERVALS = 6  # most rewards with room for intervals in the cells


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure, a panel for each policy."""
    looks = style.looks(evaluation["policies"])
    drawn = {key: policy["crosstalk"] for key, policy in evaluation["policies"].items() if policy["crosstalk"]}
    if not drawn:
        return None
    most = max(len(metrics[side]) for metrics in drawn.values() for side in ("targets", "rewards"))
    size = (1.15 if most <= _INTERVALS else 0.62) * most
    figure, axes = style.panels(len(drawn), width=size + 1.8, height=size + 1.3, columns=2 if most < 5 else 1)
    values = [cell["value"] for metrics in drawn.values() for row in metrics["slopes"] for cell in row]
    reach = max(1.0, *(abs(value) for value in values))
    for (key, metrics), axis in zip(drawn.items(), axes, strict=True):
        heat = _panel(axis, metrics, reach)
        axis.set_title(f"{looks[key].label}, n = {metrics['n']:,}", pad=10)
    style.heat_key(figure, axes, heat)
    return figure


def _panel(axis: Any, metrics: dict[str, Any], reach: float) -> Any:
    slopes = metrics["slopes"]
    heat = style.heat(axis, [[cell["value"] for cell in row] for row in slopes], reach)
    targets, rewards = metrics["targets"], metrics["rewards"]
    for i, j in np.ndindex(len(targets), len(rewards)):
        cell = slopes[i][j]
        under = style.shown(cell).partition(" ")[2] if max(len(targets), len(rewards)) <= _INTERVALS else ""
        style.write_cell(axis, (i, j), cell["value"], reach, under)
    style.name_cells(axis, *([style.short(name, 16) for name in names] for names in (targets, rewards)))
    axis.set(xlabel="actual reward", ylabel="target changed")
    return heat
