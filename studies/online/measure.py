"""Measures the last policy of every arm on test prompts: gold at fixed requests, and what it costs in diversity.

python measure.py FOLDER... -o OUTPUT

In each FOLDER stand, made by test.sh, test-ARM-mix.jsonl and test-ARM-data.jsonl: gold-scored samples of one arm's last
policy, all arms asked the same. `start` is the policy that all rounds went on from.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from irlhf.core.bootstrap import Bootstrap, Interval, clustered
from irlhf.core.statistics import mean
from irlhf.evaluation.costs import diversity
from irlhf.io.files import read_rows
from irlhf.policy.policy_file import Policy, read_policy

AGAINST = ("start", "offline")  # what each arm is held against, prompt by prompt

Row = dict[str, Any]


def main() -> None:
    """Write one entry for every arm of every folder."""
    at = sys.argv.index("-o")
    folders, output = sys.argv[1:at], Path(sys.argv[at + 1])
    card = read_policy(Path("policy"))
    found = {folder: measured(Path(folder), card) for folder in folders}
    output.write_text(json.dumps(found, indent=1) + "\n")


def measured(folder: Path, card: Policy) -> dict[str, Any]:
    """Return the figures of each arm of one folder."""
    arms = sorted(
        path.name.removeprefix("test-").removesuffix("-mix.jsonl") for path in folder.glob("test-*-mix.jsonl")
    )
    rows = {arm: {kind: read(folder / f"test-{arm}-{kind}.jsonl") for kind in ("mix", "data")} for arm in arms}
    # Gold is measured in standard deviations of what the first policy says where it is asked as training rows are.
    ruler = {
        name: (fmean(column(rows["start"]["data"], name)), pstdev(column(rows["start"]["data"], name)))
        for name in card.names
    }

    def gold(row: Row) -> float:
        return fmean((row["gold"][name] - middle) / width for name, (middle, width) in ruler.items())

    golds = {arm: by_prompt(each["mix"], [gold(row) for row in each["mix"]]) for arm, each in rows.items()}
    return {arm: figures(each, golds, arm, card) for arm, each in rows.items()}


def figures(rows: dict[str, list[Row]], golds: dict[str, dict[str, float]], arm: str, card: Policy) -> dict[str, Any]:
    """Return gold and reward of an arm with what it is held against, entropy, and diversity at both requests."""
    prompts = sorted(golds[arm])
    weights = dict.fromkeys(card.names, 1.0)
    rewards = by_prompt(rows["mix"], [card.weighted(row["rewards"], weights) for row in rows["mix"]])
    against = {other: [golds[arm][one] - golds[other][one] for one in prompts] for other in AGAINST if other in golds}
    kinds = {kind: diversity([row["completion"] for row in each], 0) for kind, each in rows.items()}
    return {
        "prompts": len(prompts),
        "samples": len(rows["mix"]),
        "gold": interval(prompts, [golds[arm][one] for one in prompts]),
        "reward": interval(prompts, [rewards[one] for one in prompts]),
        "less": {other: interval(prompts, differences) for other, differences in against.items()},
        "entropy": {kind: fmean(column(each, "", "entropy")) for kind, each in rows.items()},
        "words": fmean(len(row["completion"].split()) for row in rows["mix"]),
        "distinct_2": {kind: one["distinct_2"] for kind, one in kinds.items()},
        "unique": {kind: one["unique"] for kind, one in kinds.items()},
    }


def read(path: Path) -> list[Row]:
    """Return a file's rows."""
    return [row for _, row in read_rows(path)]


def column(rows: Sequence[Row], name: str, key: str = "gold") -> list[float]:
    """Return one number of each row."""
    return [row[key][name] if name else row[key] for row in rows]


def by_prompt(rows: Sequence[Row], numbers: Sequence[float]) -> dict[str, float]:
    """Return the mean of each prompt."""
    found: dict[str, list[float]] = {}
    for row, number in zip(rows, numbers, strict=True):
        found.setdefault(row["group"], []).append(number)
    return {prompt: fmean(each) for prompt, each in found.items()}


def interval(prompts: Sequence[str], numbers: Sequence[float]) -> Interval:
    """Return the mean with its interval, prompts drawn anew."""
    values = np.array(numbers)
    return clustered(prompts, lambda times: {"mean": mean(times, values)}, Bootstrap())["mean"]


if __name__ == "__main__":
    main()
