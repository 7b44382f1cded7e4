"""Costs of steering: entropy and KL from the reference, against the actual reward."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "Costs: entropy (nats per token) and KL from the reference model (nats per completion) against the actual reward"
    " with its 95% interval. If only the top tokens are known, a bar shows the bounds of the entropy, and a triangle"
    " its lower bound. Labelled are the lowest and the highest target, and the mixes with the least and the greatest"
    " weight of the first reward."
)

_LABEL = (0.16, 0.13)  # half the width, and the height with its distance to the point, of a label in a panel
_COSTS = {"entropy": "entropy, nats per token", "kl": "KL, nats per completion"}


@dataclass(frozen=True)
class _Panel:
    """The content of one panel: for each look, a line of rewards and costs."""

    title: str
    xlabel: str
    cost: str
    lines: Sequence[tuple[style.Look, list[tuple[dict[str, float], float, str]]]]
    bars: Sequence[tuple[style.Look, list[tuple[float, float, float | None]]]] = ()  # reward, lower and upper bound

    @property
    def drawable(self) -> bool:
        """Whether anything was measured."""
        return any(line for _, line in [*self.lines, *self.bars])


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure, a panel for each measured cost of each reward, and of the mixes."""
    costs = [cost for cost in _COSTS if any(panel.drawable for panel in _panels(evaluation, cost))]
    panels = [panel for both in zip(*(_panels(evaluation, cost) for cost in costs), strict=True) for panel in both]
    panels = [panel for panel in panels if panel.drawable]
    if not panels:
        return None
    figure, axes = style.panels(len(panels), width=4.6, height=3.7, columns=2)
    handles: dict[str, Any] = {}
    for panel, axis in zip(panels, axes, strict=True):
        _draw(axis, panel, handles)
    style.legend_under(figure, _labelled_with_costs(evaluation, handles))
    return figure


def _panels(evaluation: Mapping[str, Any], cost: str) -> list[_Panel]:
    panels = []
    for reward in style.rewards_of(evaluation):
        arms = style.arms(evaluation, reward)
        lines = [(look, _curve(metrics, cost)) for look, metrics in arms]
        bars = [(look, _bars(metrics["curve"], "actual", cost)) for look, metrics in arms]
        panels.append(_Panel(style.short(reward), "actual reward", cost, lines, bars))
    looks = style.looks(evaluation["policies"])
    lines = [(look, _mixes(evaluation, key, cost)) for key, look in looks.items()]
    xlabel = "weighted reward, sd above the data mean"
    bars = [
        (look, _bars([arm for _, arm in style.weightings(evaluation, key)], "weighted", cost))
        for key, look in looks.items()
    ]
    return [*panels, _Panel("mixes", xlabel, cost, lines, bars)]


def _bars(entries: Sequence[Mapping[str, Any]], given: str, cost: str) -> list[tuple[float, float, float | None]]:
    """Return reward, lower and upper bound of the entries without an exact cost."""
    low, high = f"{cost}_low", f"{cost}_high"
    return [
        (entry[given]["value"], entry[low], entry.get(high))
        for entry in entries
        if entry.get(cost) is None and entry.get(low) is not None
    ]


def _curve(metrics: Mapping[str, Any], cost: str) -> list[tuple[dict[str, float], float, str]]:
    priced = [level for level in metrics["curve"] if level.get(cost) is not None]
    ends = (priced[0]["asked"], priced[-1]["asked"]) if priced else ()
    return [
        (level["actual"], level[cost], f"target {level['asked']:.2f}" if level["asked"] in ends else "")
        for level in priced
    ]


def _mixes(evaluation: Mapping[str, Any], key: str, cost: str) -> list[tuple[dict[str, float], float, str]]:
    """Return the weightings of a policy, from the least weight of the first reward to the greatest."""
    priced = [(weights, arm) for weights, arm in style.weightings(evaluation, key) if arm.get(cost) is not None]
    priced.sort(key=lambda entry: next(iter(entry[0].values())) / (sum(entry[0].values()) or 1))
    last = len(priced) - 1
    return [
        (arm["weighted"], arm[cost], style.ratio(weights) if i in (0, last) else "")
        for i, (weights, arm) in enumerate(priced)
    ]


def _draw(axis: Any, panel: _Panel, handles: dict[str, Any]) -> None:
    for look, line in panel.lines:
        if not line:
            continue
        figures, costs, _ = zip(*line, strict=True)
        values = [figure["value"] for figure in figures]
        marks = {**look.joined, "linestyle": ""}  # a line would connect the targets in an order that the axis has not
        drawn = axis.errorbar(values, costs, xerr=style.whiskers(figures), capsize=2.5, **marks)
        handles.setdefault(look.label, drawn)
    for look, bars in panel.bars:
        _draw_bars(axis, look, bars, handles)
    axis.set(title=panel.title, xlabel=panel.xlabel, ylabel=_COSTS[panel.cost])
    axis.margins(0.15, 0.2)
    _draw_labels(axis, panel)


def _draw_labels(axis: Any, panel: _Panel) -> None:
    """Label points of the steered policies: the last one below, the others above, unless another point is there."""
    points = [(figure["value"], cost) for _, line in panel.lines for figure, cost, _ in line]
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()

    def crowded(x: float, y: float, side: int) -> bool:
        near = (((a - x) / (right - left), side * (b - y) / (top - bottom)) for a, b in points)
        return any(abs(across) < _LABEL[0] and 0 < along < _LABEL[1] for across, along in near)

    for look, line in panel.lines:
        for i, (figure, cost, label) in enumerate(line if look.steered else ()):
            side = 1 if i < len(line) - 1 else -1
            if crowded(figure["value"], cost, side) and not crowded(figure["value"], cost, -side):
                side = -side
            text = {"ha": "center", "va": "center", "fontsize": 10.5}
            placement = {"textcoords": "offset points", "xytext": (0, 13 * side)}
            axis.annotate(label, (figure["value"], cost), **placement, **text)


def _draw_bars(
    axis: Any, look: style.Look, bars: Sequence[tuple[float, float, float | None]], handles: dict[str, Any]
) -> None:
    """Draw the bounds as bars, or as triangles without an upper bound."""
    for given, low, high in bars:
        open_ended = {"marker": "^", "markersize": 6} if high is None else {"linewidth": 5, "solid_capstyle": "butt"}
        (drawn,) = axis.plot(
            [given] * 2, [low, low if high is None else high], color=look.colour, alpha=0.5, **open_ended
        )
        handles.setdefault(look.label, drawn)


def _labelled_with_costs(evaluation: Mapping[str, Any], handles: Mapping[str, Any]) -> dict[str, Any]:
    """Return the handles by labels with the mean costs of each policy."""
    labels = style.looks(evaluation["policies"])
    labelled = {}
    for key, policy in evaluation["policies"].items():
        label = labels[key].label
        if label in handles:
            labelled["; ".join([f"{label}, n = {policy['samples']:,}", *_costs(policy)])] = handles[label]
    return labelled


def _costs(policy: Mapping[str, Any]) -> Iterator[str]:
    between = policy.get("entropy_between")
    if style.measured(policy["entropy"]):
        yield f"entropy {style.shown(policy['entropy'])}"
    elif isinstance(between, Mapping):
        yield f"entropy {style.between(between)}"
    if style.measured(policy["kl"]):
        yield f"KL {style.shown(policy['kl'])}"
