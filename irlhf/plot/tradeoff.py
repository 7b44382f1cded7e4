"""The trade-off: where each weighting of two rewards lands, beside the baselines and the data mean."""

import itertools
from pathlib import Path
from typing import Any

from irlhf.files import read_json
from irlhf.plot import style


def wants(path: Path, first: dict[str, Any]) -> bool:
    """Return whether this is an eval.json with a mix of two rewards in it."""
    return any(len(one["weights"]) == 2 for one in first.get("tradeoff", []))


def draw(path: Path) -> list[tuple[str, Any]]:
    """Return one figure: the first two rewards against each other, in standard deviations of the data."""
    mixes = [one for one in read_json(path)["tradeoff"] if len(one["weights"]) == 2]
    x, y = mixes[0]["weights"]
    figure, (axis,) = style.panels(1, width=6.2, height=4.8)
    axis.scatter([0], [0], marker="+", s=120, color="black", linewidths=2, label="mean of the data")
    drawn: dict[str, list[tuple[float, float]]] = {}
    for mix in mixes:
        for arm in mix["arms"]:
            point = tuple(arm["rewards"][name]["value"] for name in (x, y))
            if not arm["baseline"]:
                _label(axis, mix["weights"], point)
            if not (arm["baseline"] and arm["name"] in drawn):
                drawn.setdefault(arm["name"], []).append(point)
            _whiskers(axis, arm, (x, y))
    looks = itertools.cycle(zip(style.COLOURS, style.MARKERS, strict=True))
    for (name, points), (colour, marker) in zip(drawn.items(), looks, strict=False):
        line = "-" if len(points) > 1 else ""
        look = {"marker": marker, "color": colour, "markersize": 8}
        axis.plot(*zip(*sorted(points), strict=True), linestyle=line, linewidth=1.5, label=style.short(name), **look)
    axis.set(
        xlabel=f"{style.short(x)} (sd above the data's mean)", ylabel=f"{style.short(y)} (sd above the data's mean)"
    )
    axis.margins(0.18)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    return [("tradeoff", figure)]


def _label(axis: Any, weights: dict[str, float], point: tuple[float, ...]) -> None:
    text = " : ".join(f"{weight:g}" for weight in weights.values())
    axis.annotate(text, point, textcoords="offset points", xytext=(9, 7), fontsize=10.5)


def _whiskers(axis: Any, arm: dict[str, Any], names: tuple[str, str]) -> None:
    found = [arm["rewards"][name] for name in names]
    lengths = [[[one["value"] - one["low"]], [one["high"] - one["value"]]] for one in found]
    x, y = (one["value"] for one in found)
    axis.errorbar([x], [y], xerr=lengths[0], yerr=lengths[1], color=style.GREY, linewidth=1, capsize=2, zorder=1)
