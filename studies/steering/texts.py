"""Measures what targets do to the texts: diversity, length, and tracking with the length partialled out.

    python texts.py SCORED_SAMPLES POLICY OUT.json

For the samples in each third of a reward's targets (low, medium, high) and for all of them: distinct-2 (the share of
bigrams that are different, over as many samples in each third), mean tokens and the share that ends by itself. And for
each reward the rank correlation of target and actual within prompts, plain and partial, given the completion's length
in words, averaged over prompts. Beside them stand the policy's figures of training: its plan, its steering information,
and how that and the loss on held-out rows went.
"""

import itertools
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy.stats import rankdata

from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import STOP, Example, as_text, from_json
from irlhf.io.files import read_rows
from irlhf.policy.policy_file import METRICS, read_policy

LEVELS = ("low", "medium", "high")


def main() -> None:
    """Write the figures."""
    source, policy, output = map(Path, sys.argv[1:])
    rows = [from_json(row, where) for where, row in read_rows(source)]
    names = list(rows[0].prompt_numbers)
    training = read_policy(policy).training
    found = {
        "all": described(rows, len(rows) // 3),
        "levels": {name: levels(rows, name) for name in names},
        "tracking": {name: tracking(rows, name) for name in names},
        "training": {name: training[name] for name in ("rows", "steps", "plan", "steering") if name in training},
        "curve": [row for _, row in read_rows(policy / METRICS) if "validation_loss" in row],
    }
    output.write_text(json.dumps(found, indent=1) + "\n")


def levels(rows: Sequence[Example], name: str) -> dict[str, dict[str, float]]:
    """Return the figures of each third of the targets of a reward."""
    order = sorted(rows, key=lambda row: row.prompt_numbers[name])
    third = len(order) // 3
    parts = (order[:third], order[third : 2 * third], order[2 * third :])
    return {level: described(part, third) for level, part in zip(LEVELS, parts, strict=True)}


def described(rows: Sequence[Example], count: int) -> dict[str, float]:
    """Return the figures of texts; distinct-2 is of `count` of them, drawn with a fixed seed."""
    texts = [as_text(row.completion).split() for row in random.Random(0).sample(list(rows), min(count, len(rows)))]
    bigrams = [pair for words in texts for pair in itertools.pairwise(words)]
    return {
        "n": len(rows),
        "distinct_2": round(len(set(bigrams)) / max(1, len(bigrams)), 4),
        "tokens": round(fmean(row.tokens or 0 for row in rows), 2),
        "entropy": round(fmean(row.entropy or 0.0 for row in rows), 4),
        "ended": round(fmean(row.finish == STOP for row in rows), 4),
        "repeated_words": round(fmean(repeated(words) for words in texts), 4),
    }


def repeated(words: Sequence[str]) -> float:
    """Return the share of words that stood earlier in the text."""
    return 1 - len(set(words)) / len(words) if words else 0.0


def tracking(rows: Sequence[Example], name: str) -> Mapping[str, object]:
    """Return the mean rank correlation within prompts of target and actual, plain and given the length."""
    prompts: dict[str, list[Example]] = {}
    for row in rows:
        prompts.setdefault(row.cluster, []).append(row)
    plain, partial = [], []
    for group in prompts.values():
        target, actual = (
            [numbers[name] for numbers in column]
            for column in zip(*((row.prompt_numbers, row.rewards) for row in group), strict=True)
        )
        length = [len(as_text(row.completion).split()) for row in group]
        r, a, b = correlation(target, actual), correlation(target, length), correlation(actual, length)
        plain.append(r)
        partial.append((r - a * b) / max(1e-9, np.sqrt((1 - a * a) * (1 - b * b))))
    columns = {"plain": np.array(plain), "partial": np.clip(np.array(partial), -1, 1)}

    def means(times: Floats) -> dict[str, Floats]:
        return {key: times @ column / times.sum(axis=1) for key, column in columns.items()}

    return {"prompts": len(prompts), **clustered(list(prompts), means, Bootstrap())}


def correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation; 0 where one side is constant."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 0.0
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


if __name__ == "__main__":
    main()
