"""Holds the ways of finding targets for a mix against each other, at eleven weightings on the same prompts.

    python mixes.py POLICY EXAMPLES REWARDS SEED -o mixes.json

best, front, achieved   irlhf sample --mix-from
l2                      w / |w| of each reward's range in the data, above its least: Rewards-in-Context as coded
                        (Yang et al. 2024, arXiv 2402.10207), the data's range in place of random numbers'
maxima                  the most of every reward that weighs anything
"""

import argparse
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import moocore
import numpy as np

import irlhf
from irlhf.core.bootstrap import Bootstrap, Floats, draws, interval
from irlhf.core.console import be_quiet
from irlhf.core.example import from_json
from irlhf.io.files import read_rows, write_json
from irlhf.policy.policy_file import Policy, read_policy
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.target_resolution import PICKS
from irlhf.scoring.settings import ScoreSettings

STEPS = 10  # so eleven weightings
PROMPTS, SAMPLES = 120, 2
REFERENCE = -1.0  # z-score, in every reward; what lies above it has a hypervolume


def main() -> None:
    """Sample, score and measure every rule at every weighting."""
    parser = argparse.ArgumentParser()
    for name in ("policy", "examples", "rewards"):
        parser.add_argument(name, type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("-o", type=Path, required=True)
    given = parser.parse_args()
    be_quiet(True)
    policy = read_policy(given.policy)
    found = {
        rule: np.stack([_points(given, policy, rule, weights) for weights in _weightings(policy)])
        for rule in (*PICKS, "l2", "maxima")
    }
    write_json(given.o, _measured(found))


def _weightings(policy: Policy) -> Iterator[dict[str, float]]:
    first, second = policy.names
    for i in range(STEPS + 1):
        yield {first: i / STEPS, second: 1 - i / STEPS}


def _points(given: argparse.Namespace, policy: Policy, rule: str, weights: Mapping[str, float]) -> Floats:
    """Return what a rule brings at a weighting: mean z-scores [prompts, rewards]."""
    samples = Path(f"mix-{rule}-{next(iter(weights.values())):g}.jsonl")
    scored = samples.with_name(f"scored-{samples.name}")
    shared = {"n": SAMPLES, "limit": PROMPTS, "max_tokens": 100, "seed": given.seed}
    if rule in PICKS:
        expression = "+".join(f"{weight:g}*{name}" for name, weight in weights.items())
        settings = SampleSettings(weights=expression, pick=rule, **shared)
    else:
        targets = _l2(policy, weights) if rule == "l2" else {name: 1.0 for name, weight in weights.items() if weight}
        settings = SampleSettings(target=tuple(f"{name}={number:.4f}" for name, number in targets.items()), **shared)
    irlhf.sample(given.policy, given.examples, samples, settings)
    irlhf.score(samples, given.rewards, scored, ScoreSettings())
    prompts: dict[str, list[list[float]]] = {}
    for where, row in read_rows(scored):
        example = from_json(row, where)
        own = policy.own(example.rewards)
        prompts.setdefault(example.cluster, []).append([policy.reward(name).zscore(own[name]) for name in policy.names])
    return np.array([np.mean(rows, axis=0) for _, rows in sorted(prompts.items())])


def _l2(policy: Policy, weights: Mapping[str, float]) -> dict[str, float]:
    """Return the targets of Rewards-in-Context's map, in the units of the scales."""
    norm = math.hypot(*weights.values())
    targets = {}
    for card, column in zip(policy.rewards, zip(*policy.reservoir, strict=True), strict=True):
        ordered = sorted(column, key=card.zscore)
        worst, best = ordered[0], ordered[-1]
        targets[card.name] = card.scale(worst + weights[card.name] / norm * (best - worst))
    return targets


def _measured(found: Mapping[str, Floats]) -> dict[str, object]:
    """Return the rules' figures with 95% intervals; all answer the same prompts [weightings, prompts, rewards]."""
    steps, prompts, _ = next(iter(found.values())).shape
    shares = np.array([[i / STEPS, 1 - i / STEPS] for i in range(steps)])
    times = np.concatenate(list(draws(prompts, prompts, Bootstrap()))) / prompts
    times = np.concatenate([np.full((1, prompts), 1 / prompts), times])  # first the value itself
    means = {rule: np.einsum("dp,wpr->dwr", times, points) for rule, points in found.items()}
    weighted = {rule: (mean * shares).sum(2) for rule, mean in means.items()}
    return {
        "prompts": prompts,
        "samples": SAMPLES,
        "reference": REFERENCE,
        "rules": {
            rule: {
                "weighted": [_interval(weighted[rule][:, i]) for i in range(steps)],
                "mean": _interval(weighted[rule].mean(1)),
                "better_than_best": _interval((weighted[rule] - weighted["best"]).mean(1)),
                "hypervolume": _interval(np.array([_hypervolume(points) for points in means[rule]])),
                "points": [[round(float(one), 4) for one in point] for point in means[rule][0]],
            }
            for rule in found
        },
    }


def _interval(drawn: Floats) -> dict[str, float]:
    return interval(float(drawn[0]), drawn[1:])


def _hypervolume(points: Floats) -> float:
    return float(moocore.hypervolume(-points, ref=[-REFERENCE] * points.shape[1]))


if __name__ == "__main__":
    main()
