"""Rewards that are columns of the data, such as human ratings."""

import re
import shlex
from collections.abc import Sequence
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example, finite, value_at
from irlhf.core.registry import did_you_mean
from irlhf.scoring.scorers.base import Failure, Reply, Traits

_NUMBER = re.compile(r"\s*[-+]?[0-9]{1,15}(\.[0-9]{1,15})?\s*", re.ASCII)
NOT_IN_SAMPLES = "samples have no column"  # begins the reason why samples cannot be scored
_TRUTH = {"true": 1.0, "false": 0.0}  # as pandas writes them in a table


class Column:
    """Reads a number from the row; `scores.humour` is a column of this name, or a key inside the object `scores`."""

    traits = Traits()

    def __init__(self, column: str) -> None:
        self.column = column

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        return [self._read(example) for example in examples]

    def _read(self, example: Example) -> Reply | Failure:
        for path in (self.column, f"given_{self.column}"):  # prepare renames columns that are called like irlhf's keys
            try:
                value = value_at(example.extra, path)
            except KeyError:
                continue
            number = _number(value)
            if not finite(number):
                return Failure(f"column '{self.column}' holds {value!r:.40}, not a number", DataError)
            return {self.column: number}
        if example.policy:
            learn = f"`irlhf reward-model RATED --reward {shlex.quote(self.column)}` learns a scorer from the ratings"
            return Failure(f"{NOT_IN_SAMPLES} '{self.column}'; {learn}", DataError)
        return Failure(f"no column '{self.column}'{did_you_mean(self.column, example.extra)}", DataError)


def _number(value: object) -> Any:
    """Return a number that may be written as text, with true and false as 1 and 0; any other value unchanged."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else _TRUTH.get(value.lower(), value)
    return value
