"""Statistics of weighted rows, for all bootstrap draws at once.

`times` [draws, rows] is how often each row counts. x and y are [rows], or [draws, rows] if they depend on the draw.
All functions return [draws] unless noted. With `times` of ones they are the usual statistics.
"""

import numpy as np

from irlhf.core.bootstrap import Floats

_NOTHING = 1e-12  # smaller variances are rounding errors


def mean(times: Floats, x: Floats) -> Floats:
    """Return the mean; NaN if no row counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = _sum(times, x) / times.sum(1)
    return result


def ratio(times: Floats, above: Floats, below: Floats) -> Floats:
    """Return sum(above) / sum(below); NaN if no row counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = _sum(times, above) / _sum(times, below)
    return result


def pearson(times: Floats, x: Floats, y: Floats) -> Floats:
    """Return Pearson's r; 0 if x or y is constant."""
    covariance, first, second = _moments(times, x, y)
    scale = np.sqrt(first * second)
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > _NOTHING)


def spearman(times: Floats, x: Floats, y: Floats) -> Floats:
    """Return Spearman's rho: Pearson's r of the mid-ranks within each draw."""
    return pearson(times, ranks(times, x), ranks(times, y))


def slope(times: Floats, x: Floats, y: Floats) -> Floats:
    """Return the least-squares slope of y on x; 0 if x is constant."""
    covariance, first, _ = _moments(times, x, y)
    return np.divide(covariance, first, out=np.zeros_like(first), where=first > _NOTHING)


def ranks(times: Floats, x: Floats) -> Floats:
    """Return the mid-ranks of x in each draw [draws, rows], from 0.5."""
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    held = np.add.reduceat(times[:, order], starts, axis=1)  # number of each distinct value
    middle = np.cumsum(held, axis=1) - held / 2
    group_of_row = np.empty(len(x), dtype=np.int64)
    group_of_row[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(x)]))
    result: Floats = middle[:, group_of_row]
    return result


def _moments(times: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the covariance and both variances, divided by n and not n - 1."""
    x = x - mean(times, x)[:, None]
    y = y - mean(times, y)[:, None]
    return mean(times, x * y), mean(times, x * x), mean(times, y * y)


def _sum(times: Floats, x: Floats) -> Floats:
    result: Floats = times @ x if x.ndim == 1 else np.einsum("ij,ij->i", times, x)
    return result
