"""The pairs that a reward model learns from, those that it is held to, and those that it never sees."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import DataError
from irlhf.core.example import TRAIN, VALIDATION, Example, beginning, from_json, unique, words
from irlhf.core.hashing import Shard, fingerprint
from irlhf.core.pairs import Pair, left_out, pairs_of
from irlhf.io.files import read_rows
from irlhf.training.reward_model.settings import RewardModelSettings

HALVES = PROXY, GOLD = ("proxy", "gold")
FROM_SPLIT, FROM_TRAINING, FROM_NOWHERE = "the validation split", "a tenth of the training prompts", "nothing"

_TENTHS = 10
_SKIPPED = "skipped: "


@dataclass
class Preferences:
    """The pairs of one file, by what becomes of them."""

    train: list[Pair]
    validation: list[Pair]
    held_out: str  # where the validation pairs are from
    counts: Counter[str] = field(default_factory=Counter)


def read_preferences(source: Path, settings: RewardModelSettings) -> Preferences:
    """Read the pairs of a file. Raises DataError where there is none to learn from.

    The pairs of the training split (or of none) are learnt, with a half those of its conversations alone; those of the
    validation split are kept to measure on. Where there are none of these, a tenth of the prompts is held out.
    """
    rows: dict[str, list[Example]] = {TRAIN: [], VALIDATION: []}
    counts: Counter[str] = Counter()
    read = islice(read_rows(source), settings.limit or None)
    for example in unique((where, from_json(row, where)) for where, row in read):
        if example.split not in (TRAIN, VALIDATION, ""):
            counts[f"{_SKIPPED}rows of the {example.split} split"] += 1
        elif example.split != VALIDATION and settings.half and half_of(example) != settings.half:
            counts[f"{_SKIPPED}rows of the other half"] += 1
        else:
            rows[example.split or TRAIN].append(example)
    train, left_out_counts = pairs_of(rows[TRAIN])
    validation, others = pairs_of(rows[VALIDATION])
    counts.update(left_out_counts)
    counts.update(others)
    if not train:
        problem = f"{source}: no pair to learn from in {counts['rows']:,} rows ({_skipped(counts)})"
        raise DataError(f"{problem}; a chosen and a rejected completion share their 'group' and their prompt")
    held_out = FROM_SPLIT
    if not validation:
        train, validation = _parted(train, settings.seed)
        held_out = FROM_TRAINING if validation else FROM_NOWHERE
    counts["pairs"], counts["validation pairs"] = len(train), len(validation)
    return Preferences(train, validation, held_out, counts)


def half_of(example: Example) -> str:
    """Return the half that a row's conversation falls into, by the words that it begins with alone."""
    return PROXY if Shard(1, 2).holds(f"half/{words(beginning(example.prompt))}") else GOLD


def _parted(pairs: Iterable[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return pairs without a tenth of their conversations, and those of that tenth."""
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        sides[fingerprint(f"held out/{seed}/{words(beginning(pair.chosen.prompt))}") % _TENTHS == 0].append(pair)
    return sides if sides[0] else (sides[1], [])


def tell(preferences: Preferences) -> None:
    """Say what is learnt, what is measured on and what was left out."""
    counts = preferences.counts
    summary = f"{counts['pairs']:,} pairs to learn from"
    if preferences.validation:
        summary += f", {counts['validation pairs']:,} of {preferences.held_out} to measure on"
    skipped = _skipped(counts)
    console.note(f"{summary}; left out: {skipped}" if skipped else summary)


def _skipped(counts: Counter[str]) -> str:
    skipped = [f"{n:,} {name.removeprefix(_SKIPPED)}" for name, n in counts.items() if name.startswith(_SKIPPED)]
    return ", ".join([part for part in (left_out(counts), *skipped) if part])
