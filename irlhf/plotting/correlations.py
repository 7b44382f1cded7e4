"""Spearman's correlation of each pair of rewards."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from irlhf.core.statistics import spearman
from irlhf.plotting import style

INPUT = "rewards"
CAPTION = "Spearman's correlation between the rewards of the scored rows."

_FEWEST = 3  # rows with both rewards that a correlation needs


def draw(rows: Sequence[Mapping[str, float]]) -> Figure | None:
    """Return one figure, or None for fewer than two rewards."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) < 2:
        return None
    both = [[_paired(rows, left, right) for right in names] for left in names]
    counts = [len(pair) for line in both for pair in line]
    least, most = min(counts), max(counts)
    n = f"n = {most:,}" if least == most else f"n = {least:,} to {most:,}"
    size = 0.75 * len(names)
    figure, (axis,) = style.panels(1, width=max(4.8, size + 2.6), height=size + 1.8)  # room for the title
    labels = [style.short(name, 16) for name in names]
    cells = [[_spearman(pair) for pair in line] for line in both]
    style.heat_key(figure, [axis], style.heat(axis, cells, 1.0))
    for i, j in np.ndindex(len(names), len(names)):
        style.write_cell(axis, (i, j), cells[i][j], 1.0)
    style.name_cells(axis, labels, labels)
    figure.suptitle(f"Spearman's ρ between rewards, {n}", fontsize=13)
    return figure


def _paired(rows: Sequence[Mapping[str, float]], left: str, right: str) -> Any:
    return np.array([(row[left], row[right]) for row in rows if left in row and right in row], dtype=float)


def _spearman(pair: Any) -> float:
    """Return the rank correlation of two columns; NaN if one is constant or there are fewer than three rows."""
    if len(pair) < _FEWEST or not np.ptp(pair, axis=0).all():
        return float("nan")
    return float(spearman(np.ones((1, len(pair))), *pair.T)[0])
