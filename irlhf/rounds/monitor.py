"""Measure the policy after every round, on fixed validation prompts with fixed targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from irlhf.core.bootstrap import Bootstrap, Floats, Interval, clustered
from irlhf.core.example import VALIDATION, Example, from_json
from irlhf.core.statistics import mean
from irlhf.evaluation.arms import by_prompt
from irlhf.evaluation.entropy import NOT_AVAILABLE
from irlhf.evaluation.fronts import hypervolume, undominated
from irlhf.io.files import read_json, read_rows
from irlhf.io.resumable import counts_of
from irlhf.rounds.round_targets import mix, same_target
from irlhf.rounds.types import Loop, RequestedTargets
from irlhf.sampling.settings import SampleSettings

EACH = 4  # samples per prompt, for each of the targets `mix` and `data`
_QUANTILES = (10, 50, 90)

Ruler = Mapping[str, tuple[float, float, float]]  # per gold reward: mean, standard deviation, direction (1 or -1)


@dataclass(frozen=True)
class Measurement:
    """The measurement of one policy."""

    policy: Path
    figures: Mapping[str, Any]
    rewards: Mapping[str, float]  # weighted mean by prompt, in standard deviations
    golds: Mapping[str, float]  # the same for gold rewards

    @property
    def gold(self) -> float:
        """The mean weighted gold reward; 0 without gold scorers."""
        return fmean(self.golds.values()) if self.golds else 0.0

    def fallen(self, before: Measurement) -> str:
        """Return the fall of the gold reward since `before`, with a 95% interval, if the rewards rose; else ""."""
        prompts = sorted(self.golds.keys() & before.golds.keys())
        if not prompts or fmean(self.rewards[prompt] - before.rewards[prompt] for prompt in prompts) <= 0:
            return ""
        change = _interval(prompts, [self.golds[prompt] - before.golds[prompt] for prompt in prompts])
        return f"by {-change['value']:.2f} [{-change['high']:.2f}, {-change['low']:.2f}]" if change["high"] < 0 else ""


def watch(loop: Loop, policy: Path, folder: Path) -> Measurement:
    """Sample, score and evaluate a policy on the fixed prompts; writes files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {"data": same_target(loop.policy, "data"), "mix": RequestedTargets(weights=mix(loop.policy))}
    scored = {kind: _scored_samples(loop, policy, folder, kind, kinds[kind]) for kind in kinds}
    loop.evaluate([*scored.values()], folder / "eval.json", policy)
    rows = {kind: _rows(path) for kind, path in scored.items()}
    ruler = _ruler(loop, _rows(loop.out / "round-0" / scored["data"].name))
    rewards, golds = _weighted(loop, rows["mix"]), _gold(loop, rows["mix"], ruler)
    (evaluated,) = read_json(folder / "eval.json")["policies"].values()
    figures = _figures(loop, rows["mix"], (rewards, golds)) | _evaluated(evaluated)
    return Measurement(
        policy, figures, _by_prompt(rows["mix"], rewards), _by_prompt(rows["mix"], golds) if golds else {}
    )


def drawn(loop: Loop, folder: Path, requested: RequestedTargets) -> dict[str, Any]:
    """Return the targets and sample counts of a round, and the means of kept and dropped samples."""
    scored = {row.id: row for row in _rows(folder / "scored.jsonl")}
    kept = {row.id for row in _rows(folder / "kept.jsonl")}
    counts = counts_of(folder / "kept.jsonl")
    sides = {
        "kept": [scored[row_id] for row_id in scored if row_id in kept],
        "dropped": [scored[row_id] for row_id in scored if row_id not in kept],
    }
    return {
        "asked": requested.options,
        "scorer calls": len(scored),
        "drawn": {"samples": len(scored), "kept": len(kept)}
        | {name: number for name, number in counts.items() if name.startswith("dropped by")},
        "reward in training": _interval([row.cluster for row in scored.values()], _weighted(loop, [*scored.values()])),
        "sides": {side: _side(loop, rows) for side, rows in sides.items() if rows},
    }


def _side(loop: Loop, rows: Sequence[Example]) -> dict[str, Any]:
    """Return the number of rows, and their mean reward, entropy and tokens."""
    measures: dict[str, Callable[[Example], float | None]] = {
        "reward": lambda row: _weighted(loop, [row])[0],
        "entropy": lambda row: row.entropy,
        "tokens": lambda row: row.tokens,
    }
    summary: dict[str, Any] = {"n": len(rows)}
    for name, measure in measures.items():
        known = [number for row in rows if (number := measure(row)) is not None]
        summary[name] = fmean(known) if known else NOT_AVAILABLE
    return summary


