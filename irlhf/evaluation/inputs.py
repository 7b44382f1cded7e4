"""Read the rows for eval: samples of policies, or preference pairs."""

import os
from collections.abc import Sequence
from pathlib import Path

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import CHOSEN, REJECTED, Example, from_json, unique
from irlhf.io.files import read_rows


def read_all(paths: Sequence[Path]) -> tuple[list[Example], list[int]]:
    """Return the rows of all files and the number of rows per file.

    Raises ConfigError if a file is named twice, and DataError for a row that is neither a sample nor part of a pair,
    or for a mixture of both.
    """
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise ConfigError("a file of samples is named twice; name each file once")
    rows: list[Example] = []
    counts = []
    for path in paths:
        before = len(rows)
        for example in unique((where, from_json(row, where)) for where, row in read_rows(path)):
            rows.append(example)
            _check(path, example, rows[0])
        counts.append(len(rows) - before)
    return rows, counts


def _check(path: Path, example: Example, first: Example) -> None:
    kinds = f"samples, which have a 'policy', or preference pairs, whose labels are {CHOSEN} and {REJECTED}"
    if not example.policy and example.label not in (CHOSEN, REJECTED):
        problem = f"{example.id} has neither a 'policy' nor a label {CHOSEN} or {REJECTED}"
        raise DataError(f"{path}: {problem}; eval reads scored {kinds}")
    if bool(example.policy) != bool(first.policy):
        raise DataError(
            f"{path}: {example.id} is of another kind than the rows before it; evaluate separately the {kinds}"
        )
