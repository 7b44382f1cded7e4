"""All rewards of each weighting, as bars."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Evaluation

INPUT = "evaluation"
CAPTION = (
    "Rewards of each requested mix: the actual rewards in standard deviations above the mean of the data (0), with 95%"
    " intervals."
)

_PANELS = 12  # most weightings shown, evenly spaced


def draw(evaluation: Evaluation) -> Figure | None:
    """Return one figure, a panel for each weighting, bars for each arm."""
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
    counts = sorted({arm["n"] for mix in shown for arm in mix["arms"]})
    each = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    some = f"{len(shown)} of {len(mixes)} mixes; " if len(shown) < len(mixes) else ""
    figure.suptitle(f"{some}n = {each} samples per policy and mix", fontsize=12)
    style.legend_under(figure, handles, columns=min(3, len(handles)))
    return figure


def _axes(mix: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for arm in mix["arms"] for name in arm["rewards"]))


def _panel(axis: Any, mix: Mapping[str, Any], looks: Mapping[str, style.Look], handles: dict[str, Any]) -> None:
    names = _axes(mix)
    axis.axhline(0, color=style.INK, linewidth=1)
    width = 0.84 / len(mix["arms"])
    for i, arm in enumerate(mix["arms"]):
        known = looks[arm["policy"]]
        places = [j for j, name in enumerate(names) if name in arm["rewards"]]
        figures = [arm["rewards"][names[j]] for j in places]
        aside = (i + 0.5) * width - 0.42
        hatch = style.HATCHES[i % len(style.HATCHES)]
        bars: dict[str, Any] = {"color": known.colour, "hatch": hatch, "edgecolor": "white"}
        bars |= {"yerr": style.whiskers(figures), "error_kw": {"ecolor": style.INK, "elinewidth": 1, "capsize": 1.5}}
        drawn = axis.bar([j + aside for j in places], [figure["value"] for figure in figures], width, **bars)
        handles.setdefault(known.label, drawn)
    room = 13 if len(names) == 3 else 18
    aslant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(names) > 3 else {}
    axis.set_xticks(range(len(names)), [style.short(name, room) for name in names], **aslant)
    axis.grid(visible=False, axis="x")
    axis.set_title(style.short(style.mix(mix["weights"]), 36), fontsize=12)
