"""The price of a reward: how entropy falls, and how far the policy moves from its reference, as reward rises."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import formatting, style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "The price: entropy (nats a token) and distance from the reference model (KL, nats a completion) against the"
    " reward that was given, with its 95% interval. A bar is what entropy lies between where only the likeliest tokens"
    " are known, a triangle where it begins. Numbers beside points are the lowest and highest target or weights."
)

_COSTS = {"entropy": "entropy, nats a token", "kl": "KL, nats a completion"}


@dataclass(frozen=True)
class _Panel:
    """What one panel shows: for each look, a line of rewards and what they cost."""

    title: str
    given: str  # the label of the axis of rewards
    cost: str
    lines: Sequence[tuple[style.Look, list[tuple[dict[str, float], float, str]]]]
    joined: bool = True
    bars: Sequence[tuple[style.Look, list[tuple[float, float, float | None]]]] = ()  # rewards, and from where to where

    @property
    def drawable(self) -> bool:
        """Whether anything was measured."""
        return any(line for _, line in [*self.lines, *self.bars])


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure, a panel for each reward, and for the mixes, and for each cost that was measured."""
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
        panels.append(_Panel(style.short(reward), "reward given", cost, lines, bars=bars))
    looks = style.looks(evaluation["policies"])
    lines = [(look, _mixes(evaluation, key, cost)) for key, look in looks.items()]
    given = "weighted reward, sd above the data's mean"
    bars = [(look, _bars([arm for _, arm in _arms(evaluation, key)], "weighted", cost)) for key, look in looks.items()]
    return [*panels, _Panel("mixes", given, cost, lines, joined=False, bars=bars)]


def _bars(entries: Sequence[Mapping[str, Any]], given: str, cost: str) -> list[tuple[float, float, float | None]]:
    """Return what the cost lies between where it is not known itself: the reward, the low and the high end."""
    low, high = f"{cost}_low", f"{cost}_high"
    return [
        (entry[given]["value"], entry[low], entry.get(high))
        for entry in entries
        if entry.get(cost) is None and entry.get(low) is not None
    ]


def _arms(evaluation: Mapping[str, Any], key: str) -> list[tuple[Mapping[str, float], Mapping[str, Any]]]:
    """Return each weighting with what the arm brought."""
    return [(mix["weights"], arm) for mix in evaluation["tradeoff"] for arm in mix["arms"] if arm["policy"] == key]


def _curve(metrics: Mapping[str, Any], cost: str) -> list[tuple[dict[str, float], float, str]]:
    priced = [level for level in metrics["curve"] if level.get(cost) is not None]
    ends = (priced[0]["asked"], priced[-1]["asked"]) if priced else ()
    return [
        (level["actual"], level[cost], f"{level['asked']:.2g}" if level["asked"] in ends else "") for level in priced
    ]


def _mixes(evaluation: Mapping[str, Any], key: str, cost: str) -> list[tuple[dict[str, float], float, str]]:
    """Return the arm's weightings from the least weighted reward to the most."""
    priced = [(arm, formatting.ratio(weights)) for weights, arm in _arms(evaluation, key) if arm.get(cost) is not None]
    priced.sort(key=lambda entry: float(entry[0]["weighted"]["value"]))
    ends = {priced[0][1], priced[-1][1]} if priced else set()
    return [(arm["weighted"], arm[cost], ratio if ratio in ends else "") for arm, ratio in priced]


def _draw(axis: Any, panel: _Panel, handles: dict[str, Any]) -> None:
    for look, line in panel.lines:
        if not line:
            continue
        figures, costs, labels = zip(*line, strict=True)
        values = [figure["value"] for figure in figures]
        # Where the reward does not follow its target, a line would be a scribble.
        marks = look.joined if panel.joined and look.steered else {**look.joined, "linestyle": ""}
        drawn = axis.errorbar(values, costs, xerr=style.whiskers(figures), capsize=2.5, **marks)
        handles.setdefault(look.label, drawn)
        for point in zip(values, costs, labels, strict=True) if look.steered else ():
            axis.annotate(point[2], point[:2], textcoords="offset points", xytext=(4, 7), fontsize=10)
    for look, bars in panel.bars:
        _draw_bars(axis, look, bars, handles)
    axis.set(title=panel.title, xlabel=panel.given, ylabel=_COSTS[panel.cost])
    axis.margins(0.12)


def _draw_bars(
    axis: Any, look: style.Look, bars: Sequence[tuple[float, float, float | None]], handles: dict[str, Any]
) -> None:
    """Draw from where to where, or from where on."""
    for given, low, high in bars:
        open_ended = {"marker": "^", "markersize": 6} if high is None else {"linewidth": 5, "solid_capstyle": "butt"}
        (drawn,) = axis.plot(
            [given] * 2, [low, low if high is None else high], color=look.colour, alpha=0.5, **open_ended
        )
        handles.setdefault(look.label, drawn)


def _labelled_with_costs(evaluation: Mapping[str, Any], handles: Mapping[str, Any]) -> dict[str, Any]:
    """Return the handles under labels that say each policy's mean costs."""
    labels = style.looks(evaluation["policies"])
    labelled = {}
    for key, policy in evaluation["policies"].items():
        label = labels[key].label
        if label in handles:
            labelled["; ".join([f"{label}, n = {policy['samples']:,}", *_costs(policy)])] = handles[label]
    return labelled


def _costs(policy: Mapping[str, Any]) -> Iterator[str]:
    between = policy.get("entropy_between")
    if formatting.measured(policy["entropy"]):
        yield f"entropy {formatting.shown(policy['entropy'])}"
    elif isinstance(between, Mapping):
        yield f"entropy {formatting.between(between)}"
    if formatting.measured(policy["kl"]):
        yield f"KL {formatting.shown(policy['kl'])}"
