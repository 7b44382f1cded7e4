"""Training data of reward models: preference pairs or ratings, split into training and validation, and provenance."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, TypeVar

import numpy as np

from irlhf.core import console
from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.errors import DataError
from irlhf.core.example import (
    CHOSEN,
    TRAIN,
    VALIDATION,
    Example,
    Message,
    as_messages,
    as_text,
    beginning,
    finite,
    from_json,
    unique,
    words,
)
from irlhf.core.hashing import Shard, fingerprint
from irlhf.core.pairs import Pair, left_out, pairs_of
from irlhf.core.registry import did_you_mean
from irlhf.core.statistics import mean, spearman
from irlhf.io.files import read_rows
from irlhf.io.resumable import RunManifest
from irlhf.policy.judge_prompt import NO, YES, verdict_messages
from irlhf.policy.remote_model import REWARD_VERSION
from irlhf.training.settings import RewardModelSettings

HALVES = PROXY, GOLD = ("proxy", "gold")
T = TypeVar("T")

_TENTHS = 10
_SKIPPED = "skipped: "


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
    rows, counts = _read_splits(source, settings)
    train, left_out_counts = pairs_of(rows[TRAIN])
    validation, others = pairs_of(rows[VALIDATION])
    counts.update(left_out_counts)
    counts.update(others)
    if not train:
        problem = f"{source}: no pairs to train on in {counts['rows']:,} rows ({_skipped(counts)})"
        raise DataError(f"{problem}; a pair is a chosen and a rejected completion with equal 'group' and prompt")
    train, validation, held_out = _validated(train, validation, lambda pair: pair.chosen, settings.seed)
    counts["pairs"], counts["validation pairs"] = len(train), len(validation)
    return Preferences(train, validation, held_out, counts)


def _read_splits(source: Path, settings: RewardModelSettings) -> tuple[dict[str, list[Example]], Counter[str]]:
    """Return the rows of the training and the validation split, and counts of the rows that are left out."""
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
    return rows, counts


def half_of(example: Example) -> str:
    """Return the half of a conversation, PROXY or GOLD, by the hash of its first words."""
    return PROXY if Shard(1, 2).holds(f"half/{words(beginning(example.prompt))}") else GOLD


def _validated(
    train: list[T], validation: list[T], example_of: Callable[[T], Example], seed: int
) -> tuple[list[T], list[T], str]:
    """Return the training and validation items, and the source of the latter.

    Without validation items, a tenth of the conversations is held out, by the hash of their first words.
    """
    if validation:
        return train, validation, "the validation split"
    sides: tuple[list[T], list[T]] = ([], [])
    for item in train:
        first_words = words(beginning(example_of(item).prompt))
        sides[fingerprint(f"held out/{seed}/{first_words}") % _TENTHS == 0].append(item)
    if sides[0] and sides[1]:
        return *sides, "a tenth of the training prompts"
    return train, [], "nothing"


def tell(counts: Counter[str], held_out: str) -> None:
    """Report the numbers of training, validation and skipped pairs or ratings."""
    kind = "pairs" if "pairs" in counts else "ratings"
    summary = f"{counts[kind]:,} {kind} to train on"
    if counts[f"validation {kind}"]:
        summary += f", {counts[f'validation {kind}']:,} validation {kind} from {held_out}"
    skipped = _skipped(counts)
    console.note(f"{summary}; skipped: {skipped}" if skipped else summary)


def _skipped(counts: Counter[str]) -> str:
    skipped = [f"{n:,} {name.removeprefix(_SKIPPED)}" for name, n in counts.items() if name.startswith(_SKIPPED)]
    return ", ".join([part for part in (left_out(counts), *skipped) if part])


@dataclass(frozen=True)
class Rating:
    """An example and its rating, in the rating's own units."""

    example: Example
    value: float


@dataclass
class Ratings:
    """The training and validation rows of one file."""

    train: list[Rating]
    validation: list[Rating]
    held_out: str  # source of the validation rows
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def units(self) -> tuple[float, float]:
        """The mean and the standard deviation of the ratings of the training rows."""
        values = [rating.value for rating in self.train]
        return fmean(values), pstdev(values)


