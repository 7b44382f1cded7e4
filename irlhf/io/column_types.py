"""The type of each column of JSON rows, found row by row, for files that need one for all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

TEXT, FLAG, WHOLE, FRACTION = "text", "true or false", "a whole number", "a fraction"
OBJECT, LIST = "an object", "a list"

_KINDS: Mapping[type, str] = {str: TEXT, bool: FLAG, int: WHOLE, float: FRACTION, dict: OBJECT, list: LIST}
_EXACT = 2**53  # up to which a fraction holds whole numbers as they are
_LARGEST = 2**63 - 1
_DEEPEST = 32  # levels; Arrow reads schemas of 64 at most
_MOST = 1000  # names inside one column


@dataclass(slots=True)
class Shape:
    """The type of what stands in one place: nothing but null so far, or one kind and what is inside."""

    kind: str = ""
    row: int = 0  # 1-based; the first with a value here
    size: int = 0  # of the largest whole number
    inside: dict[str, "Shape"] = field(default_factory=dict)  # by name; a list's items are called ITEMS

    def parts(self) -> Iterator[tuple[str, "Shape"]]:
        """Yield what is inside, without what is null wherever it stands."""
        return ((name, shape) for name, shape in self.inside.items() if shape.kind or self.kind == LIST)


ITEMS = ""


@dataclass
class Column:
    """One column: its type, or why it has none."""

    shape: Shape = field(default_factory=Shape)
    clash: str = ""
    names: int = 0

    def take(self, value: Any, row: int) -> None:
        """Widen the type so that it holds one more value."""
        if self.clash:
            return
        try:
            self._take(self.shape, value, row)
        except _Clash as clash:
            self.clash, self.shape = str(clash), Shape()

    def settle(self) -> None:
        """Look, when all rows were seen, whether the type can be written."""
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
                raise _Clash(f"it holds over {_MOST:,} names")
            shape.inside[name] = Shape()
        return shape.inside[name]


class _Clash(Exception):
    """Why values have no type in common."""


def _widen(shape: Shape, kind: str, row: int) -> None:
    if not shape.kind:
        shape.kind, shape.row = kind, row
    elif {shape.kind, kind} == {WHOLE, FRACTION}:
        shape.kind = FRACTION
    else:
        raise _Clash(f"there is {shape.kind} in row {shape.row} and {kind} in row {row}")


def _trouble(shape: Shape, depth: int = 1) -> str:
    if shape.size > (_EXACT if shape.kind == FRACTION else _LARGEST):
        return f"a number of {len(str(shape.size))} digits fits no type of all its numbers"
    if depth > _DEEPEST:
        return f"it is nested over {_DEEPEST} levels"
    if shape.kind == OBJECT and not any(shape.parts()):
        return "an object in it is always empty"
    return next(filter(None, (_trouble(inner, depth + 1) for _, inner in shape.parts())), "")
