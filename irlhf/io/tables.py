"""Detect the format of text files, and read tables with a header. irlhf/io/jsonl.py reads the JSON formats.

The first line of this table that applies to a file decides how its rows are read.

.csv, .tsv                      a table: a header, then one line of cells per row
first character [               a JSON list of objects
.json and first character {     JSONL; or a JSON object that holds one list of rows; or a JSON object that is one row
unknown suffix, or stdin        a table, if the first line is clearly a header
else                            JSONL
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple

from irlhf.core.errors import DataError
from irlhf.core.example import Where
from irlhf.io.compression import COMPRESSED_SUFFIXES, DAMAGE
from irlhf.io.jsonl import BOM, LINE_LIMIT, Broken, Given, Numbered, document, numbered_lines, objects, parse_lines

SEPARATORS: Mapping[str, str] = {".csv": ",", ".tsv": "\t"}  # cell separators by file suffix

_HEAD = 1024  # bytes searched for the first character
_JSON = (".json", ".jsonl", ".ndjson")  # suffixes of files that are never read as tables
_DELIMITERS = {"\t": "tabs", ";": "semicolons", ",": "commas"}  # the least ambiguous first
_NAME = re.compile(r"[\w .\-/()#%]+")  # a column name, if only the header indicates a table
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,307})(?:\.[0-9]{1,308})?(?:[eE][+-]?[0-9]{1,3})?")
_GROUPED = re.compile(r"-?[1-9][0-9]{0,2},[0-9]{3}")  # a decimal comma or a thousands separator
_COMMA = re.compile(r"-?[0-9]{1,308},[0-9]{1,308}(?:[eE][+-]?[0-9]{1,3})?")
# Columns whose cells are always text: an answer may be 42.
_TEXTS = frozenset(
    {"id", "group", "prompt", "completion", "label", "split", "source", "finish", "policy", "kept", "chosen"}
    | {"rejected", "instruction", "input", "output", "system", "response", "question", "answer", "query", "history"}
    | {"context", "response_0", "response_1", "response_2", "response1", "response2", "title", "text"}
)

_TEXT, _NUMBERS, _ABSENT = "text", "numbers", "absent"  # kinds of cells; the first two are types of columns
_MISSING = frozenset({"nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None"})
_IN_MEMORY = 64 * 2**20  # bytes of a piped table; more goes to a temporary file

csv.field_size_limit(max(csv.field_size_limit(), LINE_LIMIT))  # process-wide; Python's default is 128 KiB


Tell = Callable[[str], None]


class Reading(NamedTuple):
    """Options for reading a file of rows."""

    tell: Tell  # called with the reason if a file without a table's suffix is read as a table
    delimiter: str = ""  # cell separator of a table; if empty, inferred from the name and the header
    texts: frozenset[str] = frozenset()  # columns of a table that are text, besides the usual ones
    once: bool = False  # the stream is a pipe, which can be read once


class _Cells(NamedTuple):
    """One row of a table as in the file."""

    cells: list[str]
    given: bytes
    problem: str  # the reason if the row is invalid


def rows_of(stream: Any, path: Path, how: Reading) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of a decompressed stream; its first character and the file name determine the format."""
    suffix, first = _format_hints(stream, path)
    if suffix in SEPARATORS:
        return _table(stream, path, SEPARATORS[suffix], how)
    if first == b"[":
        return document(b"", stream, path)
    if suffix == ".json" and first == b"{":
        return objects(stream, path)
    if first != b"{" and suffix not in _JSON:
        return _table(stream, path, "", how)
    return parse_lines(numbered_lines(stream, path), path)


def is_jsonl(stream: Any, path: Path) -> bool:
    """Return whether a decompressed stream is read as one object per line."""
    suffix, first = _format_hints(stream, path)
    return suffix not in (*SEPARATORS, ".json") and first == b"{"


def _format_hints(stream: Any, path: Path) -> tuple[str, bytes]:
    """Return the suffix of the name and the first character of the stream."""
    return Path(bare(path.name)).suffix.lower(), stream.peek(_HEAD)[:_HEAD].removeprefix(BOM).lstrip()[:1]


def bare(name: str) -> str:
    """Return a file name without its compression suffix."""
    return name[: name.rindex(".")] if name.lower().endswith(COMPRESSED_SUFFIXES) else name


class _Record:
    """Decodes lines for csv.reader and keeps the raw lines of the current row."""

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
                over = f"the row that starts here exceeds {LINE_LIMIT >> 20} MiB; check for an unclosed quotation mark"
                raise DataError(f"{self._path}:{start}: {over}")
            yield self._taken[-1].decode("utf-8", "replace")

    def take(self) -> bytes:
        """Return the lines of the current row, and start the next."""
        given = b"".join(self._taken)
        self._taken.clear()
        return given


