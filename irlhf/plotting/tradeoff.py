"""The trade-off: where each weighting of two rewards lands, and which of them make the front."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irlhf.plotting import eval_file, style

CAPTION = (
    "The trade-off: where each weighting lands, with 95% intervals. A line joins the weightings that one half of the"
    " prompts puts on the front; hypervolume is measured on the other half."
)

_LEGEND_LINE = 0.3  # inches
_MOST = 3  # rewards whose pairs are drawn; beyond them the profile says more
_LABELS = 12  # weightings that are labelled at most

Pair = tuple[str, str]
Point = tuple[Mapping[str, float], dict[str, Any]]  # a weighting and where an arm lands with it


def wants(path: Path, first: dict[str, Any]) -> bool:
    """Return whether this is an eval.json with mixes in it."""
    return eval_file.holds(first) and bool(first.get("tradeoff"))


def draw(path: Path) -> list[tuple[str, Any]]:
    """Return one figure: a panel for each pair of rewards, in standard deviations of the data."""
    found = eval_file.read(path)
    names = list(dict.fromkeys(name for mix in found["tradeoff"] for name in mix["weights"]))
    pairs = list(itertools.combinations(names, 2)) if len(names) <= _MOST else []
    drawn = [pair for pair in pairs if any(_points(found, key, pair) for key in found["policies"])]
    if not drawn:
        return []
    width, columns = (6.2, 1) if len(drawn) == 1 else (4.8, 2)
    height = 4.2 + _LEGEND_LINE * len(found["policies"])  # the axes keep their height under a long legend
    figure, axes = style.panels(len(drawn), width=width, height=height, columns=columns)
    handles: dict[str, Any] = {}
    for pair, axis in zip(drawn, axes, strict=True):
        _panel(axis, found, pair, handles)
    style.legend_under(figure, handles)
    return [("tradeoff", figure)]


def _points(found: Mapping[str, Any], key: str, pair: Pair) -> list[Point]:
    """Return where an arm lands with each weighting; what answers all with the same samples stands once."""
    arms = [(mix["weights"], arm) for mix in found["tradeoff"] for arm in mix["arms"] if arm["policy"] == key]
    points: dict[tuple[float, ...], Point] = {}
    for weights, arm in arms:
        if all(name in arm["rewards"] for name in pair):
            points.setdefault(tuple(arm["rewards"][name]["value"] for name in pair), (weights, arm))
    return list(points.values())


def _panel(axis: Any, found: Mapping[str, Any], pair: Pair, handles: dict[str, Any]) -> None:
    mean = axis.scatter([0], [0], marker="+", s=130, color=style.INK, linewidths=2)
    labelled: set[str] = set()
    for key, look in style.looks(found["policies"]).items():
        points = _points(found, key, pair)
        if not points:
            continue
        chosen = _chosen(found, key, pair)
        handles.setdefault(_arm_label(found, key, look, points), _arm(axis, look, points, (pair, chosen)))
        if look.steered:
            _label(axis, points, pair, labelled)
    axis.margins(0.14)
    x, y = pair
    axis.set(xlabel=f"{style.short(x)}, sd above the data's mean", ylabel=f"{style.short(y)}, sd above the data's mean")
    handles.setdefault("mean of the data", mean)
    _reference(axis, found, pair, handles)


def _arm(axis: Any, look: style.Look, points: Sequence[Point], told: tuple[Pair, Sequence[Any]]) -> Any:
    """Draw an arm's points, hollow where they are not on its front, and join the front."""
    pair, chosen = told
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
        one = axis.errorbar([first["value"]], [second["value"]], **bars, **mark)
        drawn = one if drawn is None or not hollow else drawn
    if len(front) > 1:
        axis.plot(*zip(*sorted(front), strict=True), color=look.colour, linestyle=look.line, linewidth=1.6, zorder=1)
    return drawn


def _chosen(found: Mapping[str, Any], key: str, pair: Pair) -> list[Mapping[str, float]]:
    """Return the weightings on an arm's front, where it is a front of just these two rewards."""
    if set(found["fronts"].get("rewards", [])) != set(pair):
        return []
    arms = [arm for arm in found["fronts"].get("arms", []) if arm["policy"] == key]
    return [point["weights"] for arm in arms for point in arm["points"] if point["chosen"]]


def _arm_label(found: Mapping[str, Any], key: str, look: style.Look, points: Sequence[Point]) -> str:
    counts = [arm["n"] for _, arm in points]
    label = f"{look.label}, n = {min(counts):,} a weighting"
    volumes = [arm["hypervolume"] for arm in found["fronts"].get("arms", []) if arm["policy"] == key]
    return label + "".join(f"; hypervolume {eval_file.shown(one)}" for one in volumes if eval_file.measured(one))


def _label(axis: Any, points: Sequence[Point], pair: Pair, labelled: set[str]) -> None:
    """Write each weighting beside its point, once in a panel."""
    for weights, arm in points[:: -(-len(points) // _LABELS)]:
        text = eval_file.ratio(weights)
        if text not in labelled:
            labelled.add(text)
            place = tuple(arm["rewards"][name]["value"] for name in pair)
            axis.annotate(text, place, textcoords="offset points", xytext=(9, 8), fontsize=11)


def _reference(axis: Any, found: Mapping[str, Any], pair: Pair, handles: dict[str, Any]) -> None:
    """Draw the point that hypervolume is measured from, where it is in view, and name it in any case."""
    reference = found["fronts"].get("reference", {})
    if not all(name in reference for name in pair):
        return
    x, y = (reference[name] for name in pair)
    limits = axis.get_xlim(), axis.get_ylim()
    mark = axis.scatter([x], [y], marker="x", s=80, color=style.GREY, linewidths=2)
    axis.set(xlim=limits[0], ylim=limits[1])
    told = ", ".join(f"{reference[name]:.3g}" for name in reference).replace("-", "−")
    handles.setdefault(f"reference point ({told})", mark)
