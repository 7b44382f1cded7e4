"""Columns renamed by the user, for data of a shape that has no reader: `--map prompt=question`."""

from collections.abc import Mapping
from typing import Any

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import keys_of
from irlhf.data.formats.base import Row

# Numbers of the data are names here, or the very text: an answer may be 42.
_TEXTS = ("id", "group", "label", "split", "source", "prompt", "completion", "chosen", "rejected")


def parse_map(pairs: list[str]) -> dict[str, str]:
    """Read `prompt=question` and its like. Raises ConfigError."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        name, sign, column = pair.partition("=")
        if not (name and sign and column):
            raise ConfigError(f"--map {pair}: write NAME=COLUMN, like prompt=question")
        if name in mapping:
            raise ConfigError(f"--map {pair}: {name} is {mapping[name]} already")
        mapping[name] = column
    return mapping


def renamed(row: Row, names: Mapping[str, str]) -> Row:
    """Return a row whose columns are called as `names` says, in the place of any that are called so already.

    Dots lead inside objects and, by number, lists; what they lead to is copied, a whole column is renamed.
    """
    values = {name: _value(row, name, column) for name, column in names.items()}
    rest = {name: value for name, value in row.fields.items() if name not in names.values()}
    return Row(row.where, {**rest, **values})


def _value(row: Row, name: str, column: str) -> Any:
    value: Any = row.fields
    for part in [column] if column in row.fields else column.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part[:9]) < len(value):
            value = value[int(part[:9])]
        else:
            raise DataError(f"{row.where}: no '{column}' for --map {name}={column} (columns: {keys_of(row.fields)})")
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value}" if name in _TEXTS and numeric else value
