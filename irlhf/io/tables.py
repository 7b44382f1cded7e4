"""Rows of text files: tables with a header, read here, and JSON (irlhf/io/jsonl.py); and what tells them apart.

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
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from irlhf.core.errors import DataError
from irlhf.core.example import Where
from irlhf.io.compression import COMPRESSED_SUFFIXES
from irlhf.io.jsonl import BOM, LINE_LIMIT, Broken, Given, Numbered, document, numbered_lines, objects, parse_lines

SEPARATORS: Mapping[str, str] = {".csv": ",", ".tsv": "\t"}  # of cells, by what tables are called

_HEAD = 1024  # bytes, among which the first character stands
_JSON = (".json", ".jsonl", ".ndjson")  # names of files that are no tables, whatever they begin with
_DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas"}  # the surest first
_NAME = re.compile(r"[\w .\-/()#%]+")  # a column's, where nothing but the header says that there is a table
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,307})(?:\.[0-9]{1,308})?(?:[eE][+-]?[0-9]{1,3})?")
_GROUPED = re.compile(r"-?[1-9][0-9]{0,2},[0-9]{3}")  # a fraction in one country, over a thousand in another
_COMMA = re.compile(r"-?[0-9]{1,308},[0-9]{1,308}(?:[eE][+-]?[0-9]{1,3})?")
# Columns whose cells are text whatever they look like: an answer may be 42.
_TEXTS = frozenset(
    {"id", "group", "prompt", "completion", "label", "split", "source", "finish", "policy", "kept", "chosen"}
    | {"rejected", "instruction", "input", "output", "system", "response", "question", "answer", "query", "history"}
    | {"context", "response_0", "response_1", "response_2", "response1", "response2", "title", "text"}
)

csv.field_size_limit(max(csv.field_size_limit(), LINE_LIMIT))  # Python's own is 128 KiB, for the whole process


Tell = Callable[[str], None]


class Reading(NamedTuple):
    """How a file of rows is read."""

    tell: Tell  # is told how the file was taken where its name does not say it
    delimiter: str = ""  # of the cells of a table; empty: as the name and the header say


class _Cells(NamedTuple):
    """One row of a table as it stands in the file."""

    cells: list[str]
    given: bytes
    wrong: str  # why it is none


def rows_of(stream: Any, path: Path, how: Reading) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of an unpacked stream, in the shape that its first character and the file's name show."""
    suffix, first = _looks(stream, path)
    if suffix in SEPARATORS:
        return _table(numbered_lines(stream, path), path, SEPARATORS[suffix], how)
    if first == b"[":
        return document(b"", stream, path)
    if suffix == ".json" and first == b"{":
        return objects(stream, path)
    if first != b"{" and suffix not in _JSON:
        return _table(numbered_lines(stream, path), path, "", how)
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
    return name[: name.rindex(".")] if name.lower().endswith(COMPRESSED_SUFFIXES) else name


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


def _table(numbered: Numbered, path: Path, usual: str, how: Reading) -> Iterator[tuple[Where, Given]]:
    """Read what is called a table, or looks like one where `usual` is empty; anything else is JSONL."""
    first, numbered = _begun(numbered)
    header = first.removeprefix(BOM).decode("utf-8", "replace")
    delimiter = how.delimiter or (_by_name(header, usual, path) if usual else _by_content(header))
    if not delimiter:
        return parse_lines(numbered, path)
    if delimiter not in (usual, how.delimiter):
        how.tell(f"as a table, because its first line is names separated by {_DELIMITERS[delimiter]}")
    return _cells(numbered, path, delimiter)


def _by_name(header: str, usual: str, path: Path) -> str:
    """Return what separates the cells of a file that is called a table. Raises DataError where it may be either."""
    fitting = [sign for sign in _DELIMITERS if len(_cut(header, sign)) > 1]
    if len(fitting) > 1 and "\t" not in fitting:
        raise DataError(f"{path}: the header holds semicolons and commas; choose with irlhf prepare --delimiter")
    return fitting[0] if fitting else usual


def _by_content(header: str) -> str:
    """Return what separates the names where the line is the header of a table for certain, else nothing."""
    for sign in _DELIMITERS:
        names = _cut(header, sign)
        if len(names) > 1 and len(set(names)) == len(names) and all(_NAME.fullmatch(name) for name in names):
            return sign
    return ""


def _cut(line: str, sign: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=sign, strict=True), [])
    except csv.Error:  # no line of cells, as the reader of rows will say
        return []


def _begun(numbered: Numbered) -> tuple[bytes, Numbered]:
    """Return the first line that is not blank, and it with all behind it."""
    for number, line in numbered:
        if line.removeprefix(BOM).strip():
            return line, chain([(number, line)], numbered)
    return b"", numbered


def _cells(numbered: Numbered, path: Path, delimiter: str) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of a table, counted from 1 behind its header; rows of empty cells are none."""
    records = _records(numbered, path, delimiter)
    try:
        header = next((_header(*record) for record in records), [])
    except ValueError as error:
        raise DataError(f"{path}: the header is {error}") from error
    for number, record in enumerate(records, 1):
        where = Where(str(path), number)
        try:
            row: Given = _row(header, record, delimiter)
        except ValueError as error:
            row = Broken(DataError(f"{where}: {error}"), record.given.decode("utf-8", "replace"))
        yield where, row


def _records(numbered: Numbered, path: Path, delimiter: str) -> Iterator[_Cells]:
    """Yield what stands in a table row by row, without rows of empty cells."""
    record = _Record(numbered, path)
    reader = csv.reader(record, delimiter=delimiter, strict=True)
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


def _row(header: Sequence[str], record: _Cells, delimiter: str) -> dict[str, Any]:
    """Return one row of a table without its empty cells. Raises ValueError."""
    _checked(*record)
    if len(record.cells) != len(header):
        raise ValueError(f"{len(record.cells)} cells, and {len(header)} columns; quote what holds separators")
    return {name: _value(name, cell, delimiter) for name, cell in zip(header, record.cells, strict=True) if cell}


def _value(name: str, cell: str, delimiter: str) -> str | float:
    """Return a cell as text or as a number. Raises ValueError for a number with a comma that it does not read."""
    if name.lower() in _TEXTS:
        return cell
    if _GROUPED.fullmatch(cell):
        point, whole = cell.replace(",", "."), cell.replace(",", "")
        raise ValueError(f"'{cell}' is ambiguous: decimal comma or thousands separator? Write {point} or {whole}")
    if delimiter != "," and _COMMA.fullmatch(cell):  # beside commas, '1,5' in quotation marks may be a list
        raise ValueError(f"'{cell:.40}' has a decimal comma; write {cell.replace(',', '.'):.40}")
    if not _NUMBER.fullmatch(cell):
        return cell
    number = float(cell) if set(cell) & set(".eE") else int(cell)
    return number if math.isfinite(number) else cell
