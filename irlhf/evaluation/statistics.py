"""Figures of rows that count several times: what a bootstrap needs, all of its draws at once.

`times` [draws, rows] says how often each row counts; x and y are [rows], or [draws, rows] where they
depend on the draw; what comes back is [draws]. With `times` all 1 each is the textbook's figure.
"""

import numpy as np

from irlhf.core.bootstrap import Floats

_NOTHING = 1e-12  # a variance below this is rounding


def mean(times: Floats, x: Floats) -> Floats:
    """Return the mean; nan where no row counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = _sum(times, x) / times.sum(1)
    return result


def ratio(times: Floats, above: Floats, below: Floats) -> Floats:
    """Return the sum of one over the sum of the other; nan where no row counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = _sum(times, above) / _sum(times, below)
    return result


def pearson(times: Floats, x: Floats, y: Floats) -> Floats:
    """Return Pearson's r; 0 where either side is constant, because then nothing follows anything."""
    covariance, first, second = _moments(times, x, y)
    scale = np.sqrt(first * second)
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > _NOTHING)


def spearman(times: Floats, x: Floats, y: Floats) -> Floats:
    """Return Spearman's rho: Pearson's r of mid-ranks, which are those of the draw itself."""
    return pearson(times, ranks(times, x), ranks(times, y))


def slope(times: Floats, x: Floats, y: Floats) -> Floats:
    """Return by how much y rises with x on the line of least squares."""
    covariance, first, _ = _moments(times, x, y)
    return np.divide(covariance, first, out=np.zeros_like(first), where=first > _NOTHING)


def ranks(times: Floats, x: Floats) -> Floats:
    """Return the mid-ranks of x in each draw, [draws, rows], from 0.5 on."""
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    held = np.add.reduceat(times[:, order], starts, axis=1)  # copies of each distinct value
    middle = np.cumsum(held, axis=1) - held / 2
    group_of_row = np.empty(len(x), dtype=np.int64)
    group_of_row[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(x)]))
    result: Floats = middle[:, group_of_row]
    return result


def _moments(times: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the covariance and both variances (over n, not n - 1)."""
    x = x - mean(times, x)[:, None]
    y = y - mean(times, y)[:, None]
    return mean(times, x * y), mean(times, x * x), mean(times, y * y)


def _sum(times: Floats, x: Floats) -> Floats:
    result: Floats = times @ x if x.ndim == 1 else np.einsum("ij,ij->i", times, x)
    return result
