"""The rows that eval reads: samples of policies, or completions that people preferred."""

import os
from collections.abc import Sequence
from pathlib import Path

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import CHOSEN, REJECTED, Example, from_json, unique
from irlhf.io.files import read_rows


def read_all(paths: Sequence[Path]) -> tuple[list[Example], list[int]]:
    """Return the rows of all files, which are of one kind, and how many rows each file has.

    Raises ConfigError where a file is named twice, and DataError at a row of no kind or of another kind.
    """
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise ConfigError("a file of samples is named twice; each counts once")
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
        raise DataError(f"{path}: {example.id} has no 'policy' and no such label; eval reads scored {kinds}")
    if bool(example.policy) != bool(first.policy):
        raise DataError(f"{path}: with {example.id} both kinds are mixed; evaluate apart the {kinds}")