def _scored_samples(loop: Loop, policy: Path, folder: Path, kind: str, requested: RequestedTargets) -> Path:
    """Sample and score the fixed prompts; return the file of scored samples."""
    samples, scored, gold = (folder / f"{name}-{kind}.jsonl" for name in ("watch", "watched", "gold"))
    reference = "" if loop.policy.hosted else str(loop.start)  # providers return no logprobs of given text
    settings = SampleSettings(n=EACH, seed=loop.seed, split=VALIDATION, reference=reference)
    loop.sample(policy, loop.out / "watch.jsonl", samples, requested, settings)
    loop.score(samples, scored)
    if not loop.named.gold:
        return scored
    loop.score(scored, gold, gold=True)
    return gold


def _figures(loop: Loop, rows: Sequence[Example], weighted: tuple[Sequence[float], Sequence[float]]) -> dict[str, Any]:
    rewards, golds = weighted
    prompts = [row.cluster for row in rows]
    points = np.array(
        [[loop.policy.reward(name).zscore(own) for name, own in _rewards(loop, row).items()] for row in rows]
    )
    return {
        "samples": len(rows),
        "prompts": len(set(prompts)),
        "reward": _interval(prompts, rewards),
        "quantiles": {f"p{per_cent}": float(np.percentile(rewards, per_cent)) for per_cent in _QUANTILES},
        "rewards": {name: _interval(prompts, points[:, i]) for i, name in enumerate(loop.policy.names)},
        "front": hypervolume(points[undominated(points)]),
        "gold": _interval(prompts, golds) if golds else NOT_AVAILABLE,
    }


def _evaluated(evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of `irlhf eval` over all targets."""
    diversity = evaluated["diversity"]
    return {
        "tracking": {
            name: metrics["within"].get("spearman", NOT_AVAILABLE) for name, metrics in evaluated["rewards"].items()
        },
        "entropy": evaluated["entropy"],
        "kl": evaluated["kl"],
        "words": evaluated["length"]["words"],
        "distinct_2": diversity["distinct_2"],
        "unique": diversity["unique"],
    }


def _rewards(loop: Loop, row: Example) -> dict[str, float]:
    own = loop.policy.own(row.rewards)
    return {name: own[name] for name in loop.policy.names}


def _weighted(loop: Loop, rows: Sequence[Example]) -> list[float]:
    """Return the weighted rewards, in standard deviations above the mean of the training rows of the policy."""
    weights = {reward.name: reward.weight for reward in loop.policy.rewards}
    return [loop.policy.weighted(_rewards(loop, row), weights) for row in rows]


def _ruler(loop: Loop, rows: Sequence[Example]) -> Ruler:
    """Return mean and deviation of the gold rewards of the first policy with the targets `data`."""
    ruler = {}
    for name, spec in loop.named.gold.items():
        numbers = [row.gold[name] for row in rows]
        ruler[name] = (fmean(numbers), pstdev(numbers) or 1.0, -1.0 if spec.direction == "lower" else 1.0)
    return ruler


def _gold(loop: Loop, rows: Sequence[Example], ruler: Ruler) -> list[float]:
    """Return the weighted gold reward of each row, standardized by `ruler`, or [] without gold scorers."""
    weights = {name: loop.named.rewards[name].weight for name in ruler}
    total = sum(weights.values())
    if not total:
        return []

    def gold(row: Example) -> float:
        terms = (
            weights[name] * sign * (row.gold[name] - middle) / width for name, (middle, width, sign) in ruler.items()
        )
        return sum(terms) / total

    return [gold(row) for row in rows]


def _by_prompt(rows: Sequence[Example], numbers: Sequence[float]) -> dict[str, float]:
    places = by_prompt([row.cluster for row in rows])
    return {prompt: fmean(numbers[index] for index in indices) for prompt, indices in places}


def _interval(prompts: Sequence[str], numbers: Sequence[float] | Floats) -> Interval:
    values = np.asarray(numbers, dtype=float)
    return clustered(prompts, lambda times: {"mean": mean(times, values)}, Bootstrap())["mean"]


def _rows(path: Path) -> list[Example]:
    return [from_json(row, where) for where, row in read_rows(path)]
