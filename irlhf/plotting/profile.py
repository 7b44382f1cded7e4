"""All rewards of each weighting, as parallel coordinates."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "Profiles of the weightings: the actual rewards in standard deviations above the mean of the data (0), with 95%"
    " intervals; × is the requested weight."
)

_PANELS = 12  # most weightings shown, evenly spaced


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure, a panel for each weighting, a line for each arm."""
    looks = style.looks(evaluation["policies"])
    mixes = [mix for mix in evaluation["tradeoff"] if len(_axes(mix)) > 1]
    if not mixes:
        return None
    shown = mixes[:: -(-len(mixes) // _PANELS)]
    rewards = max(len(_axes(mix)) for mix in shown)
    width = max(3.6, 1.6 + 0.55 * rewards)
    figure, axes = style.panels(len(shown), width=width, height=3.7, columns=2 if width > 5 or len(shown) < 5 else 3)
    for axis in axes[1:]:
        axis.sharey(axes[0])
    handles: dict[str, Any] = {}
    for i, (mix, axis) in enumerate(zip(shown, axes, strict=True)):
        _panel(axis, mix, looks, handles)
        if i % axis.get_subplotspec().get_gridspec().ncols == 0:
            axis.set_ylabel("sd above the data mean")
    if len(shown) < len(mixes):
        figure.suptitle(f"{len(shown)} of {len(mixes)} weightings", fontsize=12)
    style.legend_under(figure, handles, columns=min(3, len(handles)))
    return figure


def _axes(mix: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for arm in mix["arms"] for name in arm["rewards"]))


def _panel(axis: Any, mix: Mapping[str, Any], looks: Mapping[str, style.Look], handles: dict[str, Any]) -> None:
    names = _axes(mix)
    axis.axhline(0, color=style.INK, linewidth=1)
    for i, arm in enumerate(mix["arms"]):
        known = looks[arm["policy"]]
        places = [j for j, name in enumerate(names) if name in arm["rewards"]]
        figures = [arm["rewards"][names[j]] for j in places]
        aside = 0.07 * (i - (len(mix["arms"]) - 1) / 2)  # so that intervals do not overlap
        values = [figure["value"] for figure in figures]
        bars = {"yerr": style.whiskers(figures), "capsize": 2.5, **known.joined}
        handles.setdefault(known.label, axis.errorbar([j + aside for j in places], values, **bars))
    room = 13 if len(names) == 3 else 18
    ticks = [style.short(name, room) + _times(mix["weights"].get(name)) for name in names]
    aslant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(names) > 3 else {}
    axis.set_xticks(range(len(names)), ticks, **aslant)
    axis.set_xlim(-0.4, len(names) - 0.6)
    axis.grid(visible=False, axis="y")
    counts = sorted({arm["n"] for arm in mix["arms"]})
    axis.set_title("n = " + " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))), fontsize=11)


def _times(weight: float | None) -> str:
    return "" if weight is None else f" ×{weight:g}"
