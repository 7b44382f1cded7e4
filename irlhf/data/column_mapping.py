"""Rename columns (`--map prompt=question`), for data in an unknown format."""

from collections.abc import Mapping
from typing import Any

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import keys_of, value_at
from irlhf.data.formats.base import Row

# Numbers in these columns become strings: an id or an answer may be 42.
TEXTS = ("id", "group", "label", "split", "source", "prompt", "completion", "chosen", "rejected")


def parse_map(pairs: list[str]) -> dict[str, str]:
    """Parse NAME=COLUMN pairs, such as `prompt=question`. Raises ConfigError."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        name, sign, column = pair.partition("=")
        if not (name and sign and column):
            raise ConfigError(f"--map {pair}: expected NAME=COLUMN, such as prompt=question")
        if name in mapping:
            raise ConfigError(f"--map {pair}: {name} is already mapped to {mapping[name]}")
        mapping[name] = column
    return mapping


def renamed(row: Row, names: Mapping[str, str]) -> Row:
    """Return a row with columns renamed by `names`; existing columns with the new names are replaced.

    Dots select fields of objects and, by number, items of lists. Selected values are copied; whole columns are renamed.
    Raises DataError if a column is missing.
    """
    values = {name: _value(row, name, column) for name, column in names.items()}
    rest = {name: value for name, value in row.fields.items() if name not in names.values()}
    return Row(row.where, {**rest, **values})


def _value(row: Row, name: str, column: str) -> Any:
    try:
        value = value_at(row.fields, column)
    except KeyError as error:
        raise DataError(
            f"{row.where}: no '{column}' for --map {name}={column} (columns: {keys_of(row.fields)})"
        ) from error
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value}" if name in TEXTS and numeric else value
