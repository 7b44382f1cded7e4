"""Evaluations, rounds and samples that look like real ones, drawn from a seed, for the pictures and the report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from helpers import write

from irlhf.core.bootstrap import Bootstrap
from irlhf.core.example import Example
from irlhf.core.pairs import Pair, accuracy

NONE = "not available"
POLICIES = (("policy", ""), ("plain", "plain"), ("top", "top"))
WEIGHTINGS = ((1, 0), (2, 1), (1, 1), (1, 2), (0, 1))
TRACKS = ("pearson", "spearman")


@dataclass(frozen=True)
class Shape:
    """What an evaluation holds. Its policies are pairs of a name and a baseline."""

    rewards: Sequence[str] = ("kindness", "detail")
    policies: Sequence[tuple[str, str]] = POLICIES
    weightings: Sequence[Sequence[float]] = WEIGHTINGS
    gold: bool = True
    prompts: int = 60
    seed: int = 0


def interval(value: float, half: float = 0.03) -> dict[str, float]:
    """Return a figure with its interval."""
    return {"value": float(value), "low": float(value - half), "high": float(value + half)}


def write_evaluation(shape: Shape = Shape(), path: str | Path = "eval.json") -> Path:
    """Write an eval.json and return where."""
    Path(path).write_text(json.dumps(evaluation(shape)), encoding="utf-8")
    return Path(path)


def evaluation(shape: Shape = Shape()) -> dict[str, Any]:
    """Return an eval.json, version 3 (plot converts it): a policy that follows its targets, baselines that do not."""
    rng = np.random.default_rng(shape.seed)
    policies = {_key(i): _policy(i, shape, rng) for i in range(len(shape.policies))}
    return {
        "version": 3,
        "samples": ["scored-samples.jsonl"],
        "settings": {"policies": [], "tolerance": 0.1, "resamples": 1000, "seed": shape.seed},
        "provenance": {
            "irlhf": "0.1.0",
            "inputs": [{"path": "scored-samples.jsonl", "sha256": "0f" * 32, "rows": 8 * shape.prompts}],
        },
        "policies": policies,
        "tradeoff": _tradeoff(shape, rng),
        "fronts": _fronts(shape, rng) if len(shape.weightings) > 1 and len(shape.rewards) > 1 else {},
        "comparisons": [_comparison(i, shape, rng) for i in range(1, len(shape.policies))],
    }


def evaluation_of_pairs(rewards: Sequence[str], gold: Sequence[str] = (), count: int = 60) -> dict[str, Any]:
    """Return an eval.json of preference pairs: the first reward is a reward model's logit."""
    rng = np.random.default_rng(0)
    one, two = (Example(id=side, prompt="p", completion=side * 3) for side in ("a ", "b "))
    pairs = [Pair(one, two)] * count
    counts = {"rows": 2 * count, "unlabelled": 0, "ungrouped": 0, "alone": 0, "equal": 0, "pairs": count}

    def figures(calibrated: bool) -> dict[str, Any]:
        differences = rng.normal(0.5, 1, count).tolist()
        return {"direction": "lower", **accuracy(pairs, differences, Bootstrap(100), calibrated)}

    found = {name: figures(number == 0) for number, name in enumerate(rewards)}
    held = {"rewards": found, "gold": {name: figures(False) for name in gold}}
    return {
        **evaluation(Shape(policies=[], weightings=[])),
        "pairs": {"counts": counts, "splits": {"test": count}, **held},
    }


def rounds(arms: Sequence[str] = ("online",), count: int = 3) -> dict[str, Any]:
    """Return a rounds.json, version 1: the reward rises in every arm, and gold bends down."""
    found = [
        {
            "name": name,
            "keep": "distinct",
            "draws": True,
            "trains": True,
            "rounds": [_round(i, n) for n in range(count + 1)],
        }
        for i, name in enumerate(arms)
    ]
    return {"version": 1, "names": list(Shape().rewards), "settings": {"rounds": count}, "arms": found}


