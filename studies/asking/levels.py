"""Writes what came back at each level of one reward's target: wanted, asked, mean actual with its interval.

python levels.py SCORED POLICY REWARD -o levels.json
"""

import argparse
from pathlib import Path

import numpy as np

from irlhf.core.bootstrap import Bootstrap, clustered
from irlhf.core.example import Example, from_json
from irlhf.io.files import read_rows, write_json
from irlhf.policy.policy_file import PolicyReward, read_policy
from irlhf.policy.targets import parse_value


def main() -> None:
    """Read the samples, and write one entry a level."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scored", type=Path)
    parser.add_argument("policy", type=Path)
    parser.add_argument("reward")
    parser.add_argument("-o", type=Path, required=True)
    given = parser.parse_args()
    card = read_policy(given.policy).reward(given.reward)
    rows = [from_json(row, where) for where, row in read_rows(given.scored)]
    wanted = parse_value(card.name, rows[0].target[card.name]).points()
    samples = len(rows) // len({row.cluster for row in rows}) // len(wanted)
    levels: dict[float, list[Example]] = {number: [] for number in wanted}
    for row in rows:
        # A prompt's samples are numbered along the sweep, some at each of its points.
        levels[wanted[int(row.id.rpartition("/")[2]) // samples]].append(row)
    write_json(given.o, {"levels": [_level(number, mine, card) for number, mine in levels.items()]})


def _level(wanted: float, rows: list[Example], card: PolicyReward) -> dict[str, object]:
    actual = np.array([card.scale(row.rewards[card.name]) for row in rows])
    found = clustered(
        [row.cluster for row in rows], lambda times: {"actual": times @ actual / times.sum(1)}, Bootstrap()
    )
    return {"wanted": wanted, "asked": rows[0].prompt_numbers[card.name], "n": len(rows), **found}


if __name__ == "__main__":
    main()
