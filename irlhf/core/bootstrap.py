"""Cluster bootstrap: confidence intervals that resample whole prompts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
FEW_PROMPTS = 50  # with fewer, clustered intervals are too narrow; see docs/evaluation.md

Floats = NDArray[np.float64]
Interval = dict[str, float]  # value, low, high
# Takes the weight of each row, [draws, rows]; returns the value of each figure in each draw, [draws].
Measure = Callable[[Floats], Mapping[str, Floats]]

_CELLS = 4_000_000  # largest draws x rows held in memory


@dataclass(frozen=True)
class Bootstrap:
    """Number of resamples and seed of the bootstrap."""

    resamples: int = 1000
    seed: int = 0


def clustered(clusters: Sequence[str], measure: Measure, bootstrap: Bootstrap) -> dict[str, Interval]:
    """Return the value and the 95% percentile interval of each figure of `measure`.

    Whole clusters are drawn with replacement (Davison and Hinkley 1997, section 3.8), because samples of one prompt
    are not independent. Draws in which a figure is NaN are left out of its interval. If all are NaN, the interval is
    the value itself.
    """
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    numbered = np.array([numbers[cluster] for cluster in clusters])
    value = measure(np.ones((1, len(numbered))))
    batches = [measure(times[:, numbered]) for times in draws(len(numbers), len(numbered), bootstrap)]
    return {name: interval(float(value[name][0]), np.concatenate([batch[name] for batch in batches])) for name in value}


def few_prompts(prompts: Mapping[str, int]) -> str:
    """Return the warning for intervals from few prompts, by the name of what was measured; empty if all have enough."""
    few = [f"{name} ({count})" for name, count in prompts.items() if count < FEW_PROMPTS]
    return f"intervals from fewer than {FEW_PROMPTS} prompts are too narrow: {', '.join(few)}" if few else ""


def draws(clusters: int, rows: int, bootstrap: Bootstrap) -> Iterator[Floats]:
    """Yield batches of cluster counts, [draws in the batch, clusters]; all batches together hold every resample."""
    rng = np.random.default_rng(bootstrap.seed)
    most = max(1, _CELLS // rows)
    for start in range(0, bootstrap.resamples, most):
        size = min(most, bootstrap.resamples - start)
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=size).astype(np.float64)


def interval(value: float, drawn: Floats) -> Interval:
    """Return a value with the percentile interval of its resamples; NaN resamples are ignored."""
    valid = drawn[~np.isnan(drawn)]
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(valid, [tail, 100 - tail]) if len(valid) else (value, value)
    return {"value": value, "low": float(low), "high": float(high)}
