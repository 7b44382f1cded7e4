"""Choose the training rows of a round: samples, and offline rows against forgetting."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from irlhf.core import console
from irlhf.core.errors import DataError
from irlhf.core.example import TRAIN, as_text, dumps, from_json, unique
from irlhf.io.files import read_rows, whole_file
from irlhf.rounds.settings import RoundsSettings

Row = Mapping[str, Any]

_MAX_PASSES = 16  # largest number of passes over the rows of a round, if --epochs is 1


@dataclass(frozen=True)
class Offline:
    """Scored rows from before the rounds: the training rows of the policy."""

    known: Sequence[Row]
    batch: int  # number of samples per round
    seed: int
    length: Callable[[str], int]  # tokens of a completion

    @classmethod
    def read(cls, scored: Path, settings: RoundsSettings, names: Collection[str]) -> Offline:
        """Read the rows with at least one of these rewards. `length` counts characters until it is replaced.

        Raises DataError if there are no training rows.
        """
        known = _training_rows(scored, names)
        if not known:
            raise DataError(f"{scored}: no rows of the training split with one of the rewards {', '.join(names)}")
        prompts = len(prompts_of(scored, TRAIN))
        if prompts < settings.prompts:
            shortage = f"{prompts:,} training prompts, fewer than --prompts {settings.prompts:,}"
            console.warn(f"{scored}: {shortage}; every round samples all of them")
        batch = min(prompts, settings.prompts) * settings.samples
        return cls(known, batch, settings.training.seed, len)

    def replay(self, number: int, size: float) -> list[Row]:
        """Return random known rows without duplicates, with about `size` completion tokens in total, or all rows."""
        rng = random.Random(f"{self.seed}/replay/{number}")
        drawn: dict[str, Row] = {}
        while size > 0 and len(drawn) < len(self.known):
            row = rng.choice(self.known)
            if row["id"] not in drawn:
                drawn[row["id"]] = row
                size -= self.size(row)
        return list(drawn.values())

    def size(self, row: Row) -> int:
        """Return the number of tokens of a completion, including the end of the turn."""
        return self.length(as_text(row["completion"])) + 1


def mixed(
    kept: Sequence[Row], offline: Offline, settings: RoundsSettings, number: int, passes: float
) -> tuple[list[Row], float]:
    """Return the rows of a round and the number of epochs.

    All rounds train on the same number of completion tokens: `passes` (or 1) times the tokens of a round that
    keeps all samples, at the mean length of offline rows, including replay. If almost no samples are kept, they train
    on fewer tokens to avoid overfitting.
    """
    mean = fmean(map(offline.size, offline.known))
    whole = offline.batch * mean / (1 - settings.replay)
    if kept:
        rows = [*kept, *offline.replay(number, settings.replay / (1 - settings.replay) * sum(map(offline.size, kept)))]
    else:
        rows = offline.replay(number, whole)
    epochs = (passes or 1) * min(_MAX_PASSES, whole / sum(map(offline.size, rows)))
    return rows, round(epochs, 3)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows to a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(b"".join(map(dumps, rows)))


def prompts_of(scored: Path, split: str) -> list[dict[str, Any]]:
    """Return the distinct prompts of a split as rows, in the order of the file."""
    prompts: dict[str, dict[str, Any]] = {}
    for where, row in read_rows(scored):
        example = from_json(row, where)
        if (example.split or TRAIN) == split:
            name = example.cluster
            prompts.setdefault(name, {"id": name, "prompt": example.prompt, "group": name, "split": split})
    return list(prompts.values())


def _training_rows(path: Path, names: Collection[str]) -> list[Row]:
    examples = unique((where, from_json(row, where)) for where, row in read_rows(path))
    learnt = (
        example
        for example in examples
        if example.split in (TRAIN, "") and any(name in example.rewards for name in names)
    )
    return [example.to_json() for example in learnt]
