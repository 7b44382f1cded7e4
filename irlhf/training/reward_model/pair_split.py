"""Split preference pairs into training and validation pairs of a reward model."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from irlhf.core import console
from irlhf.core.errors import DataError
from irlhf.core.example import TRAIN, VALIDATION, Example, beginning, from_json, unique, words
from irlhf.core.hashing import Shard, fingerprint
from irlhf.core.pairs import Pair, left_out, pairs_of
from irlhf.io.files import read_rows
from irlhf.training.reward_model.settings import RewardModelSettings

HALVES = PROXY, GOLD = ("proxy", "gold")
FROM_SPLIT, FROM_TRAINING, FROM_NOWHERE = "the validation split", "a tenth of the training prompts", "nothing"

T = TypeVar("T")

_TENTHS = 10
SKIPPED = "skipped: "


@dataclass
class Preferences:
    """The training and validation pairs of one file."""

    train: list[Pair]
    validation: list[Pair]
    held_out: str  # source of the validation pairs
    counts: Counter[str] = field(default_factory=Counter)


def read_preferences(source: Path, settings: RewardModelSettings) -> Preferences:
    """Read the pairs of a file. Raises DataError if there are no training pairs.

    Training pairs are those of the training split or without a split; `half` restricts them to half of the
    conversations. Validation pairs are those of the validation split. If there are none, a tenth of the prompts is held
    out.
    """
    rows, counts = read_splits(source, settings)
    train, left_out_counts = pairs_of(rows[TRAIN])
    validation, others = pairs_of(rows[VALIDATION])
    counts.update(left_out_counts)
    counts.update(others)
    if not train:
        problem = f"{source}: no pairs to train on in {counts['rows']:,} rows ({_skipped(counts)})"
        raise DataError(f"{problem}; a pair is a chosen and a rejected completion with equal 'group' and prompt")
    held_out = FROM_SPLIT
    if not validation:
        train, validation = hold_out(train, lambda pair: pair.chosen, settings.seed)
        held_out = FROM_TRAINING if validation else FROM_NOWHERE
    counts["pairs"], counts["validation pairs"] = len(train), len(validation)
    return Preferences(train, validation, held_out, counts)


def read_splits(source: Path, settings: RewardModelSettings) -> tuple[dict[str, list[Example]], Counter[str]]:
    """Return the rows of the training and the validation split, and counts of the rows that are left out."""
    rows: dict[str, list[Example]] = {TRAIN: [], VALIDATION: []}
    counts: Counter[str] = Counter()
    read = islice(read_rows(source), settings.limit or None)
    for example in unique((where, from_json(row, where)) for where, row in read):
        if example.split not in (TRAIN, VALIDATION, ""):
            counts[f"{SKIPPED}rows of the {example.split} split"] += 1
        elif example.split != VALIDATION and settings.half and half_of(example) != settings.half:
            counts[f"{SKIPPED}rows of the other half"] += 1
        else:
            rows[example.split or TRAIN].append(example)
    return rows, counts


def half_of(example: Example) -> str:
    """Return the half of a conversation, PROXY or GOLD, by the hash of its first words."""
    return PROXY if Shard(1, 2).holds(f"half/{words(beginning(example.prompt))}") else GOLD


def hold_out(items: Iterable[T], example_of: Callable[[T], Example], seed: int) -> tuple[list[T], list[T]]:
    """Return the pairs or ratings of nine tenths of the conversations, and those of the held-out tenth."""
    sides: tuple[list[T], list[T]] = ([], [])
    for item in items:
        first_words = words(beginning(example_of(item).prompt))
        sides[fingerprint(f"held out/{seed}/{first_words}") % _TENTHS == 0].append(item)
    return sides if sides[0] else (sides[1], [])


def tell(counts: Counter[str], held_out: str) -> None:
    """Report the numbers of training, validation and skipped pairs or ratings."""
    kind = "pairs" if "pairs" in counts else "ratings"
    summary = f"{counts[kind]:,} {kind} to train on"
    if counts[f"validation {kind}"]:
        summary += f", {counts[f'validation {kind}']:,} validation {kind} from {held_out}"
    skipped = _skipped(counts)
    console.note(f"{summary}; skipped: {skipped}" if skipped else summary)


def _skipped(counts: Counter[str]) -> str:
    skipped = [f"{n:,} {name.removeprefix(SKIPPED)}" for name, n in counts.items() if name.startswith(SKIPPED)]
    return ", ".join([part for part in (left_out(counts), *skipped) if part])
