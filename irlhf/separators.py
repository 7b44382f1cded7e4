"""How a table is written: the sign between its cells, and in a table of semicolons the one in its fractions.

Only what its first lines say for certain is taken. Where they leave two readings, the table is refused with a way out.
"""

import csv
import re
from collections.abc import Iterable
from typing import NamedTuple

SEMICOLON = ";"
NAMES = {"\t": "tabs", SEMICOLON: "semicolons", ",": "commas"}  # the surest first

_SAID = re.compile(
    r'"?sep=(?P<sign>[^\w\s"]|\t)"?\s*', re.IGNORECASE
)  # as the first line, which Excel reads and writes
_NAME = re.compile(r"[\w .\-/()#%]+")  # a column's, where nothing but the header says that there is a table
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]{0,307})(?P<sign>[.,])[0-9]{1,308}(?:[eE][+-]?[0-9]{1,3})?")
_GROUPED = re.compile(r"-?[1-9][0-9]{0,2}[.,][0-9]{3}")  # a fraction in one country, over a thousand in another


class Separator(NamedTuple):
    """What parts the cells, and how that is known."""

    sign: str
    reason: str
    own_line: bool = False  # the first line says it, and is no header


def by_header(line: str, usual: str) -> Separator:
    """Return what parts the cells of a file that is called a table, `usual` where nothing does.

    Raises ValueError where the header can be cut in two ways.
    """
    said = _SAID.fullmatch(line)
    if said:
        return Separator(said["sign"], f"its first line is {line.strip()}", own_line=True)
    fitting = [sign for sign in NAMES if len(_cut(line, sign)) > 1]
    if len(fitting) > 1 and fitting[0] != "\t":
        ways = " or ".join(NAMES[sign] for sign in fitting)
        raise ValueError(f"parted by {ways}, which cannot be told; put a line like sep={fitting[0]} before it")
    return Separator(*_reason(fitting[0])) if fitting else Separator(usual, "")


def by_content(line: str) -> Separator | None:
    """Return what parts the cells, where the line is the header of a table for certain."""
    said = _SAID.fullmatch(line)
    if said:
        return by_header(line, "")
    for sign in NAMES:
        names = _cut(line, sign)
        if len(names) > 1 and len(set(names)) == len(names) and all(_NAME.fullmatch(name) for name in names):
            return Separator(*_reason(sign))
    return None


def _reason(sign: str) -> tuple[str, str]:
    return sign, f"its first line is names parted by {NAMES[sign]}"


def _cut(line: str, sign: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=sign, strict=True), [])
    except csv.Error:  # no line of cells, as the reader of rows will say
        return []


class Fractions:
    """The decimal sign of a table, as the first fraction shows it that can be read in one way alone."""

    def __init__(self) -> None:
        self.sign = ""
        self.shown = ""  # the cell that shows it

    def look(self, cells: Iterable[str]) -> None:
        """Learn from cells, until one has shown it."""
        for cell in cells:
            found = None if self.sign else _FRACTION.fullmatch(cell)
            if found and not _GROUPED.fullmatch(cell):
                self.sign, self.shown = found["sign"], cell

    def pointed(self, cell: str) -> str:
        """Return a fraction with a point; any other cell as it is. Raises ValueError for one that may be another."""
        found = _FRACTION.fullmatch(cell)
        if not found:
            return cell
        if not self.sign:
            raise ValueError(f"'{cell:.40}' is below ten or in the thousands, which cannot be told; write it otherwise")
        if found["sign"] != self.sign:
            raise ValueError(f"'{cell:.40}' beside '{self.shown:.40}' has another decimal sign; write all with one")
        return cell.replace(",", ".")