def write_rounds(found: dict[str, Any], folder: str | Path = ".") -> Path:
    """Write a rounds.json and an eval.json for each of its rounds; return where the first stands."""
    for row in found["arms"][0]["rounds"]:
        (Path(folder) / f"round-{row['round']}").mkdir(parents=True, exist_ok=True)
        shape = Shape(policies=[("policy", "")], prompts=6, seed=row["round"])
        write_evaluation(shape, Path(folder) / f"round-{row['round']}" / "eval.json")
    path = Path(folder) / "rounds.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def _round(arm: int, number: int) -> dict[str, Any]:
    x = number * (1 + 0.1 * arm)
    watched = {
        "round": number,
        "samples": 24,
        "prompts": 6,
        "reward": interval(1 + 0.1 * x, 0.05),
        "gold": interval(1 + 0.1 * x - 0.02 * x**2, 0.05),
        "tracking": {name: interval(0.7 - 0.02 * x, 0.1) for name in Shape().rewards},
        "entropy": interval(1.9 - 0.1 * x),
        "kl": interval(5 + x, 0.4),
        "words": interval(25 + x, 0.9),
        "distinct_2": {"value": 0.7 - 0.01 * x, "error": 0.01},
        "unique": {"value": 1.0, "error": None},
    }
    sides = {
        "kept": {"n": 20, "reward": 1 + 0.1 * x, "entropy": 1.9, "tokens": 41.2},
        "dropped": {"n": 4, "reward": 1 + 0.2 * x, "entropy": 0.8, "tokens": 47.5},
    }
    drawn = {"samples": 24, "kept": 20, "dropped by distinct": 0, "dropped by entropy": 4}
    return {**watched, "drawn": drawn, "sides": sides} if number else watched


def write_samples(shape: Shape = Shape(), path: str | Path = "samples.jsonl", **fields: Any) -> Path:
    """Write scored samples of the evaluation's policies, two a prompt."""
    rng = np.random.default_rng(shape.seed)
    rows = []
    for i in range(len(shape.policies)):
        for number in range(2 * shape.prompts):
            asked = {name: round(float(rng.uniform(0.05, 0.95)), 2) for name in shape.rewards}
            given = {name: round(4 * x - 2 + float(rng.normal(0, 0.3)), 3) for name, x in asked.items()}
            row = {
                "id": f"p{number // 2}/{_key(i)}/0/{number % 2}",
                "group": f"p{number // 2}",
                "prompt": f"How do I mend lamp {number // 2}?",
                "completion": f"Answer {number}: first unplug it, then look at the fuse.",
                "target": {name: f"{x:g}" for name, x in asked.items()},
                "asked": asked,
                "rewards": given,
                "gold": {shape.rewards[0]: round(given[shape.rewards[0]] * 0.8, 3)},
                "policy": _key(i),
            }
            rows.append({**row, **fields})
    return write(Path(path), rows)


def _key(number: int) -> str:
    return f"{number + 10:012x}"


def _policy(number: int, shape: Shape, rng: np.random.Generator) -> dict[str, Any]:
    name, baseline = shape.policies[number]
    n = 8 * shape.prompts
    rewards = {reward: _reward(shape, not baseline, rng) for reward in shape.rewards}
    return {
        "name": name,
        "digest": _key(number),
        "baseline": baseline,
        "blind": bool(baseline),
        "base": "tiny",
        "samples": n,
        "prompts": shape.prompts,
        "splits": {"test": 8 * shape.prompts},
        "decoding": [{"temperature": 1.0, "top_p": 1.0, "max_tokens": 128, "guidance": 1.0}],
        "rewards": rewards,
        "crosstalk": _crosstalk(shape, not baseline, rng) if len(shape.rewards) > 1 else {},
        "entropy": interval(1.9 - 0.2 * number),
        "kl": interval(12 + 3 * number, 0.8),
        "length": {"tokens": interval(41 + number, 1.2), "words": interval(30 + number, 0.9)},
        "cost": {"candidates": 1.0, "tokens": 41.2},
        "diversity": {
            "unique": {"value": 0.98, "error": 0.01},
            "unique_of": 100,
            "budget": 1000,
            "chunks": 14,
            "distinct_1": {"value": 0.31, "error": 0.01},
            "distinct_2": {"value": 0.72, "error": 0.02},
        },
        "unfinished": 3,
    }


