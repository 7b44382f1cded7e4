"""Training curves: loss in training and on held-out prompts, and steering information."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import TrainingRun

INPUT = "training"
CAPTION = (
    "Training: loss on completion tokens (for a reward model, on pairs), in training and on held-out prompts; and"
    " steering information, the nats that each reward line tells about a held-out completion (0: the line is ignored)."
)

_CURVES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "loss": ("training", {"color": style.BLUE, "linestyle": style.SOLID}),
    "validation_loss": ("held-out prompts", {"color": style.ORANGE, "linestyle": style.DASHED, "marker": "o"}),
}
_STEERING, _INFORMATION = "steering/", "/information"


def draw(run: TrainingRun) -> Figure:
    """Return one figure."""
    rows = run.rows
    measured = _measured(rows)
    figure, (axis, *others) = style.panels(2 if measured else 1, width=5.2 if measured else 6.0, height=4.2)
    for key, (label, look) in _CURVES.items():
        curve = [(row["step"], row[key]) for row in rows if key in row]
        if curve:
            axis.plot(*zip(*curve, strict=True), markersize=5, linewidth=2, label=label, **look)
    axis.set(xlabel="step", ylabel=run.unit, title=style.short(run.name))
    style.legend_below(axis, columns=2)
    for other in others:
        _draw_steering(other, rows, measured)
    return figure


def _measured(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rewards with steering information, or `joint` if only that of all rewards was measured."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith(_STEERING) and key.endswith(_INFORMATION))
    kinds = [key.removeprefix(_STEERING).removesuffix(_INFORMATION) for key in keys]
    single = [kind for kind in kinds if kind not in ("joint", "sibling")]
    return single or [kind for kind in kinds if kind == "joint"]


def _draw_steering(axis: Any, rows: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> None:
    """Draw the steering information of each reward over the steps, with its interval."""
    axis.axhline(0, color=style.GREY, linewidth=1)
    for number, kind in enumerate(kinds):
        key = f"{_STEERING}{kind}"
        curve = [row for row in rows if f"{key}{_INFORMATION}" in row]
        steps = [row["step"] for row in curve]
        look = style.numbered(number)
        label = "all rewards" if kind == "joint" else style.short(kind)
        axis.plot(steps, [row[f"{key}{_INFORMATION}"] for row in curve], linewidth=2, markersize=6, label=label, **look)
        ends = [[row[f"{key}/{end}"] for row in curve] for end in ("low", "high")]
        axis.fill_between(steps, *ends, color=look["color"], alpha=0.15, linewidth=0)
    axis.set(xlabel="step", ylabel="nats per completion", title="steering information")
    axis.set_xlim(left=0)
    style.legend_below(axis, columns=2)
