"""Infer the type of each column of JSON rows, for file formats with typed columns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT, FLAG, WHOLE, FRACTION = "text", "true or false", "a whole number", "a fraction"
OBJECT, LIST = "an object", "a list"

_KINDS: Mapping[type, str] = {str: TEXT, bool: FLAG, int: WHOLE, float: FRACTION, dict: OBJECT, list: LIST}
_EXACT = 2**53  # largest integer up to which a float holds all integers exactly
_LARGEST = 2**63 - 1
_DEEPEST = 32  # levels; Arrow reads schemas of up to 64
_MOST = 1000  # nested names in one column


@dataclass(slots=True)
class Shape:
    """The type of a value: its kind (empty if only null was seen so far) and the types inside it."""

    kind: str = ""
    row: int = 0  # 1-based number of the first row with a value
    size: int = 0  # absolute value of the largest integer
    inside: dict[str, "Shape"] = field(default_factory=dict)  # by name; the items of a list are under ITEMS

    def parts(self) -> Iterator[tuple[str, "Shape"]]:
        """Yield the names and types inside, without those that are null in every row."""
        return ((name, shape) for name, shape in self.inside.items() if shape.kind or self.kind == LIST)


ITEMS = ""


@dataclass
class Column:
    """One column: its type, or the reason why its values have no common type."""

    shape: Shape = field(default_factory=Shape)
    clash: str = ""
    names: int = 0

    def take(self, value: Any, row: int) -> None:
        """Widen the type so that it includes one more value."""
        if self.clash:
            return
        try:
            self._take(self.shape, value, row)
        except _Clash as clash:
            self.clash, self.shape = str(clash), Shape()

    def settle(self) -> None:
        """Check, after the last row, whether the type can be written."""
        self.clash = self.clash or _trouble(self.shape)

    def _take(self, shape: Shape, value: Any, row: int) -> None:
        if value is None:
            return
        kind = _KINDS[type(value)]
        if kind != shape.kind:
            _widen(shape, kind, row)
        if kind == WHOLE:
            shape.size = max(shape.size, abs(value))
        elif kind == OBJECT:
            for name, item in value.items():
                self._take(self._part(shape, name), item, row)
        elif kind == LIST:
            items = self._part(shape, ITEMS)
            for item in value:
                self._take(items, item, row)

    def _part(self, shape: Shape, name: str) -> Shape:
        if name not in shape.inside:
            self.names += 1
            if self.names > _MOST:
                raise _Clash(f"it has over {_MOST:,} names")
            shape.inside[name] = Shape()
        return shape.inside[name]


class _Clash(Exception):
    """The reason why values have no common type."""


def _widen(shape: Shape, kind: str, row: int) -> None:
    if not shape.kind:
        shape.kind, shape.row = kind, row
    elif {shape.kind, kind} == {WHOLE, FRACTION}:
        shape.kind = FRACTION
    else:
        raise _Clash(f"row {shape.row} has {shape.kind} and row {row} has {kind}")


def _trouble(shape: Shape, depth: int = 1) -> str:
    if shape.size > (_EXACT if shape.kind == FRACTION else _LARGEST):
        return f"a number of {len(str(shape.size))} digits does not fit the column's type"
    if depth > _DEEPEST:
        return f"it is nested deeper than {_DEEPEST} levels"
    if shape.kind == OBJECT and not any(shape.parts()):
        return "it holds an object that is always empty"
    return next(filter(None, (_trouble(inner, depth + 1) for _, inner in shape.parts())), "")
