"""What asking for a mix of rewards brings, beside baselines that were not asked and the training data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irlhf.evaluate.intervals import clustered
from irlhf.policy import Policy
from irlhf.records import Example
from irlhf.targets import weights_of

Arm = tuple[str, Policy, Sequence[Example]]  # a policy's name, its card, its samples


def tradeoff(arms: Sequence[Arm], resamples: int, seed: int) -> list[dict[str, Any]]:
    """Return, for every weighting that some sample was asked with, the mean weighted reward of each arm.

    The weighted reward is the weighted mean of oriented z-scores over the training data, so the data's
    own mean is 0; each arm's single rewards are given in the same units. A baseline, whose prompt
    holds no reward, answers every weighting with all its samples.
    """
    found = {tuple(weights_of(row.target).items()): None for _, _, rows in arms for row in rows}
    measured = []
    for weights in (dict(weighting) for weighting in found if weighting):
        answers = []
        for name, policy, rows in arms:
            mine = [row for row in rows if policy.baseline or weights_of(row.target) == weights]
            scored = [row for row in mine if all(reward in row.rewards for reward in weights)]
            if scored:
                answers.append(_arm(name, policy, scored, weights, (resamples, seed)))
        measured.append({"weights": weights, "data": 0.0, "arms": answers})
    return measured


def _arm(
    name: str, policy: Policy, rows: Sequence[Example], weights: Mapping[str, float], draw: tuple[int, int]
) -> dict[str, Any]:
    weighted = np.array([policy.weighted(row.rewards, weights) for row in rows])
    each = {
        card.name: np.array([card.zscore(row.rewards[card.name]) for row in rows])
        for card in policy.rewards
        if all(card.name in row.rewards for row in rows)
    }

    def means(chosen: Any) -> dict[str, float]:
        rewards = {reward: float(values[chosen].mean()) for reward, values in each.items()}
        return {"weighted": float(weighted[chosen].mean()), **rewards}

    intervals = clustered([row.cluster for row in rows], means, *draw)
    return {
        "name": name,
        "baseline": policy.baseline,
        "n": len(rows),
        "weighted": intervals.pop("weighted"),
        "rewards": intervals,
    }
