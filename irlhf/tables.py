"""Rows of text files: tables with a header, read here, and JSON (irlhf/jsonl.py); and what tells them apart.

first character [                     one list of objects
.json and {                           an object a line; or an object with one list; or one object, which is one row
.csv, .tsv                            a header and a row of cells for each row
a name that says nothing, as stdin    the same, where the first line is a header for certain
else                                  JSONL
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from irlhf.errors import DataError
from irlhf.jsonl import BOM, LINE_LIMIT, Broken, Given, Numbered, document, numbered_lines, objects, parse_lines
from irlhf.packing import PACKED
from irlhf.records import Where
from irlhf.separators import SEMICOLON, Fractions, by_content, by_header

SEPARATORS: Mapping[str, str] = {".csv": ",", ".tsv": "\t"}  # of cells, by what tables are called

_HEAD = 1024  # bytes, among which the first character stands
_JSON = (".json", ".jsonl", ".ndjson")  # names of files that are no tables, whatever they begin with
_LOOKED_AT = 1000  # rows of a table of semicolons, for its decimal sign
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,307})(?:\.[0-9]{1,308})?(?:[eE][+-]?[0-9]{1,3})?")
# Columns whose cells are text whatever they look like: an answer may be 42.
_TEXTS = frozenset(
    {"id", "group", "prompt", "completion", "label", "split", "source", "finish", "policy", "kept", "chosen"}
    | {"rejected", "instruction", "input", "output", "system", "response", "question", "answer", "query", "history"}
    | {"context", "response_0", "response_1", "response_2", "response1", "response2", "title", "text"}
)

csv.field_size_limit(max(csv.field_size_limit(), LINE_LIMIT))  # Python's own is 128 KiB, for the whole process


Tell = Callable[[str], None]


class _Cells(NamedTuple):
    """One row of a table as it stands in the file."""

    cells: list[str]
    given: bytes
    wrong: str  # why it is none


def rows_of(stream: Any, path: Path, tell: Tell) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of an unpacked stream, in the shape that its first character and the file's name show.

    How it was taken is told where the name does not say it.
    """
    suffix, first = _looks(stream, path)
    if suffix in SEPARATORS:
        return _table(numbered_lines(stream, path), path, SEPARATORS[suffix], tell)
    if first == b"[":
        return document(b"", stream, path)
    if suffix == ".json" and first == b"{":
        return objects(stream, path)
    if first != b"{" and suffix not in _JSON:
        return _table(numbered_lines(stream, path), path, "", tell)
    return parse_lines(numbered_lines(stream, path), path)


def is_jsonl(stream: Any, path: Path) -> bool:
    """Return whether an unpacked stream is taken for an object a line at once."""
    suffix, first = _looks(stream, path)
    return suffix not in (*SEPARATORS, ".json") and first == b"{"


def _looks(stream: Any, path: Path) -> tuple[str, bytes]:
    """Return what the shape of a stream is told by: the suffix of its name, and its first character."""
    return Path(bare(path.name)).suffix.lower(), stream.peek(_HEAD)[:_HEAD].removeprefix(BOM).lstrip()[:1]


def bare(name: str) -> str:
    """Return the name of a file without what says that it is packed."""
    return name[: name.rindex(".")] if name.lower().endswith(PACKED) else name


class _Record:
    """Lines handed to the reader of cells as text, with those of the present row kept."""

    def __init__(self, numbered: Numbered, path: Path) -> None:
        self._numbered = numbered
        self._path = path
        self._taken: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        size = 0
        for number, line in self._numbered:
            size = size + len(line) if self._taken else len(line)
            self._taken.append(line.removeprefix(BOM) if number == 1 else line)
            if size > LINE_LIMIT:
                start = number - len(self._taken) + 1
                over = f"a row of over {LINE_LIMIT >> 20} MiB begins on this line; is a quotation mark left open?"
                raise DataError(f"{self._path}:{start}: {over}")
            yield self._taken[-1].decode("utf-8", "replace")

    def take(self) -> bytes:
        """Return the lines of the present row, and begin the next."""
        given = b"".join(self._taken)
        self._taken.clear()
        return given


