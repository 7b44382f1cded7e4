"""Paired differences between two policies on the same prompts, as a forest plot."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "Paired differences on the same prompts, first policy minus second, with 95% intervals;"
    " filled if the interval excludes 0."
)

# Titles of the metrics, with the side of 0 that is better for the first policy.
_FIGURES = {
    "within": "rank correlation within prompts (→ better)",
    "error": "mean absolute error (← better)",
    "weighted": "weighted reward, sd (→ better)",
    "gold": "gold (→ better)",
    "tokens": "tokens per completion",
}

Row = tuple[str, dict[str, float]]  # label and difference


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure, a panel for each metric, a row for each pair of policies and reward."""
    kinds: dict[str, list[Row]] = {}
    for pair in evaluation["comparisons"]:
        for paired_figure in pair["figures"]:
            if style.measured(paired_figure["difference"]):
                kinds.setdefault(paired_figure["figure"], []).append(
                    (_row_label(evaluation, pair, paired_figure), paired_figure["difference"])
                )
    if not kinds:
        return None
    heights = [len(rows) + 2.6 for rows in kinds.values()]
    width = 4.2 + 0.085 * max(len(label) for rows in kinds.values() for label, _ in rows)
    figure, axes = style.panels(len(kinds), width=width, height=0.3 * sum(heights) / len(kinds), columns=1)
    axes[0].get_subplotspec().get_gridspec().set_height_ratios(heights)
    for (kind, rows), axis in zip(kinds.items(), axes, strict=True):
        _panel(axis, _FIGURES.get(kind, style.short(kind)), rows)
    return figure


def _row_label(evaluation: Mapping[str, Any], pair: Mapping[str, Any], figure: Mapping[str, Any]) -> str:
    labels = style.looks(evaluation["policies"])
    names = [labels[pair[side]].label if pair[side] in labels else pair[side] for side in ("policy", "against")]
    reward = f"{style.short(style.compared(figure))}: " if figure["reward"] else ""
    return f"{reward}{' − '.join(names)}, {figure['prompts']:,} prompts"


def _panel(axis: Any, title: str, rows: Sequence[Row]) -> None:
    axis.axvline(0, color=style.INK, linewidth=1.2)
    for i, (_, figure) in enumerate(rows):
        sure = figure["low"] > 0 or figure["high"] < 0
        colour = style.BLUE if sure else style.GREY
        look = {"color": colour, "marker": "o" if sure else "s", "markerfacecolor": colour if sure else "white"}
        axis.errorbar([figure["value"]], [i], xerr=style.whiskers([figure]), capsize=3, markersize=7, **look)
    axis.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=11)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_title(title, loc="left", fontsize=12)
    axis.grid(visible=False, axis="y")
    axis.margins(x=0.08)
    axis.locator_params(axis="x", nbins=7)
