"""Trade-offs: the actual rewards of each weighting of two rewards, and the front."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "Trade-off: actual rewards of each weighting, with 95% intervals. A line joins the weightings on the front,"
    " selected on one half of the prompts; hypervolume is measured on the other half."
)

_LEGEND_LINE = 0.3  # inches
_MOST = 3  # rewards whose pairs are drawn; the profile shows more
_LABELS = 12  # most labelled weightings

Pair = tuple[str, str]
Point = tuple[Mapping[str, float], dict[str, Any]]  # a weighting and the metrics of a policy for it


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure: a panel for each pair of rewards, in standard deviations of the data."""
    names = list(dict.fromkeys(name for mix in evaluation["tradeoff"] for name in mix["weights"]))
    pairs = list(itertools.combinations(names, 2)) if len(names) <= _MOST else []
    drawn = [pair for pair in pairs if any(_points(evaluation, key, pair) for key in evaluation["policies"])]
    if not drawn:
        return None
    width, columns = (6.2, 1) if len(drawn) == 1 else (4.8, 2)
    height = 4.2 + _LEGEND_LINE * len(evaluation["policies"])  # the axes keep their height with a long legend
    figure, axes = style.panels(len(drawn), width=width, height=height, columns=columns)
    handles: dict[str, Any] = {}
    for pair, axis in zip(drawn, axes, strict=True):
        _panel(axis, evaluation, pair, handles)
    style.legend_under(figure, handles)
    return figure


def _points(evaluation: Mapping[str, Any], key: str, pair: Pair) -> list[Point]:
    """Return the points of a policy. A baseline with the same samples for every weighting has one point."""
    points: dict[tuple[float, ...], Point] = {}
    for weights, arm in style.weightings(evaluation, key):
        if all(name in arm["rewards"] for name in pair):
            points.setdefault(tuple(arm["rewards"][name]["value"] for name in pair), (weights, arm))
    return list(points.values())


def _panel(axis: Any, evaluation: Mapping[str, Any], pair: Pair, handles: dict[str, Any]) -> None:
    mean = axis.scatter([0], [0], marker="+", s=130, color=style.INK, linewidths=2)
    labelled: set[str] = set()
    for key, look in style.looks(evaluation["policies"]).items():
        points = _points(evaluation, key, pair)
        if not points:
            continue
        drawn = _arm(axis, look, points, pair, _chosen(evaluation, key, pair))
        handles.setdefault(_arm_label(evaluation, key, look, points), drawn)
        if look.steered:
            _label(axis, points, pair, labelled)
    axis.margins(0.14)
    x, y = (f"{style.short(name)}, sd above the data mean" for name in pair)
    axis.set(xlabel=x, ylabel=y)
    handles.setdefault("mean of the data", mean)
    _reference(axis, evaluation, pair, handles)


def _arm(axis: Any, look: style.Look, points: Sequence[Point], pair: Pair, chosen: Sequence[Any]) -> Any:
    """Draw the points of a policy, hollow if they are not on its front, and join the front."""
    front = []
    drawn = None
    for weights, arm in points:
        first, second = (arm["rewards"][name] for name in pair)
        hollow = bool(chosen) and weights not in chosen
        if weights in chosen:
            front.append((first["value"], second["value"]))
        mark = {**look.joined, "linestyle": "", "markersize": 9, "elinewidth": 1.2, "capsize": 2.5}
        mark["markerfacecolor"] = "white" if hollow else look.colour
        bars = {"xerr": style.whiskers([first]), "yerr": style.whiskers([second])}
        handle = axis.errorbar([first["value"]], [second["value"]], **bars, **mark)
        drawn = handle if drawn is None or not hollow else drawn
    if len(front) > 1:
        axis.plot(*zip(*sorted(front), strict=True), color=look.colour, linestyle=look.line, linewidth=1.6, zorder=1)
    return drawn


def _chosen(evaluation: Mapping[str, Any], key: str, pair: Pair) -> list[Mapping[str, float]]:
    """Return the weightings on the front of a policy, if it is a front of these two rewards."""
    if set(evaluation["fronts"].get("rewards", [])) != set(pair):
        return []
    arms = [arm for arm in evaluation["fronts"].get("arms", []) if arm["policy"] == key]
    return [point["weights"] for arm in arms for point in arm["points"] if point["chosen"]]


def _arm_label(evaluation: Mapping[str, Any], key: str, look: style.Look, points: Sequence[Point]) -> str:
    counts = [arm["n"] for _, arm in points]
    label = f"{look.label}, n = {min(counts):,} per weighting"
    volumes = [arm["hypervolume"] for arm in evaluation["fronts"].get("arms", []) if arm["policy"] == key]
    return label + "".join(f"; hypervolume {style.shown(volume)}" for volume in volumes if style.measured(volume))


def _label(axis: Any, points: Sequence[Point], pair: Pair, labelled: set[str]) -> None:
    """Write each weighting beside its point, once per panel."""
    for weights, arm in points[:: -(-len(points) // _LABELS)]:
        text = style.ratio(weights)
        if text not in labelled:
            labelled.add(text)
            position = tuple(arm["rewards"][name]["value"] for name in pair)
            axis.annotate(text, position, textcoords="offset points", xytext=(9, 8), fontsize=11)


def _reference(axis: Any, evaluation: Mapping[str, Any], pair: Pair, handles: dict[str, Any]) -> None:
    """Draw the reference point of the hypervolume if it is in view, and add it to the legend."""
    reference = evaluation["fronts"].get("reference", {})
    if not all(name in reference for name in pair):
        return
    x, y = (reference[name] for name in pair)
    limits = axis.get_xlim(), axis.get_ylim()
    mark = axis.scatter([x], [y], marker="x", s=80, color=style.GREY, linewidths=2)
    axis.set(xlim=limits[0], ylim=limits[1])
    label = ", ".join(f"{reference[name]:.3g}" for name in reference).replace("-", "−")
    handles.setdefault(f"reference point ({label})", mark)
