"""The pairs that a reward model learns from, those that it is held to, and those that it never sees."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from irlhf import console
from irlhf.errors import DataError
from irlhf.files import read_rows
from irlhf.ids import Shard, fingerprint
from irlhf.pairs import Pair, pairs_of
from irlhf.records import TRAIN, VALIDATION, Example, from_json, unique, words

if TYPE_CHECKING:
    from irlhf.finetune.reward import RewardModelSettings

HALVES = PROXY, GOLD = ("proxy", "gold")
FROM_SPLIT, FROM_TRAINING, FROM_NOWHERE = "the validation split", "a tenth of the training prompts", "nothing"

_TENTHS = 10
_SKIPPED = "skipped: "
_TOLD = {
    "unlabelled": "labelled neither chosen nor rejected",
    "ungrouped": "of no group",
    "alone": "without a row of the other label for their prompt",
}


@dataclass
class Preferences:
    """The pairs of one file, by what becomes of them."""

    train: list[Pair]
    validation: list[Pair]
    held_out: str  # where the validation pairs are from
    counts: Counter[str] = field(default_factory=Counter)


def read_preferences(source: Path, settings: "RewardModelSettings") -> Preferences:
    """Read the pairs of a file. Raises DataError where there is none to learn from.

    The pairs of the training split (or of none) are learnt, with a half those of its prompts alone; those of the
    validation split are kept to measure on. Where there are none of these, a tenth of the prompts is held out.
    """
    rows: dict[str, list[Example]] = {TRAIN: [], VALIDATION: []}
    skipped: Counter[str] = Counter()
    read = islice(read_rows(source), settings.limit or None)
    for example in unique((where, from_json(row, where)) for where, row in read):
        if example.split not in (TRAIN, VALIDATION, ""):
            skipped[f"{_SKIPPED}rows of the {example.split} split"] += 1
        elif example.split != VALIDATION and settings.half and half_of(example) != settings.half:
            skipped[f"{_SKIPPED}rows of the other half"] += 1
        else:
            rows[example.split or TRAIN].append(example)
    train, found = pairs_of(rows[TRAIN])
    validation, others = pairs_of(rows[VALIDATION])
    if not train:
        raise DataError(f"{source}: no pair to learn from{_why(found + others + skipped)}")
    held_out = FROM_SPLIT
    if not validation:
        train, validation = _parted(train, settings.seed)
        held_out = FROM_TRAINING if validation else FROM_NOWHERE
    counts = Counter({"pairs": len(train), "validation pairs": len(validation)}) + skipped
    counts += Counter({f"{_SKIPPED}rows {told}": found[name] + others[name] for name, told in _TOLD.items()})
    counts += Counter({f"{_SKIPPED}pairs that say the same twice": found["equal"] + others["equal"]})
    return Preferences(train, validation, held_out, counts)


def half_of(example: Example) -> str:
    """Return the half that a row's prompt falls into, by its words alone."""
    return PROXY if Shard(1, 2).holds(f"half/{words(example.prompt)}") else GOLD


def _parted(pairs: Iterable[Pair], seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return pairs without a tenth of their prompts, and those of that tenth."""
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        sides[fingerprint(f"held out/{seed}/{words(pair.chosen.prompt)}") % _TENTHS == 0].append(pair)
    return sides if sides[0] else (sides[1], [])


def _why(counts: Counter[str]) -> str:
    """Return what became of the rows that there are, and what a pair is."""
    told = {"rows read": counts["rows"], **{f"rows {what}": counts[name] for name, what in _TOLD.items()}}
    told |= {"pairs that say the same twice": counts["equal"]}
    told |= {name.removeprefix(_SKIPPED): number for name, number in counts.items() if name.startswith(_SKIPPED)}
    found = ", ".join(f"{number:,} {what}" for what, number in told.items() if number)
    return f" ({found}); a pair is two rows of one group and prompt, one labelled chosen and one rejected"


def tell(preferences: Preferences) -> None:
    """Say what is learnt, what is measured on and what was left out."""
    counts = preferences.counts
    told = f"{counts['pairs']:,} pairs to learn from"
    if preferences.validation:
        told += f", {counts['validation pairs']:,} of {preferences.held_out} to measure on"
    skipped = {name.removeprefix(_SKIPPED): n for name, n in counts.items() if name.startswith(_SKIPPED)}
    left = ", ".join(f"{number:,} {what}" for what, number in skipped.items())
    console.note(f"{told}; skipped: {left}" if left else told)
