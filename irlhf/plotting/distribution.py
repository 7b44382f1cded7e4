"""The distribution of each reward, with percentiles."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from irlhf.plotting import style

INPUT = "rewards"
CAPTION = "Raw rewards of the scored rows, with their 5th, 50th and 95th percentiles."

_BINS = 40
_SHOWN = (5, 50, 95)  # percentiles
_ROOM = 0.17  # of the width of the axis, which two labels need side by side


def draw(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Return one figure, a panel for each reward."""
    rewards: dict[str, list[float]] = {}
    for row in rows:
        for name, number in row.items():
            rewards.setdefault(name, []).append(number)
    figure, axes = style.panels(len(rewards), height=3.4)
    for (name, numbers), axis in zip(rewards.items(), axes, strict=True):
        _panel(axis, name, np.array(numbers, dtype=float))
    return figure


def _panel(axis: Any, name: str, numbers: Any) -> None:
    low, high = np.percentile(numbers, [0.5, 99.5])
    shown = numbers[(numbers >= low) & (numbers <= high)]
    axis.hist(shown, bins=min(_BINS, max(5, len(set(shown.tolist())))), color=style.BLUE, alpha=0.85)
    places = [float(np.percentile(numbers, per_cent)) for per_cent in _SHOWN]
    left, right = axis.get_xlim()
    labels: list[tuple[float, str]] = []  # labels that would overlap are joined
    for at, per_cent in zip(places, _SHOWN, strict=True):
        axis.axvline(at, color=style.RED, linewidth=1.4, linestyle=style.DASHED)
        if labels and at - labels[-1][0] < _ROOM * (right - left):
            labels[-1] = (at, f"{labels[-1][1]}, p{per_cent}")
        else:
            labels.append((at, f"p{per_cent}"))
    above = axis.get_xaxis_transform()
    for at, label in labels:
        axis.text(at, 1.0, label, transform=above, ha="center", va="bottom", fontsize=10.5)
    axis.set_title(f"{style.short(name)}, n = {len(numbers):,}", pad=20)
    axis.set(xlabel="reward", ylabel="rows")
