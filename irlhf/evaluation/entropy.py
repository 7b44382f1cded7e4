"""How sure a policy is of its tokens and how far it stands from its reference; where nobody can say, why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import Example
from irlhf.evaluation import statistics
from irlhf.evaluation.arms import divergence

NOT_AVAILABLE = "not available"  # never 0, which would be a claim

_KEPT = "what `score --keep` kept is no sample of the policy"
_CHANGED = "tokens were drawn at another temperature or top-p than 1, or do not say how"


def entropy_and_kl(rows: Sequence[Example], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return entropy (nats a token) and KL from the reference that `sample` was given (nats a completion).

    `entropy` is that of whole distributions, and `entropy_between` holds it where only the likeliest tokens were known;
    both weigh every sample alike. `entropy_sampled` is the mean over tokens of -log p of the drawn ones. KL is the mean
    of logprob - reference over the policy's own samples, and `kl_k3` that of k3: two unbiased estimates. Where only
    some samples know a figure, it is that of those. `why` says of each figure that there is none of, why.
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
    """Return the mean over the rows that have the measure, with its interval."""
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
    """Return the mean surprisal of the drawn tokens, every token weighing the same.

    A ratio of two sums over samples. By Wald's identity both -log p and entropy, summed until a sample ends, have one
    mean; means of each sample have not, for when a sample ends depends on what was drawn.
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
    """Return whether the tokens come from the policy's own distribution, neither cut nor sharpened nor picked."""
    return not row.kept and (row.decoding.get("temperature"), row.decoding.get("top_p")) == (1, 1)


def _why(rows: Sequence[Example], figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each figure that is not available, with the reason."""
    missing = {name for name, figure in figures.items() if figure == NOT_AVAILABLE}
    own = [row for row in rows if _own(row)]
    if "entropy" in missing:
        yield "entropy", "no sample has whole distributions; a server lists the likeliest tokens at most"
    if "entropy_between" in missing:
        listed = "no server listed the likeliest tokens" if own else _CHANGED
        yield "entropy_between", listed if "entropy" in missing else "the entropy itself is known"
    elif figures["entropy_between"]["high"] == NOT_AVAILABLE:
        yield "entropy_between.high", "nobody says how many tokens the vocabulary has"
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
        return "every sample has a token that the server gave no logprob of"
    return "no sample has the logprob of its tokens"


def _no_distance(rows: Sequence[Example]) -> str:
    if all(row.kept for row in rows):
        return _KEPT
    if all(row.logprob is None for row in rows):
        return _no_logprob(rows)
    if all(row.reference is None for row in rows):
        return "no reference has read the samples (`irlhf sample --reference`, with the policy at hand)"
    return "the samples have sums over their tokens alone; sample again"
