"""The one look of all pictures: readable at half width, told apart by the colour-blind, no math in names."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision tell apart.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
GREY = "#7a7a7a"
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHED = (0, (4, 3))

_NAME = 28  # characters of a reward or a policy that a picture shows

_LOOK: dict[Any, Any] = {
    "savefig.dpi": 150,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "text.parse_math": False,  # a reward may be called $x^{$
    "svg.hashsalt": "irlhf",  # equal data, equal bytes
}


@contextmanager
def look() -> Iterator[None]:
    """Draw and save in this look; the caller's own matplotlib settings are left alone."""
    with matplotlib.rc_context(_LOOK):
        yield


def panels(count: int, width: float = 4.6, height: float = 4.4) -> tuple[Figure, list[Any]]:
    """Return a figure with `count` axes, at most three a row; sizes are of one panel, in inches."""
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def short(name: str) -> str:
    """Return a name that leaves room for its picture."""
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"
