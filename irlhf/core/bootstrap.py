"""Bootstrap intervals that respect that samples of one prompt belong together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
FEW_PROMPTS = 50  # below this, clustered intervals are too narrow: docs/evaluation.md has the figures

Floats = NDArray[np.float64]
Interval = dict[str, float]  # value, low, high
# Takes how often each row counts, [draws, rows], and returns every figure for each draw, [draws].
Measure = Callable[[Floats], Mapping[str, Floats]]

_CELLS = 4_000_000  # of draws x rows that are in memory at once


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn."""

    resamples: int = 1000
    seed: int = 0


def clustered(clusters: Sequence[str], measure: Measure, bootstrap: Bootstrap) -> dict[str, Interval]:
    """Return each figure of `measure` with its percentile interval at 95%.

    Whole clusters are drawn with replacement (Davison and Hinkley 1997, section 3.8), so that many samples
    of few prompts do not pretend to be much evidence. A draw in which a figure does not exist (nan) is left
    out of that figure's interval.
    """
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    numbered = np.array([numbers[cluster] for cluster in clusters])
    value = measure(np.ones((1, len(numbered))))
    batches = [measure(times[:, numbered]) for times in draws(len(numbers), len(numbered), bootstrap)]
    return {name: interval(float(value[name][0]), np.concatenate([batch[name] for batch in batches])) for name in value}


def draws(clusters: int, rows: int, bootstrap: Bootstrap) -> Iterator[Floats]:
    """Yield how often each cluster is drawn, [some draws, clusters], until there are all resamples."""
    rng = np.random.default_rng(bootstrap.seed)
    most = max(1, _CELLS // rows)
    for start in range(0, bootstrap.resamples, most):
        size = min(most, bootstrap.resamples - start)
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size).astype(np.float64)


def interval(value: float, drawn: Floats) -> Interval:
    """Return a figure with the percentiles of what the resamples gave."""
    there = drawn[~np.isnan(drawn)]
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(there, [tail, 100 - tail]) if len(there) else (value, value)
    return {"value": value, "low": float(low), "high": float(high)}
