"""Preference pairs: accuracy of each reward on the chosen completions, and calibration of its probabilities."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "Preference pairs: how often each reward prefers the chosen completion, beside always preferring the longer or the"
    " shorter one, with 95% intervals; and how often a reward model is right, by its predicted probability."
)

_RULES = {"longer": ("^", "always the longer"), "shorter": ("v", "always the shorter")}
_ROW = 0.62  # inches
_LEGEND_LINE = 0.25  # inches

Measured = tuple[str, dict[str, Any]]  # reward and its metrics


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure: a row for each reward, and a panel of reliability if it was measured."""
    pairs = evaluation["pairs"]
    if not pairs:
        return None
    rewards = [(style.short(name), metrics) for name, metrics in pairs["rewards"].items()]
    rewards += [(f"gold {style.short(name)}", metrics) for name, metrics in pairs["gold"].items()]
    calibrated = [(name, metrics) for name, metrics in rewards if "calibration" in metrics]
    height = max(5.2 + _LEGEND_LINE * len(calibrated) if calibrated else 0, _ROW * len(rewards) + 2.2)
    figure, axes = style.panels(1 + bool(calibrated), width=6.0, height=height, columns=2)
    _accuracy(axes[0], rewards)
    for axis in axes[1:]:
        _reliability(axis, calibrated)
    return figure


def _accuracy(axis: Any, rewards: Sequence[Measured]) -> None:
    rows = range(len(rewards))
    axis.axvline(50, color=style.INK, linewidth=1, linestyle=style.DASHED, label="chance")
    shown = {"accuracy": {"marker": "o", "color": style.BLUE, "label": "the reward", "markersize": 8}}
    for rule, (marker, label) in _RULES.items():
        shown[rule] = {"marker": marker, "color": style.GREY, "label": label, "markersize": 6}
    for i, (kind, look) in enumerate(shown.items()):
        figures = [{part: 100 * share for part, share in metrics[kind].items()} for _, metrics in rewards]
        places = [row + 0.2 * (i - 1) for row in rows]
        whiskers = style.whiskers(figures)
        axis.errorbar([metrics["value"] for metrics in figures], places, xerr=whiskers, capsize=3, linestyle="", **look)
    axis.set_yticks(rows, [f"{name}\nn = {metrics['n']:,}" for name, metrics in rewards], fontsize=11)
    axis.set_ylim(len(rewards) - 0.4, -0.6)
    axis.set(xlabel="pairs with the chosen completion preferred, %", title="preference accuracy")
    axis.grid(visible=False, axis="y")
    style.legend_below(axis, columns=2)


def _reliability(axis: Any, rewards: Sequence[Measured]) -> None:
    axis.plot([0.5, 1], [0.5, 1], color=style.INK, linewidth=1, linestyle=style.DASHED, label="perfect calibration")
    for i, (name, metrics) in enumerate(rewards):
        calibration = metrics["calibration"]
        right = [part["right"] for part in calibration["bins"]]

        summary = f"log loss {style.shown(calibration['log_loss'])}, error {style.shown(calibration['ece'])}"
        axis.errorbar(
            [part["predicted"] for part in calibration["bins"]],
            [part["value"] for part in right],
            yerr=style.whiskers(right),
            capsize=2.5,
            label=f"{name}: {summary}",
            **style.numbered(i),
        )
    axis.set(xlabel="predicted probability of being chosen", ylabel="share chosen", title="calibration")
    style.legend_below(axis)
