"""Rewards of each requested mix, for all arms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irlhf.core import statistics
from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import Example
from irlhf.evaluation.arms import Arm, costs, weightings
from irlhf.policy.policy_file import Policy


def tradeoff(arms: Sequence[Arm], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Return the mean weighted reward of each arm for every requested weighting.

    The weighted reward is the weighted mean of z-scores, oriented so that higher is better and relative to the
    training data of the first arm's policy, whose mean is 0. Single rewards have the same units. All samples of a
    baseline without rewards in its prompts count for every weighting.
    """
    ruler = arms[0].policy
    measured = []
    for weights in weightings(arms):
        answers = [(arm, arm.answers(weights)) for arm in arms]
        mixes = [_answer(arm, rows, ruler, weights, bootstrap) for arm, rows in answers if rows]
        measured.append({"weights": weights, "data": 0.0, "arms": mixes})
    return measured


def _answer(
    arm: Arm, rows: Sequence[Example], ruler: Policy, weights: Mapping[str, float], bootstrap: Bootstrap
) -> dict[str, Any]:
    columns = {"weighted": np.array([ruler.weighted(row.rewards, weights) for row in rows])}
    for reward in ruler.rewards:
        if all(reward.name in row.rewards for row in rows):
            columns[f"reward {reward.name}"] = np.array([reward.zscore(row.rewards[reward.name]) for row in rows])

    def measure(times: Floats) -> dict[str, Floats]:
        return {name: statistics.mean(times, column) for name, column in columns.items()}

    figures = clustered([row.cluster for row in rows], measure, bootstrap)
    return {
        "policy": arm.key,
        "name": arm.name,
        "baseline": arm.policy.baseline,
        "blind": arm.policy.blind,
        "n": len(rows),
        "prompts": len({row.cluster for row in rows}),
        "weighted": figures.pop("weighted"),
        "rewards": {name.removeprefix("reward "): figure for name, figure in figures.items()},
        **costs(rows),
    }
