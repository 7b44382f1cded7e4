"""Rewards that are columns of the data, such as human ratings."""

from collections.abc import Mapping, Sequence
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example, finite
from irlhf.core.registry import did_you_mean
from irlhf.scoring.scorers.base import Failure, Reply, Traits


class Column:
    """Reads a number from the row; `scores.humour` selects a key inside an object."""

    traits = Traits()

    def __init__(self, column: str) -> None:
        self.column = column

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Return the number of each row."""
        return [self._read(example) for example in examples]

    def _read(self, example: Example) -> Reply | Failure:
        value: Any = example.extra
        for part in self.column.split("."):
            if not isinstance(value, Mapping) or part not in value:
                if example.policy:  # nobody has rated a new sample
                    learn = f"`irlhf reward-model RATED --reward {self.column}` learns a scorer from the ratings"
                    return Failure(f"samples have no column '{self.column}'; {learn}", DataError)
                return Failure(f"no column '{self.column}'{did_you_mean(self.column, example.extra)}", DataError)
            value = value[part]
        number = float(value) if isinstance(value, bool) else value  # true and false are 1 and 0
        if not finite(number):
            return Failure(f"column '{self.column}' holds {value!r:.40}, not a number", DataError)
        return {self.column: number}
