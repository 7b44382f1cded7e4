"""Target against actual reward: samples, and the mean of each level with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation
from irlhf.policy.scales import WITHIN

INPUT = "evaluation"
CAPTION = (
    "Target against actual reward: mean of each level of the target with its 95% interval. Dots are samples, the band"
    " contains 80% of them; the dotted line is the best constant."
)

_UNITS = {
    "quantile": "share of training rows below",
    "zscore": "sd above the training mean",
    "linear": "0 to 1 of the training range",
    WITHIN: "rank among the samples of a prompt",
}
_CLOUDS = 2  # policies whose samples are shown; more would hide each other


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure, a panel for each reward, every policy in each."""
    drawn = style.followed(evaluation)
    return figure(drawn, _CLOUDS) if drawn else None


def figure(drawn: Mapping[str, Sequence[style.Arm]], clouds: int) -> Figure:
    """Return a panel for each reward, a line for each arm, and the samples of the first `clouds` arms."""
    lines = max(len(arms) for arms in drawn.values())
    made, axes = style.panels(len(drawn), width=4.8, height=5.2 + 0.43 * lines)
    for (reward, arms), axis in zip(drawn.items(), axes, strict=True):
        steered = [look for look, _ in arms if look.steered] or [arms[0][0]]
        _panel(axis, reward, arms, steered[:clouds])
    return made


def _panel(axis: Any, reward: str, arms: Sequence[style.Arm], clouds: Sequence[style.Look]) -> None:
    ends = _ends(arms)
    axis.plot(ends, ends, color=style.INK, linewidth=1, linestyle=style.DASHED, label="actual = target")
    for look, metrics in arms:
        if look in clouds:
            _cloud(axis, look, metrics)
        _line(axis, look, metrics)
    look, metrics = arms[0]
    label = f"best constant: error {metrics['error']['floor_constant']:.3f}"
    levels = [level["asked"] for level in metrics["curve"]]
    # The median target is the best constant.
    middle = float(np.median(np.repeat(levels, [level["n"] for level in metrics["curve"]]))) if levels else 0.0
    axis.axhline(middle, color=style.GREY, linewidth=1.5, linestyle=style.DOTTED, label=label)
    unit = _UNITS.get(metrics["scale"], "")
    xlabel = f"target ({unit})" if unit else "target"
    axis.set(xlim=ends, ylim=ends, title=style.short(reward), xlabel=xlabel, ylabel="actual reward")
    axis.set_aspect("equal", anchor="S")  # at the bottom, where the layout expects the legend
    style.legend_below(axis)


def _cloud(axis: Any, look: style.Look, metrics: dict[str, Any]) -> None:
    """Draw the samples and the band from the 10th to the 90th percentile."""
    if metrics["points"]:
        targets, actual = np.array(metrics["points"]).T
        axis.scatter(targets, actual, s=7, color=look.colour, alpha=0.14, linewidths=0, rasterized=True)
    levels = [level["asked"] for level in metrics["curve"]]
    edges = [[level[edge] for level in metrics["curve"]] for edge in ("p10", "p90")]
    axis.fill_between(levels, *edges, color=look.colour, alpha=0.16, linewidth=0)


def _line(axis: Any, look: style.Look, metrics: dict[str, Any]) -> None:
    means = [level["actual"] for level in metrics["curve"]]
    levels = [level["asked"] for level in metrics["curve"]]
    values = [mean["value"] for mean in means]
    label = f"{look.label}, n = {metrics['n']:,}\n{_summary(metrics)}"
    axis.errorbar(levels, values, yerr=style.whiskers(means), capsize=2.5, label=label, **look.joined)


def _summary(metrics: dict[str, Any]) -> str:
    kind = next((kind for kind in ("within", "pooled") if "spearman" in metrics[kind]), "")
    where = {"within": " within prompts", "pooled": " pooled"}.get(kind, "")
    rho = style.shown(metrics[kind]["spearman"]) if kind else "not available"
    return f"ρ {rho}{where}; error {metrics['error']['mean_absolute']['value']:.3f}"


def _ends(arms: Sequence[style.Arm]) -> tuple[float, float]:
    """Return the range of both axes: all levels, and 98% of the samples."""
    seen: list[float] = []
    for _, metrics in arms:
        seen += [level["asked"] for level in metrics["curve"]] + [
            level["actual"]["value"] for level in metrics["curve"]
        ]
        if metrics["points"]:
            seen += np.percentile(np.array(metrics["points"]), [1, 99], axis=0).ravel().tolist()
    if all(metrics["scale"] in ("quantile", WITHIN) for _, metrics in arms):
        seen += [0.0, 1.0]
    margin = 0.03 * (max(seen) - min(seen)) or 0.5
    return min(seen) - margin, max(seen) + margin