def _reward(shape: Shape, steered: bool, rng: np.random.Generator) -> dict[str, Any]:
    n = 8 * shape.prompts
    asked = np.random.default_rng(shape.seed).uniform(0, 1, n)  # every policy is held to the same targets
    follow = 0.86 if steered else 0.0
    actual = np.clip(follow * asked + (1 - follow) * 0.5 + rng.normal(0, 0.1 if steered else 0.28, n), 0, 1)
    rho = float(np.corrcoef(asked, actual)[0, 1])
    tracks = {kind: interval(rho * share) for kind, share in zip(TRACKS, (1, 0.98), strict=True)}
    off = np.abs(actual - asked)
    found: dict[str, Any] = {
        "scale": "quantile",
        "direction": "higher",
        "n": n,
        "prompts": shape.prompts,
        "asked": interval(float(asked.mean())),
        "actual": interval(float(actual.mean())),
        "pooled": {**tracks, "slope": interval(follow)},
        "within": {"prompts": shape.prompts, **tracks, "violations": interval(0.5 - rho / 2)},
        "error": {"mean_absolute": interval(float(off.mean()), 0.01), "floor_permuted": 0.33, "floor_constant": 0.25},
        "success": {
            "tolerance": 0.1,
            "share": interval(float((off < 0.1).mean())),
            "floor_permuted": 0.19,
            "floor_constant": 0.2,
        },
        "at_least": {"share": interval(float((actual >= asked).mean())), "floor_permuted": 0.5},
        "curve": _curve(asked, actual, shape.gold),
        "points": [[float(x), float(y)] for x, y in zip(asked, actual, strict=True)][:2000],
    }
    if shape.gold:
        over = {"peak": 0.75, "top": 0.95, "fall": interval(0.12, 0.07)} if steered else {}
        track = interval(rho * 0.8)
        found["gold"] = {"n": n, "prompts": shape.prompts, "within": track, "pooled": track, "over": over}
    return found


def _share(value: float, half: float = 0.08) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def _curve(asked: Any, actual: Any, gold: bool) -> list[dict[str, Any]]:
    bins = []
    for part in np.array_split(np.argsort(asked), 10):
        x, given = float(asked[part].mean()), actual[part]
        half = 1.96 * float(given.std()) / len(part) ** 0.5
        bins.append(
            {
                "asked": x,
                "n": len(part),
                "actual": interval(float(given.mean()), half),
                "p10": float(np.percentile(given, 10)),
                "p90": float(np.percentile(given, 90)),
                "at_least": _share(float((given >= asked[part]).mean())),
                "entropy": 2.1 - 0.8 * (x - 0.4) ** 2,
                "kl": 6 + 22 * (x - 0.5) ** 2,
                **({"gold": interval(2 * float(given.mean()) - 3 * max(0, x - 0.75), 0.15)} if gold else {}),
            }
        )
    return bins


def _crosstalk(shape: Shape, steered: bool, rng: np.random.Generator) -> dict[str, Any]:
    ideal = np.eye(len(shape.rewards)) * (0.86 if steered else 0)
    slopes = ideal + rng.normal(0, 0.06, ideal.shape)
    rows = [[interval(x, 0.05) for x in row] for row in slopes]
    names = {"targets": list(shape.rewards), "rewards": list(shape.rewards)}
    return {"n": 8 * shape.prompts, "prompts": shape.prompts, **names, "slopes": rows}


