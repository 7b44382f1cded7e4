"""Infer one type per column of JSON rows, for parquet files and data cards.

A type is the name of a scalar type, a list with the type of its items, or a dict of types by name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from irlhf.core.errors import DataError
from irlhf.core.example import Where

ColumnType: TypeAlias = "str | list[ColumnType] | dict[str, ColumnType]"

NULL, TEXT, FLAG, WHOLE, FRACTION = "null", "string", "bool", "int64", "float64"  # NULL: no value seen so far
EXACT = "exact integer"  # integers that float64 holds exactly, so they can join FRACTION
INEXACT = "inexact number"  # neither int64 nor float64 holds all of these numbers exactly

_KINDS = {NULL: "nothing", TEXT: "text", FLAG: "true or false"}
_NUMBERS = (EXACT, WHOLE, FRACTION, INEXACT)
_EXACT = 2**53  # largest integer up to which a float holds all integers exactly
_INT64 = 2**63


class TypeClash(ValueError):
    """Two values have no common type."""

    def __init__(self, name: str, here: str, elsewhere: str) -> None:
        super().__init__(f"'{name:.80}' is {here} here and {elsewhere} elsewhere")
        self.name, self.here, self.elsewhere = name, here, elsewhere


@dataclass
class ColumnTypes:
    """The types of all columns of the rows so far."""

    types: dict[str, ColumnType] = field(default_factory=dict)
    known: Mapping[str, ColumnType] = field(default_factory=dict)  # types that are fixed in advance

    def take(self, rows: Iterable[Mapping[str, Any]], where: Where) -> None:
        """Add rows. Raises DataError, without adding any, if a column would have two types."""
        types: ColumnType = self.types
        for row in rows:
            try:
                types = merged(merged(types, type_of(row)), dict(self.known))
            except TypeClash as error:
                remedy = "each column needs one type; fix the row, or use --on-bad-row skip"
                raise DataError(f"{where}: {error}; {remedy}") from error
        assert isinstance(types, dict)
        self.types = types


def type_of(value: object, name: str = "") -> ColumnType:
    """Return the type of a JSON value. Raises TypeClash for a list of several types."""
    if value is None or isinstance(value, str):
        return NULL if value is None else TEXT
    if isinstance(value, dict):
        return {key: type_of(item, _inside(name, key)) for key, item in value.items()}
    if isinstance(value, list):
        items: ColumnType = NULL
        for item in value:
            items = merged(items, type_of(item, name), name)
        return [items]
    if isinstance(value, int) and not isinstance(value, bool):
        return EXACT if abs(value) <= _EXACT else WHOLE if -_INT64 <= value < _INT64 else INEXACT
    return FLAG if isinstance(value, bool) else FRACTION


def merged(left: ColumnType, right: ColumnType, name: str = "") -> ColumnType:
    """Return the common type; `left` itself if it includes `right`. Raises TypeClash with the name of the field."""
    if right in (left, NULL):
        return left
    if left == NULL:
        return right
    if isinstance(left, dict) and isinstance(right, dict):
        changed = {}
        for key, kind in right.items():
            before = left.get(key, NULL)
            wider = merged(before, kind, _inside(name, key))
            if wider is not before or key not in left:
                changed[key] = wider
        return {**left, **changed} if changed else left
    if isinstance(left, list) and isinstance(right, list):
        items = merged(left[0], right[0], name)
        return left if items is left[0] else [items]
    if left in _NUMBERS and right in _NUMBERS:
        wider_numbers = {left, right} - {EXACT}
        return wider_numbers.pop() if len(wider_numbers) == 1 else INEXACT
    raise TypeClash(name, _kind(right), _kind(left))


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _kind(given: ColumnType) -> str:
    if isinstance(given, dict):
        return "an object"
    return "a list" if isinstance(given, list) else _KINDS.get(given, "a number")
