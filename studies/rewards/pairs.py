"""Makes preference pairs of scored rows: a known rule labels them, and some of the labels are wrong.

    python pairs.py SCORED REWARD NOISE SEED

Two replies to one prompt are a pair where the rule parts them. noisy.jsonl has the pairs of the training and validation
prompts, of which the share NOISE is labelled the wrong way round; clean.jsonl has those of the test prompts, each
labelled right.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irlhf.core.example import CHOSEN, REJECTED, TEST
from irlhf.io.files import read_rows

Row = dict[str, Any]


def main() -> None:
    """Write both files."""
    source, reward, noise, seed = sys.argv[1:]
    rng = random.Random(f"pairs/{seed}")
    prompts: dict[str, list[Row]] = {}
    for _, row in read_rows(Path(source)):
        prompts.setdefault(row["group"], []).append(row)
    with Path("noisy.jsonl").open("w") as noisy, Path("clean.jsonl").open("w") as clean:
        for rows in prompts.values():
            tested = rows[0]["split"] == TEST
            for number, (better, worse) in enumerate(parted(rows, reward, rng)):
                wrong = not tested and rng.random() < float(noise)
                labels = {better["id"]: REJECTED if wrong else CHOSEN, worse["id"]: CHOSEN if wrong else REJECTED}
                for row in (better, worse):
                    labelled = {**row, "label": labels[row["id"]], "pair": number}
                    (clean if tested else noisy).write(json.dumps(labelled) + "\n")


def parted(rows: list[Row], reward: str, rng: random.Random) -> Iterator[tuple[Row, Row]]:
    """Yield pairs (better, worse) in which every row stands at most once."""
    order = rng.sample(rows, len(rows))
    for pair in zip(order[::2], order[1::2], strict=False):
        worse, better = sorted(pair, key=lambda row: float(row["rewards"][reward]))
        if better["rewards"][reward] > worse["rewards"][reward]:
            yield better, worse


if __name__ == "__main__":
    main()