def _table(numbered: Numbered, path: Path, usual: str, tell: Tell) -> Iterator[tuple[Where, Given]]:
    """Read what is called a table, or looks like one where `usual` is empty; anything else is JSONL."""
    first, numbered = _begun(numbered)
    header = first.removeprefix(BOM).decode("utf-8", "replace")
    try:
        found = by_header(header, usual) if usual else by_content(header)
    except ValueError as error:
        raise DataError(f"{path}: the header is {error}") from error
    if found is None:
        return parse_lines(numbered, path)
    if found.sign != usual:
        tell(f"as a table, because {found.reason}")
    if found.own_line:
        next(numbered)
    return _cells(numbered, path, found.sign)


def _begun(numbered: Numbered) -> tuple[bytes, Numbered]:
    """Return the first line that is not blank, and it with all behind it."""
    for number, line in numbered:
        if line.removeprefix(BOM).strip():
            return line, chain([(number, line)], numbered)
    return b"", numbered


def _cells(numbered: Numbered, path: Path, separator: str) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of a table, counted from 1 behind its header; rows of empty cells are none."""
    records = _records(numbered, path, separator)
    try:
        header = next((_header(*record) for record in records), [])
    except ValueError as error:
        raise DataError(f"{path}: the header is {error}") from error
    fractions = None
    if separator == SEMICOLON:
        fractions = Fractions()
        begun, size = [], 0
        for record in islice(records, _LOOKED_AT):
            begun.append(record)
            cells = zip(header, record.cells, strict=False)
            fractions.look(cell for name, cell in cells if name.lower() not in _TEXTS)
            size += len(record.given)
            if size > LINE_LIMIT:
                break
        records = chain(begun, records)
    for number, record in enumerate(records, 1):
        where = Where(str(path), number)
        try:
            row: Given = _row(header, record, fractions)
        except ValueError as error:
            row = Broken(DataError(f"{where}: {error}"), record.given.decode("utf-8", "replace"))
        yield where, row


def _records(numbered: Numbered, path: Path, separator: str) -> Iterator[_Cells]:
    """Yield what stands in a table row by row, without rows of empty cells."""
    record = _Record(numbered, path)
    reader = csv.reader(record, delimiter=separator, strict=True)
    while True:
        wrong = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, wrong = [], f"not a row of cells ({error})"
        given = record.take()
        if any(cells) or wrong:
            yield _Cells(cells, given, wrong)


def _checked(cells: list[str], given: bytes, wrong: str) -> None:
    if wrong:
        raise ValueError(wrong)
    if any("\ufffd" in cell for cell in cells):
        try:
            given.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error


def _header(cells: list[str], given: bytes, wrong: str) -> list[str]:
    """Return the names of the columns. Raises ValueError."""
    _checked(cells, given, wrong)
    again = repeated(cells)
    if again:
        raise ValueError(f"no row of names: '{again[0]:.40}' stands twice")
    return cells


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that stand more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _row(header: Sequence[str], record: _Cells, fractions: Fractions | None) -> dict[str, Any]:
    """Return one row of a table without its empty cells. Raises ValueError."""
    _checked(*record)
    if len(record.cells) != len(header):
        raise ValueError(f"{len(record.cells)} cells, and {len(header)} columns; quote what holds separators")
    return {name: _value(name, cell, fractions) for name, cell in zip(header, record.cells, strict=True) if cell}


def _value(name: str, cell: str, fractions: Fractions | None) -> str | float:
    if name.lower() in _TEXTS:
        return cell
    cell = fractions.pointed(cell) if fractions else cell
    if not _NUMBER.fullmatch(cell):
        return cell
    number = float(cell) if set(cell) & set(".eE") else int(cell)
    return number if math.isfinite(number) else cell
