"""Pareto fronts of the arms, selected on one half of the prompts and measured on the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np

from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import Example
from irlhf.evaluation.arms import Arm, weightings
from irlhf.policy.policy_file import Policy

REFERENCE = -1.0  # for every reward: one standard deviation below the mean of the training data
_LEAST_WEIGHTINGS = 2
_LEAST_PROMPTS = 4


@dataclass(frozen=True)
class _Answers:
    """The mean rewards of every arm for every weighting, over equally many samples of the same prompts."""

    prompts: list[str]
    rewards: tuple[str, ...]
    weights: list[dict[str, float]]
    means: dict[str, Floats]  # z-scores [prompts, weightings, rewards] by the arm's key
    samples: int  # per arm, weighting and prompt


def fronts(arms: Sequence[Arm], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the hypervolume of each arm, its mean inner product with the weights, and the points it dominates.

    The points of an arm are its mean rewards (z-scores) for each weighting. Undominated points are selected on one
    half of the prompts; hypervolume (Zitzler and Thiele 1998, computed by moocore; higher is better) and dominance
    are measured on the other half, which avoids selection bias. The mean inner product is the mean weighted reward
    over weightings, on all prompts. Returns {} for fewer than two weightings, two rewards or four common prompts.
    """
    answers = _answers(arms, bootstrap.seed)
    if answers is None:
        return {}
    half = len(answers.prompts) // 2
    chosen = {key: undominated(means[:half].mean(0)) for key, means in answers.means.items()}
    points = {key: means[half:].mean(0) for key, means in answers.means.items()}
    front = {key: points[key][chosen[key]] for key in points}
    entries = [
        {
            "policy": arm.key,
            "name": arm.name,
            "baseline": arm.policy.baseline,
            "hypervolume": _volume(answers.prompts[half:], answers.means[arm.key][half:, chosen[arm.key]], bootstrap),
            "mean_inner_product": _inner(answers, answers.means[arm.key], bootstrap),
            "points": _points(answers, points[arm.key], chosen[arm.key]),
            "dominates": {
                key: dominated_share(theirs, front[arm.key]) for key, theirs in front.items() if key != arm.key
            },
        }
        for arm in arms
        if arm.key in answers.means
    ]
    return {
        "rewards": list(answers.rewards),
        "reference": dict.fromkeys(answers.rewards, REFERENCE),
        "weightings": len(answers.weights),
        "samples": answers.samples * len(answers.prompts),
        "prompts": len(answers.prompts),
        "arms": entries,
    }


def undominated(points: Floats) -> Any:
    """Return a mask of the points [points, rewards] that no other point dominates; of equal points the first."""
    return moocore.is_nondominated(points, maximise=True)


def hypervolume(points: Floats) -> float:
    """Return the volume between the reference point and the points [points, rewards]."""
    return float(moocore.hypervolume(points, ref=np.full(points.shape[1], REFERENCE), maximise=True))


def dominated_share(points: Floats, by: Floats) -> float:
    """Return the share of `points` that a point of `by` dominates: no reward lower, at least one higher."""
    no_less = np.all(by[None] >= points[:, None], axis=2)
    more = np.any(by[None] > points[:, None], axis=2)
    return float(np.any(no_less & more, axis=1).mean())


def _answers(arms: Sequence[Arm], seed: int) -> _Answers | None:
    ruler = arms[0].policy
    weights = weightings(arms)
    rewards = tuple(name for name in ruler.names if any(name in weighting for weighting in weights))
    if len(weights) < _LEAST_WEIGHTINGS or len(rewards) < 2:
        return None
    tables = {arm.key: [_by_prompt(arm.answers(weighting), rewards) for weighting in weights] for arm in arms}
    tables = {key: each for key, each in tables.items() if all(each)}
    common = set.intersection(*(set(table) for each in tables.values() for table in each)) if tables else set()
    if len(common) < _LEAST_PROMPTS:
        return None
    shuffled = np.random.default_rng(seed).permutation(len(common))
    ordered = sorted(common)
    prompts = [ordered[i] for i in shuffled]
    samples = min(len(table[prompt]) for each in tables.values() for table in each for prompt in prompts)
    means = {
        key: np.array([[_mean(table[prompt][:samples], ruler, rewards) for table in each] for prompt in prompts])
        for key, each in tables.items()
    }
    return _Answers(prompts, rewards, weights, means, samples)


def _by_prompt(rows: Sequence[Example], rewards: Sequence[str]) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = {}
    for row in rows:
        if all(name in row.rewards for name in rewards):
            groups.setdefault(row.cluster, []).append(row)
    return groups


def _mean(rows: Sequence[Example], ruler: Policy, rewards: Sequence[str]) -> Floats:
    table: Floats = np.array([[ruler.reward(name).zscore(row.rewards[name]) for name in rewards] for row in rows])
    means: Floats = table.mean(0)
    return means


def _volume(prompts: Sequence[str], means: Floats, bootstrap: Bootstrap) -> dict[str, float]:
    """Return the hypervolume of the mean points, with an interval from resampled prompts.

    `means` has the shape [prompts, points, rewards]; it is averaged over prompts before the hypervolume is computed.
    """

    def measure(times: Floats) -> Mapping[str, Floats]:
        drawn = np.tensordot(times, means, 1) / times.sum(1)[:, None, None]
        return {"volume": np.array([hypervolume(points) for points in drawn])}

    return clustered(prompts, measure, bootstrap)["volume"]


def _inner(answers: _Answers, means: Floats, bootstrap: Bootstrap) -> dict[str, float]:
    table = np.array([[weighting.get(name, 0.0) for name in answers.rewards] for weighting in answers.weights])
    table /= table.sum(1, keepdims=True)
    products = (means * table).sum(2).mean(1)  # [prompts]

    def measure(times: Floats) -> Mapping[str, Floats]:
        return {"product": times @ products / times.sum(1)}

    return clustered(answers.prompts, measure, bootstrap)["product"]


def _points(answers: _Answers, points: Floats, chosen: Any) -> list[dict[str, Any]]:
    return [
        {
            "weights": weights,
            "rewards": dict(zip(answers.rewards, map(float, point), strict=True)),
            "chosen": bool(is_chosen),
        }
        for weights, point, is_chosen in zip(answers.weights, points, chosen, strict=True)
    ]
