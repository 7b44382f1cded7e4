"""Writes the training rows of a round that draws no samples, and prints the options of its training.

python offline.py NUMBER RUN OUTPUT [SCORED-FRESH]

RUN is the folder of the rounds that it is held against. The rows are as many of SCORED-FRESH as RUN scores samples in a
round, and offline rows as RUN replays them, for as many tokens of completions.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from irlhf.core.example import TRAIN
from irlhf.io.files import read_rows
from irlhf.models.loading import counter
from irlhf.policy.policy_file import read_policy
from irlhf.rounds.replay import Offline, mixed, write_rows
from irlhf.rounds.settings import RoundsSettings


def main() -> None:
    """Write the rows of one round and print the options."""
    number, run, output, *fresh = sys.argv[1:]
    written = json.loads((Path(run) / "rounds.json").read_text())["settings"]
    settings = RoundsSettings(written["rounds"], written["prompts"], written["samples"], replay=written["replay"])
    policy = read_policy(Path("policy"))
    offline = replace(Offline.read(Path("scored.jsonl"), settings, policy.names), length=counter("policy"))
    scored = [row for path in fresh for _, row in read_rows(Path(path)) if row["split"] == TRAIN]
    new = scored[(int(number) - 1) * offline.batch : int(number) * offline.batch]
    rows, epochs = mixed(new, offline, settings, int(number), 0)
    write_rows(Path(output), rows)
    rate = policy.training["plan"]["rate"] / 3  # as rounds take it
    print(f"--epochs {epochs} --learning-rate {rate:.3g}")


if __name__ == "__main__":
    main()
