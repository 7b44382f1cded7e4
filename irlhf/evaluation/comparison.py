"""Paired comparisons: the first policy minus another, on the prompts that both have samples of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from irlhf.core import statistics
from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import Example
from irlhf.evaluation.arms import Arm, by_prompt, weightings
from irlhf.evaluation.tracking import own_figures
from irlhf.policy.policy_file import Policy
from irlhf.policy.targets import weight_text


class _Figure(NamedTuple):
    """A metric with one value per prompt."""

    kind: str  # within, error, weighted or tokens
    of: str  # reward or weighting
    own: Mapping[str, float]  # by prompt


def comparisons(arms: Sequence[Arm], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Return the first arm minus each other one: the mean over common prompts of the difference per prompt.

    Pairing removes the variance between prompts; the interval is that of the mean difference.
    """
    ruler = arms[0].policy
    mixes = weightings(arms)
    first, *others = [(arm, list(_figures(arm, ruler, mixes))) for arm in arms]
    results = []
    for arm, theirs in others:
        compared = list(_compared(first[1], theirs, bootstrap))
        if compared:
            common = {row.cluster for row in first[0].rows} & {row.cluster for row in arm.rows}
            results.append(
                {
                    "policy": first[0].key,
                    "name": first[0].name,
                    "against": arm.key,
                    "against_name": arm.name,
                    "prompts": len(common),
                    "figures": compared,
                }
            )
    return results


def _figures(arm: Arm, ruler: Policy, mixes: Sequence[Mapping[str, float]]) -> Iterator[_Figure]:
    kinds = {reward.name: reward.scale.kind for reward in ruler.rewards}
    for reward in arm.policy.names:
        pairs = arm.pairs(reward)
        if pairs:
            own = {prompt: correlations["spearman"] for prompt, correlations in own_figures(pairs).items()}
            missed = [abs(pair.target - pair.actual) for pair in pairs]
            yield _Figure("within", reward, own)
            # Errors on different kinds of scales have different units.
            if arm.policy.reward(reward).scale.kind == kinds.get(reward):
                yield _Figure("error", reward, _means([pair.prompt for pair in pairs], missed))
    for weights in mixes:
        rows = arm.answers(weights)
        text = " + ".join(f"{weight_text(weight)}{name}" for name, weight in weights.items() if weight)
        yield _Figure("weighted", text, _of_rows(rows, partial(_weighted, ruler, weights)))
    known = [row for row in arm.rows if row.tokens is not None]
    yield _Figure("tokens", "", _of_rows(known, lambda row: row.tokens or 0))


def _weighted(ruler: Policy, weights: Mapping[str, float], row: Example) -> float:
    return ruler.weighted(row.rewards, weights)


def _of_rows(rows: Sequence[Example], measure: Callable[[Example], float]) -> dict[str, float]:
    return _means([row.cluster for row in rows], [measure(row) for row in rows])


def _means(prompts: Sequence[str], numbers: Sequence[float]) -> dict[str, float]:
    values = np.array(numbers, dtype=float)
    return {prompt: float(values[indices].mean()) for prompt, indices in by_prompt(prompts)}


def _compared(ours: Sequence[_Figure], theirs: Sequence[_Figure], bootstrap: Bootstrap) -> Iterator[dict[str, Any]]:
    known = {(figure.kind, figure.of): figure.own for figure in theirs}
    for kind, of, own in ours:
        other = known.get((kind, of), {})
        common = [prompt for prompt in own if prompt in other]
        if common:
            difference = np.array([own[prompt] - other[prompt] for prompt in common])

            def measure(times: Floats, values: Floats = difference) -> dict[str, Floats]:
                return {"difference": statistics.mean(times, values)}

            result = clustered(common, measure, bootstrap)["difference"]
            yield {"figure": kind, "reward": of, "prompts": len(common), "difference": result}
