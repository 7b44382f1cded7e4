"""What a round is trained on: samples, and offline rows so that nothing is forgotten."""

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

_OFTEN = 16  # times that a round reads a row at most, where one of all samples would read it once


@dataclass(frozen=True)
class Offline:
    """Scored rows that were there before the rounds: those that the policy knows, and fresh ones."""

    known: Sequence[Row]
    fresh: Sequence[Row]
    batch: int  # samples of a round, for which as many fresh rows stand
    seed: int
    length: Callable[[str], int]  # of a completion

    @classmethod
    def read(cls, scored: Path, settings: RoundsSettings, names: Collection[str]) -> Offline:
        """Read both, as rows with some of these rewards; tokens are counted as characters.

        Raises DataError where there is nothing to train on, or a fresh row is known.
        """
        known = _training_rows(scored, names)
        if not known:
            raise DataError(f"{scored}: no row of the training split with one of the rewards {', '.join(names)}")
        fresh = _training_rows(Path(settings.fresh), names) if settings.fresh else []
        ids = {row["id"] for row in known}
        if twice := [row["id"] for row in fresh if row["id"] in ids]:
            raise DataError(f"{settings.fresh}: {twice[0]} stands in {scored} too, so it is not fresh")
        prompts = len(prompts_of(scored, TRAIN))
        if prompts < settings.prompts:
            shortage = f"{prompts:,} training prompts, fewer than --prompts {settings.prompts:,}"
            console.warn(f"{scored}: {shortage}; every round asks them all")
        batch = min(prompts, settings.prompts) * settings.samples
        return cls(known, fresh, batch, settings.training.seed, len)

    def fresh_rows(self, number: int) -> Sequence[Row]:
        """Return the fresh rows of a round, as many as a round has samples while they last."""
        return self.fresh[(number - 1) * self.batch : number * self.batch]

    def replay(self, number: int, size: float) -> list[Row]:
        """Return different known rows by lot, of so many tokens together, or all."""
        rng = random.Random(f"{self.seed}/replay/{number}")
        dealt: dict[str, Row] = {}
        while size > 0 and len(dealt) < len(self.known):
            row = rng.choice(self.known)
            if row["id"] not in dealt:
                dealt[row["id"]] = row
                size -= self.size(row)
        return list(dealt.values())

    def size(self, row: Row) -> int:
        """Return a completion's tokens, with the end of the turn."""
        return self.length(as_text(row["completion"])) + 1


def mixed(
    kept: Sequence[Row], offline: Offline, settings: RoundsSettings, number: int, passes: float
) -> tuple[list[Row], float]:
    """Return the rows of a round and the epochs over them.

    All rounds and arms train on equally many tokens of completions: `passes` (or 1) times those of a round that keeps
    all of its samples, at the offline rows' mean length, with its replay. Where next to nothing is kept they train on
    less, for a row that is read over and over is learnt by heart.
    """
    mean = fmean(map(offline.size, offline.known))
    whole = offline.batch * mean / (1 - settings.replay)
    if kept:
        rows = [*kept, *offline.replay(number, settings.replay / (1 - settings.replay) * sum(map(offline.size, kept)))]
    else:
        rows = offline.replay(number, whole)
    epochs = (passes or 1) * min(_OFTEN, whole / sum(map(offline.size, rows)))
    return rows, round(epochs, 3)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(b"".join(map(dumps, rows)))


def prompts_of(scored: Path, split: str) -> list[dict[str, Any]]:
    """Return the different prompts of a split as rows, in the order of the file."""
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
