"""Measure how far requests for one reward alone move it, in standard deviations of the untouched base model.

    python alone.py BASE.jsonl LOW.jsonl HIGH.jsonl REWARD [OUT.json]

BASE holds scored samples of the base model, several for each prompt. LOW and HIGH hold one scored sample of a policy
for each of the same prompts, requested at the 10th and the 90th percentile of REWARD. The unit is the standard
deviation of the base's samples of one prompt. Intervals are 95%, by a bootstrap over prompts.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, variance
from typing import Any

import numpy as np

from irlhf.core.example import from_json
from irlhf.io.files import read_rows, write_json

RESAMPLES, SEED = 2000, 0


def main() -> None:
    """Print the figures, or write them to a file."""
    base, low, high, reward, *output = sys.argv[1:]
    found = measured(Path(base), Path(low), Path(high), reward)
    if output:
        write_json(Path(output[0]), found)
    else:
        print(json.dumps(found))


def measured(base: Path, low: Path, high: Path, reward: str) -> dict[str, Any]:
    """Return the means below and above the base's mean, and their difference with its interval."""
    own = by_prompt(base, reward)
    unit = fmean(variance(values) for values in own.values() if len(values) > 1) ** 0.5
    middle = fmean(value for values in own.values() for value in values)
    sides = [by_prompt(path, reward) for path in (low, high)]
    prompts = sorted(sides[0].keys() & sides[1].keys())
    shifts = np.array([[(fmean(side[prompt]) - middle) / unit for prompt in prompts] for side in sides])
    drawn = np.random.default_rng(SEED).integers(len(prompts), size=(RESAMPLES, len(prompts)))
    figures = {"low": shifts[0], "high": shifts[1], "difference": shifts[1] - shifts[0]}
    return {"prompts": len(prompts), **{name: interval(values, drawn) for name, values in figures.items()}}


def by_prompt(path: Path, reward: str) -> dict[str, list[float]]:
    """Return the rewards of a file by prompt."""
    rewards = defaultdict(list)
    for where, row in read_rows(path):
        example = from_json(row, where)
        rewards[example.cluster].append(example.rewards[reward])
    return rewards


def interval(values: Any, drawn: Any) -> dict[str, float]:
    """Return the mean over prompts with its bootstrap interval."""
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


if __name__ == "__main__":
    main()
