"""Entropy of a policy's tokens and KL from its reference, with reasons for values that are not available."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from irlhf.core import statistics
from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import Example
from irlhf.evaluation.arms import divergence

NOT_AVAILABLE = "not available"  # not 0, which would be a measurement

_KEPT = "samples kept by `score --keep` are not samples of the policy"
_CHANGED = "tokens were drawn with a temperature or top-p other than 1, or the settings are unknown"


def entropy_and_kl(rows: Sequence[Example], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return entropy (nats a token) and KL from the reference given to `sample` (nats a completion).

    `entropy` is the entropy of full distributions; `entropy_between` has its bounds if only the top tokens are known.
    Both are means over samples. `entropy_sampled` is the mean of -log p over the drawn tokens. `kl` is the mean of
    logprob - reference over the policy's own samples, `kl_k3` the mean of the k3 estimator (Schulman 2020); both are
    unbiased. If only some samples have a value, the mean is over those. `why` gives the reason for each value that is
    not available.
    """
    figures = {
        "entropy": mean_figure(rows, lambda row: row.entropy, bootstrap),
        "entropy_between": _between(rows, bootstrap),
        "entropy_sampled": _sampled(rows, bootstrap),
        "kl": mean_figure(rows, divergence, bootstrap),
        "kl_k3": mean_figure(rows, lambda row: None if row.kept else row.k3, bootstrap),
    }
    return {**figures, "censored": sum(row.censored or 0 for row in rows), "why": dict(_why(rows, figures))}


def mean_figure(
    rows: Sequence[Example], measure: Callable[[Example], float | None], bootstrap: Bootstrap
) -> dict[str, float] | str:
    """Return the mean over the rows that have a value, with its interval, or "not available"."""
    known = [(row.cluster, number) for row in rows if (number := measure(row)) is not None]
    if not known:
        return NOT_AVAILABLE
    numbers = np.array([number for _, number in known], dtype=float)

    def mean(times: Floats) -> dict[str, Floats]:
        return {"mean": statistics.mean(times, numbers)}

    return clustered([prompt for prompt, _ in known], mean, bootstrap)["mean"]


def _between(rows: Sequence[Example], bootstrap: Bootstrap) -> dict[str, Any] | str:
    known = [row for row in rows if row.entropy_low is not None]
    if not known:
        return NOT_AVAILABLE
    closed = all(row.entropy_high is not None for row in known)
    return {
        "low": mean_figure(known, lambda row: row.entropy_low, bootstrap),
        "high": mean_figure(known, lambda row: row.entropy_high, bootstrap) if closed else NOT_AVAILABLE,
        "tokens": sum(row.tokens or 0 for row in known),
    }


def _sampled(rows: Sequence[Example], bootstrap: Bootstrap) -> dict[str, Any] | str:
    """Return the mean of -log p over all drawn tokens, a ratio of two sums over samples.

    By Wald's identity the sums of -log p and of the entropy over a sample have the same mean. Means per sample do
    not, because the length of a sample depends on its tokens.
    """
    known = [row for row in rows if _own(row) and row.logprob is not None and row.tokens]
    if not known:
        return NOT_AVAILABLE
    surprisal = np.array([-(row.logprob or 0.0) for row in known])
    tokens = np.array([row.tokens or 0 for row in known], dtype=float)

    def ratio(times: Floats) -> dict[str, Floats]:
        return {"ratio": statistics.ratio(times, surprisal, tokens)}

    ratio_interval = clustered([row.cluster for row in known], ratio, bootstrap)["ratio"]
    return {**ratio_interval, "tokens": int(tokens.sum())}


def _own(row: Example) -> bool:
    """Return whether the tokens were drawn from the policy's own distribution: temperature 1, top-p 1, not selected."""
    return not row.kept and (row.decoding.get("temperature"), row.decoding.get("top_p")) == (1, 1)


def _why(rows: Sequence[Example], figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of each value that is not available, with the reason."""
    missing = {name for name, figure in figures.items() if figure == NOT_AVAILABLE}
    own = [row for row in rows if _own(row)]
    if "entropy" in missing:
        yield "entropy", "no sample has full distributions; servers return only the top tokens"
    if "entropy_between" in missing:
        listed = "no server returned the top tokens" if own else _CHANGED
        yield "entropy_between", listed if "entropy" in missing else "the entropy itself is known"
    elif figures["entropy_between"]["high"] == NOT_AVAILABLE:
        yield "entropy_between.high", "the size of the vocabulary is unknown"
    if "entropy_sampled" in missing:
        yield "entropy_sampled", _no_logprob(rows)
    for name in sorted({"kl", "kl_k3"} & missing):
        yield name, _no_distance(rows)


def _no_logprob(rows: Sequence[Example]) -> str:
    if all(row.kept for row in rows):
        return _KEPT
    if not any(map(_own, rows)):
        return _CHANGED
    if any(row.censored for row in rows):
        return "every sample has a token without a logprob from the server"
    return "no sample has logprobs"


def _no_distance(rows: Sequence[Example]) -> str:
    if all(row.kept for row in rows):
        return _KEPT
    if all(row.logprob is None for row in rows):
        return _no_logprob(rows)
    if all(row.reference is None for row in rows):
        return "no sample has a reference logprob (use `irlhf sample --reference` with a local policy)"
    return "the samples have no values per token; sample again"
