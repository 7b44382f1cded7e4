"""Measures how diverse offline rows are at the rewards that rounds bring: better rows may be more alike by themselves.

python bands.py FOLDER... -o OUTPUT

Each FOLDER is a cell of rounds.yaml. Training rows are sorted by weighted reward into bands, and distinct-2 of each is
counted as that of samples is.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from irlhf.core.example import TRAIN
from irlhf.evaluation.costs import diversity
from irlhf.io.files import read_rows
from irlhf.policy.policy_file import read_policy

EDGES = (-0.5, 0.0, 0.5, 0.9, 1.1, 1.3, 9.0)  # standard deviations above the mean


def main() -> None:
    """Write the bands of every folder."""
    at = sys.argv.index("-o")
    found = {Path(folder).name: bands(Path(folder)) for folder in sys.argv[1:at]}
    Path(sys.argv[at + 1]).write_text(json.dumps(found, indent=1) + "\n")


def bands(folder: Path) -> list[dict[str, Any]]:
    """Return rows, mean reward, words and distinct-2 of each band."""
    card = read_policy(folder / "policy")
    weights = dict.fromkeys(card.names, 1.0)
    rows = [row for _, row in read_rows(folder / "scored.jsonl") if row["split"] == TRAIN]
    rewards = [card.weighted(row["rewards"], weights) for row in rows]
    found = []
    for low, high in pairwise(EDGES):
        there = [i for i, reward in enumerate(rewards) if low <= reward < high]
        texts = [rows[i]["completion"] for i in there]
        found.append(
            {
                "rows": len(there),
                "reward": fmean(rewards[i] for i in there),
                "words": fmean(len(text.split()) for text in texts),
                "distinct_2": diversity(texts, 0)["distinct_2"],
            }
        )
    return found


if __name__ == "__main__":
    main()