def _table(stream: Any, path: Path, usual: str, how: Reading) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of a table; without `usual`, only if the first line is clearly a header, else those of JSONL.

    The stream is read twice, because the type of a column depends on all its cells.
    """
    first, numbered = _peeked(numbered_lines(stream, path))
    header = first.removeprefix(BOM).decode("utf-8", "replace")
    delimiter = how.delimiter or (_by_name(header, usual, path) if usual else _by_content(header))
    if not delimiter:
        return parse_lines(numbered, path)
    if delimiter not in (usual, how.delimiter):
        how.tell(f"as a table, because its first line has names separated by {_DELIMITERS[delimiter]}")
    if how.once:
        stream = _spooled(numbered)
    stream.seek(0)
    types = _column_types(numbered_lines(stream, path), path, delimiter, how.texts)
    stream.seek(0)
    return _cells(numbered_lines(stream, path), path, delimiter, types)


def _spooled(numbered: Numbered) -> Any:
    """Return a temporary file with the lines of a pipe."""
    spool = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed when the rows have been read
    spool.writelines(line for _, line in numbered)
    return spool


def _column_types(numbered: Numbered, path: Path, delimiter: str, texts: Collection[str]) -> dict[str, str]:
    """Return the type of each column: numbers if all its cells are, else text.

    Cells like NA count as missing. Rows that cannot be read are ignored here.
    """
    records = _records(numbered, path, delimiter)
    header = next(records, None)
    seen: dict[str, set[str]] = {name: set() for name in header.cells} if header else {}
    open_columns = {i: name for i, name in enumerate(seen) if name.lower() not in _TEXTS and name not in texts}
    try:
        for record in records:
            if record.problem or header is None or len(record.cells) != len(header.cells):
                continue
            for i, name in list(open_columns.items()):
                cell = record.cells[i]
                if cell and (kind := _kind(cell, delimiter)) not in seen[name]:
                    seen[name].add(kind)
                    if kind == _TEXT:
                        del open_columns[i]
            if not open_columns:
                break
    except (DataError, *DAMAGE):
        pass  # the reader of the rows reports it
    return {name: _NUMBERS for name in open_columns.values() if _NUMBERS in seen[name]}


def _kind(cell: str, delimiter: str) -> str:
    if _NUMBER.fullmatch(cell):
        return _NUMBERS if math.isfinite(float(cell)) else _TEXT
    if _GROUPED.fullmatch(cell) or (delimiter != "," and _COMMA.fullmatch(cell)):
        return _NUMBERS  # refused row by row, because a comma is ambiguous
    return _ABSENT if cell in _MISSING else _TEXT


def _by_name(header: str, usual: str, path: Path) -> str:
    """Return the cell separator of a file with a table's suffix. Raises DataError if it is ambiguous."""
    fitting = [sign for sign in _DELIMITERS if len(_split(header, sign)) > 1]
    if len(fitting) > 1 and "\t" not in fitting:
        raise DataError(f"{path}: the header holds semicolons and commas; choose with irlhf prepare --delimiter")
    return fitting[0] if fitting else usual


def _by_content(header: str) -> str:
    """Return the separator of the names if the line is clearly the header of a table, else ""."""
    for sign in _DELIMITERS:
        names = _split(header, sign)
        if len(names) > 1 and len(set(names)) == len(names) and all(_NAME.fullmatch(name) for name in names):
            return sign
    return ""


def _split(line: str, sign: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=sign, strict=True), [])
    except csv.Error:  # not a row of cells; the reader of the rows reports it
        return []


def _peeked(numbered: Numbered) -> tuple[bytes, Numbered]:
    """Return the first line that is not blank, and an iterator over it and all later lines."""
    for number, line in numbered:
        if line.removeprefix(BOM).strip():
            return line, chain([(number, line)], numbered)
    return b"", numbered


def _cells(numbered: Numbered, path: Path, delimiter: str, types: Mapping[str, str]) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of a table, numbered from 1 after the header; rows of empty cells are skipped."""
    records = _records(numbered, path, delimiter)
    try:
        header = next((_header(*record) for record in records), [])
    except ValueError as error:
        raise DataError(f"{path}: invalid header: {error}") from error
    for number, record in enumerate(records, 1):
        where = Where(str(path), number)
        try:
            row: Given = _row(header, record, delimiter, types)
        except ValueError as error:
            row = Broken(DataError(f"{where}: {error}"), record.given.decode("utf-8", "replace"))
        yield where, row


def _records(numbered: Numbered, path: Path, delimiter: str) -> Iterator[_Cells]:
    """Yield the rows of a table as cells, without rows of empty cells."""
    record = _Record(numbered, path)
    reader = csv.reader(record, delimiter=delimiter, strict=True)
    while True:
        problem = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, problem = [], f"not a row of cells ({error})"
        given = record.take()
        if any(cells) or problem:
            yield _Cells(cells, given, problem)


def _checked(cells: list[str], given: bytes, problem: str) -> None:
    if problem:
        raise ValueError(problem)
    if any("\ufffd" in cell for cell in cells):
        try:
            given.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error


def _header(cells: list[str], given: bytes, problem: str) -> list[str]:
    """Return the names of the columns. Raises ValueError."""
    _checked(cells, given, problem)
    duplicates = repeated(cells)
    if duplicates:
        raise ValueError(f"'{duplicates[0]:.40}' occurs twice")
    return cells


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _row(header: Sequence[str], record: _Cells, delimiter: str, types: Mapping[str, str]) -> dict[str, Any]:
    """Return one row of a table without its missing cells. Raises ValueError."""
    _checked(*record)
    if len(record.cells) != len(header):
        raise ValueError(f"{len(record.cells)} cells but {len(header)} columns; quote cells that contain separators")
    cells = zip(header, record.cells, strict=True)
    values = {name: _value(cell, types.get(name, _TEXT), delimiter) for name, cell in cells if cell}
    return {name: value for name, value in values.items() if value is not None}


def _value(cell: str, kind: str, delimiter: str) -> str | float | None:
    """Return a cell as a value of the column's type; None if it is missing. Raises ValueError for a decimal comma."""
    if kind == _TEXT:
        return cell
    if cell in _MISSING:
        return None
    if _GROUPED.fullmatch(cell):
        point, whole = cell.replace(",", "."), cell.replace(",", "")
        raise ValueError(f"'{cell}' is ambiguous: decimal comma or thousands separator? Write {point} or {whole}")
    if delimiter != "," and _COMMA.fullmatch(cell):  # in a comma-separated table, a quoted '1,5' may be a list
        raise ValueError(f"'{cell:.40}' has a decimal comma; write {cell.replace(',', '.'):.40}")
    return float(cell) if set(cell) & set(".eE") else int(cell)