def read_ratings(source: Path, settings: RewardModelSettings) -> Ratings:
    """Read the rows whose `rewards`, or else whose columns, have the number `settings.reward`.

    Rows are split as pairs are (see `read_preferences`). Raises DataError without two different ratings to train on.
    """
    name = settings.reward
    rows, counts = _read_splits(source, settings)
    rated: dict[str, list[Rating]] = {TRAIN: [], VALIDATION: []}
    known: set[str] = set()
    for split, examples in rows.items():
        for example in examples:
            value: Any = example.rewards.get(name, example.extra.get(name))
            known.update(example.rewards, example.extra)
            counts["rows"] += 1
            if finite(value):
                rated[split].append(Rating(example, float(value)))
            else:
                counts[f"{_SKIPPED}rows without {name}"] += 1
    train, validation = rated[TRAIN], rated[VALIDATION]
    if not train:
        problem = f"{source}: no row has a number '{name}' among its rewards or columns"
        raise DataError(f"{problem}{did_you_mean(name, known)}; score the rows, or name a numeric column")
    train, validation, held_out = _validated(train, validation, lambda rating: rating.example, settings.seed)
    if len({rating.value for rating in train}) < 2:
        raise DataError(f"{source}: every training row has the same '{name}', so there is nothing to learn")
    counts["ratings"], counts["validation ratings"] = len(train), len(validation)
    return Ratings(train, validation, held_out, counts)


def rating_figures(ratings: Sequence[Rating], predicted: Sequence[float], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return how well ratings of held-out rows are predicted, beside a rule that reads only the length.

    `spearman` is the rank correlation of predictions and ratings, `length` that of the number of words and ratings,
    with the sign that suits the rule better, and `above_rule` the difference of the two on the same resamples. `error`
    is the mean absolute error in the rating's units, `error_constant` that of always predicting the median rating.
    """
    values, given = np.array([rating.value for rating in ratings]), np.array(predicted)
    words = np.array([float(len(as_text(rating.example.completion).split())) for rating in ratings])
    missed, spread = np.abs(values - given), np.abs(values - np.median(values))

    def measure(times: Floats) -> dict[str, Floats]:
        figures = {"spearman": spearman(times, given, values), "length": np.abs(spearman(times, words, values))}
        figures |= {"error": mean(times, missed), "error_constant": mean(times, spread)}
        return figures | {"above_rule": figures["spearman"] - figures["length"]}

    prompts = [rating.example.cluster for rating in ratings]
    return {"n": len(ratings), "prompts": len(set(prompts)), **clustered(prompts, measure, bootstrap)}


def reward_model_manifest(source: Path, model: str, settings: RewardModelSettings) -> RunManifest:
    """Return the manifest of a run."""
    inputs = {"model": Path(model)} if model and Path(model).exists() else {}
    return RunManifest("reward-model", {"pairs": source, **inputs}, {**asdict(settings), "model": model})


def origin(manifest: RunManifest, preferences: Preferences | Ratings) -> dict[str, Any]:
    """Return the provenance of a reward model: base, digests of the inputs, settings and row counts."""
    record = manifest.with_digests()
    digests = {role: entry.sha256 for role, entry in record.inputs.items()}
    settings = {name: value for name, value in record.settings.items() if name != "model"}
    counts = {**preferences.counts, "validation pairs are from": preferences.held_out}
    return {
        "version": REWARD_VERSION,
        "base": record.settings["model"],
        "digests": digests,
        "settings": settings,
        "data": counts,
    }


def verdict_rows(pairs: Sequence[Pair], seed: int) -> Iterator[tuple[str, list[Message]]]:
    """Yield each completion of the pairs once, in random order: its id, and the messages with the answer 1 or 0."""
    rows = {example.id: example for pair in pairs for example in pair}
    for example in random.Random(f"{seed}/verdicts").sample(list(rows.values()), len(rows)):
        answer = as_messages(YES if example.label == CHOSEN else NO, "assistant")
        yield example.id, verdict_messages(example.prompt, example.completion) + answer
