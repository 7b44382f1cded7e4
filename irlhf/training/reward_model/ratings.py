"""Ratings to learn: examples with a recorded reward or a numeric column, and how well held-out ones are predicted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.errors import DataError
from irlhf.core.example import TRAIN, VALIDATION, Example, as_text, finite
from irlhf.core.registry import did_you_mean
from irlhf.core.statistics import mean, spearman
from irlhf.training.reward_model.pair_split import (
    FROM_NOWHERE,
    FROM_SPLIT,
    FROM_TRAINING,
    SKIPPED,
    hold_out,
    read_splits,
)
from irlhf.training.reward_model.settings import RewardModelSettings


@dataclass(frozen=True)
class Rating:
    """An example and its rating, in the rating's own units."""

    example: Example
    value: float

    @property
    def prompt(self) -> str:
        """The id of the prompt, which clusters the intervals."""
        return self.example.cluster


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
    rows, counts = read_splits(source, settings)
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
                counts[f"{SKIPPED}rows without {name}"] += 1
    train, validation = rated[TRAIN], rated[VALIDATION]
    if not train:
        problem = f"{source}: no row has a number '{name}' among its rewards or columns"
        raise DataError(f"{problem}{did_you_mean(name, known)}; score the rows, or name a numeric column")
    held_out = FROM_SPLIT
    if not validation:
        train, validation = hold_out(train, lambda rating: rating.example, settings.seed)
        held_out = FROM_TRAINING if validation else FROM_NOWHERE
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

    prompts = [rating.prompt for rating in ratings]
    return {"n": len(ratings), "prompts": len(set(prompts)), **clustered(prompts, measure, bootstrap)}