def _tradeoff(shape: Shape, rng: np.random.Generator) -> list[dict[str, Any]]:
    fixed = {i: _place([1.0] * len(shape.rewards), 0.3 * i, rng) for i in range(1, len(shape.policies))}
    mixes = []
    for weighting in shape.weightings:
        weights = dict(zip(shape.rewards, weighting, strict=False))
        arms = []
        for i, (name, baseline) in enumerate(shape.policies):
            place = fixed[i] if baseline else _place([weights.get(one, 0) for one in shape.rewards], 1.8, rng)
            rewards = {one: interval(x, 0.09) for one, x in zip(shape.rewards, place, strict=True)}
            total = sum(weights.values())
            weighted = sum(weights[one] * rewards[one]["value"] for one in weights) / total
            arms.append(
                {
                    "policy": _key(i),
                    "name": name,
                    "baseline": baseline,
                    "blind": bool(baseline),
                    "n": 4 * shape.prompts,
                    "prompts": shape.prompts,
                    "weighted": interval(weighted, 0.07),
                    "rewards": rewards,
                    "entropy": 1.9 - 0.2 * abs(weighted) + float(rng.normal(0, 0.03)),
                    "kl": 10 + 4 * abs(weighted) + float(rng.normal(0, 0.5)),
                }
            )
        mixes.append({"weights": weights, "data": 0.0, "arms": arms})
    return mixes


def _place(weights: Sequence[float], reach: float, rng: np.random.Generator) -> Any:
    """Return where a weighting lands: on an arc as far out as the arm reaches."""
    length = float(np.hypot.reduce(weights)) or 1.0
    return np.array(weights) / length * reach - 0.1 + rng.normal(0, 0.06, len(weights))


def _fronts(shape: Shape, rng: np.random.Generator) -> dict[str, Any]:
    names = list(shape.rewards)
    arms = []
    for i, (name, baseline) in enumerate(shape.policies):
        points = []
        for j, weighting in enumerate(shape.weightings):
            place = _place(list(weighting) + [0] * (len(names) - len(weighting)), 0.3 * i if baseline else 1.8, rng)
            weights = dict(zip(names, weighting, strict=False))
            points.append({"weights": weights, "rewards": dict(zip(names, place, strict=True)), "chosen": j != 3})
        others = {_key(j): round(0.3 * (i == 0), 2) for j in range(len(shape.policies)) if j != i}
        arms.append(
            {
                "policy": _key(i),
                "name": name,
                "baseline": baseline,
                "hypervolume": interval(3.4 - 0.8 * i, 0.2),
                "mean_inner_product": interval(1.3 - 0.4 * i, 0.1),
                "points": points,
                "dominates": others,
            }
        )
    reference = dict.fromkeys(names, -1.0)
    n = 4 * shape.prompts
    return {
        "rewards": names,
        "reference": reference,
        "weightings": len(shape.weightings),
        "samples": n,
        "arms": arms,
    }


def _comparison(against: int, shape: Shape, rng: np.random.Generator) -> dict[str, Any]:
    figures = [
        {"figure": kind, "reward": reward, "prompts": shape.prompts, "difference": interval(value, half)}
        for reward in shape.rewards
        for kind, value, half in (
            ("within", 0.9 + rng.normal(0, 0.03), 0.05),
            ("error", -0.22 + rng.normal(0, 0.02), 0.02),
            ("gold", 0.04 + rng.normal(0, 0.05), 0.06),
            ("tokens", 1.5 + rng.normal(0, 1), 2.0),
        )
    ]
    figures.append({"figure": "weighted", "reward": "1:1", "prompts": shape.prompts, "difference": interval(0.6, 0.1)})
    names = [name for name, _ in shape.policies]
    return {
        "policy": _key(0),
        "name": names[0],
        "against": _key(against),
        "against_name": names[against],
        "prompts": shape.prompts,
        "figures": figures,
    }
