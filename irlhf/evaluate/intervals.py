"""Bootstrap intervals that respect that samples of one prompt belong together."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95

Interval = dict[str, float]  # value, low, high


def clustered(
    clusters: Sequence[str],
    measure: Callable[[NDArray[np.int64]], Mapping[str, float]],
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """Return each figure of `measure` with its percentile interval at 95%.

    `measure` takes row numbers. Whole clusters are drawn with replacement (Davison and Hinkley 1997,
    section 3.8), so that many samples of few prompts do not pretend to be much evidence.
    """
    rows: dict[str, list[int]] = {}
    for i, cluster in enumerate(clusters):
        rows.setdefault(cluster, []).append(i)
    groups = [np.array(mine) for mine in rows.values()]
    value = measure(np.arange(len(clusters)))
    rng = np.random.default_rng(seed)
    drawn = [
        measure(np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]))
        for _ in range(resamples)
    ]
    tail = 50 * (1 - LEVEL)
    intervals = {}
    for name in value:
        low, high = np.percentile([one[name] for one in drawn], [tail, 100 - tail])
        intervals[name] = {"value": value[name], "low": float(low), "high": float(high)}
    return intervals
