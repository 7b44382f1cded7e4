"""Rows of text files: JSONL, tables with a header, and one JSON value that holds a list.

first character [                     one list of objects
.json and {                           an object a line; or an object with one list; or one object, which is one row
.csv, .tsv                            a header and a row of cells for each row
a name that says nothing, as stdin    the same, where the first line is a header for certain
else                                  JSONL
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from irlhf.errors import DataError
from irlhf.packing import DAMAGE, PACKED
from irlhf.records import Where
from irlhf.separators import SEMICOLON, Fractions, by_content, by_header

LINE_LIMIT = 16 * 2**20  # bytes; a longer line is a broken file, or somebody's bomb
JSON_LIMIT = 256 * 2**20  # bytes of one JSON value, which is read whole
DEPTH_LIMIT = 100  # levels of nesting in one row, well below Python's own
BLOCK = 2**19  # bytes of lines that are handed on together
SEPARATORS: Mapping[str, str] = {".csv": ",", ".tsv": "\t"}  # of cells, by what tables are called

_CHUNK = 2**20  # bytes
_BOM = b"\xef\xbb\xbf"
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
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # how half a character is written, or one half of a whole one
_TURN = {"role", "from"}  # keys of what is said in a chat

csv.field_size_limit(max(csv.field_size_limit(), LINE_LIMIT))  # Python's own is 128 KiB, for the whole process


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that cannot be read, while those behind it can."""

    error: DataError
    given: str  # what stands in its place


class _Cells(NamedTuple):
    """One row of a table as it stands in the file."""

    cells: list[str]
    given: bytes
    wrong: str  # why it is none


Given = dict[str, Any] | Broken
Numbered = Iterator[tuple[int, bytes]]  # lines, counted from 1
Tell = Callable[[str], None]


def rows_of(stream: Any, path: Path, tell: Tell) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of an unpacked stream, in the shape that its first character and the file's name show.

    How it was taken is told where the name does not say it.
    """
    suffix, first = _looks(stream, path)
    if suffix in SEPARATORS:
        return _table(_numbered(stream, path), path, SEPARATORS[suffix], tell)
    if first == b"[":
        return _document(b"", stream, path)
    if suffix == ".json" and first == b"{":
        return _objects(stream, path)
    if first != b"{" and suffix not in _JSON:
        return _table(_numbered(stream, path), path, "", tell)
    return _lines(_numbered(stream, path), path)


def is_jsonl(stream: Any, path: Path) -> bool:
    """Return whether an unpacked stream is taken for an object a line at once."""
    suffix, first = _looks(stream, path)
    return suffix not in (*SEPARATORS, ".json") and first == b"{"


def blocks_of(stream: Any, path: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of JSONL from the line `first` on, many at a time, with the number of the first of them."""
    begun, size = first, 0
    lines: list[bytes] = []
    try:
        for number, line in _numbered(stream, path):
            if number < first:
                continue
            lines.append(line)
            size += len(line)
            if size >= BLOCK:
                yield begun, b"".join(lines)
                begun, size, lines = number + 1, 0, []
    except (DataError, *DAMAGE):
        yield begun, b"".join(lines)
        raise
    yield begun, b"".join(lines)


def rows_in(block: bytes, number: int, path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of a block whose first line has this number."""
    return _lines(enumerate(BytesIO(block), number), path)


def _looks(stream: Any, path: Path) -> tuple[str, bytes]:
    """Return what the shape of a stream is told by: the suffix of its name, and its first character."""
    return Path(bare(path.name)).suffix.lower(), stream.peek(_HEAD)[:_HEAD].removeprefix(_BOM).lstrip()[:1]


def bare(name: str) -> str:
    """Return the name of a file without what says that it is packed."""
    return name[: name.rindex(".")] if name.lower().endswith(PACKED) else name


def parse_row(line: bytes, where: Where) -> dict[str, Any]:
    """Return the object on one line. Raises DataError."""
    try:
        text = line.decode("utf-8-sig" if where.line == 1 else "utf-8")
        if text.startswith("\ufeff"):  # as where files with one each were put together
            raise ValueError("Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)")
        row = _ROW.decode(text)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply (over {DEPTH_LIMIT} levels)") from error
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({first_line(error)})") from error
    if line.count(b"{") + line.count(b"[") <= DEPTH_LIMIT and isinstance(row, dict) and not _HALF.search(line):
        return row
    return _sound(row, where)


def checked(row: object, where: Where) -> Given:
    """Return an object that can be written again as it stands; anything else is broken."""
    try:
        return _sound(row, where)
    except DataError as error:
        return Broken(error, "" if depth(row) > DEPTH_LIMIT else json.dumps(row))


def _sound(row: object, where: Where) -> dict[str, Any]:
    if depth(row) > DEPTH_LIMIT:
        raise DataError(f"{where}: nested too deeply (over {DEPTH_LIMIT} levels)")
    if not isinstance(row, dict):
        raise DataError(f'{where}: not a JSON object; each row must be one, like {{"prompt": …}}')
    try:
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()  # a lone surrogate has no bytes to be written as
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: half a character (a lone surrogate \\ud800-\\udfff); mend the text") from error
    except ValueError as error:
        raise DataError(f"{where}: NaN and Infinity are not numbers; leave such a value out") from error
    return row


def first_line(error: BaseException) -> str:
    """Return what an error says, as far as it fits into ours."""
    return str(error).split("\n", 1)[0]


def refuse(constant: str) -> float:
    """Refuse NaN and Infinity, which Python's reader of JSON takes for numbers. Raises ValueError."""
    raise ValueError(f"{constant} is not a number")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.20} is beyond what a number can be")
    return number


_ROW = json.JSONDecoder(parse_constant=refuse, parse_float=_float)


def _numbered(stream: Any, path: Path) -> Numbered:
    number = 0
    while line := stream.readline(LINE_LIMIT + 1):
        number += 1
        if len(line) > LINE_LIMIT:
            raise DataError(f"{path}:{number}: a line of over {LINE_LIMIT >> 20} MiB; is it JSONL, or a table?")
        yield number, line


def _lines(numbered: Numbered, path: Path) -> Iterator[tuple[Where, Given]]:
    for number, line in numbered:
        if line.strip():
            where = Where(str(path), number)
            try:
                row: Given = parse_row(line, where)
            except DataError as error:
                row = Broken(error, line.decode("utf-8", "replace"))
            yield where, row


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
            self._taken.append(line.removeprefix(_BOM) if number == 1 else line)
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
    header = first.removeprefix(_BOM).decode("utf-8", "replace")
    try:
        found = by_header(header, usual) if usual else by_content(header)
    except ValueError as error:
        raise DataError(f"{path}: the header is {error}") from error
    if found is None:
        return _lines(numbered, path)
    if found.sign != usual:
        tell(f"as a table, because {found.reason}")
    if found.own_line:
        next(numbered)
    return _cells(numbered, path, found.sign)


def _begun(numbered: Numbered) -> tuple[bytes, Numbered]:
    """Return the first line that is not blank, and it with all behind it."""
    for number, line in numbered:
        if line.removeprefix(_BOM).strip():
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


def _objects(stream: Any, path: Path) -> Iterator[tuple[Where, Given]]:
    """Tell JSONL in a .json file from one value: its first line is whole, and more stands below."""
    begun = bytearray()
    filled: list[bytes] = []
    while len(filled) < 2 and len(begun) <= JSON_LIMIT and (line := stream.readline(LINE_LIMIT + 1)):
        begun += line
        filled += [line] if line.strip() else []
    if len(filled) == 2 and _is_whole(filled[0]):
        behind = ((number + begun.count(b"\n"), line) for number, line in _numbered(stream, path))
        return _lines(chain(enumerate(BytesIO(begun), 1), behind), path)
    return _document(begun, stream, path)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _document(begun: bytes | bytearray, stream: Any, path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield the objects of one JSON value, counted from 1."""
    whole = bytearray(begun)
    while len(whole) <= JSON_LIMIT and (more := stream.read(_CHUNK)):
        whole += more
    if len(whole) > JSON_LIMIT:
        raise DataError(f"{path}: over {JSON_LIMIT >> 20} MiB in one JSON value; make it JSONL: jq -c '.[]' {path}")
    try:
        text = whole.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
    del whole
    start = _space(text, 0)
    if text[start] == "[":
        yield from _items(text, start, path)
        return
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({first_line(error)})") from error
    if _space(text, end) < len(text):
        raise DataError(f"{path}: more stands behind the object; write one a line, or one list")
    for number, row in enumerate(_list_in(value), 1):
        where = Where(str(path), number)
        yield where, checked(row, where)


def _list_in(value: dict[str, Any]) -> list[Any]:
    """Return the one list of objects beside single values, unless it is a chat; else the object as the only row."""
    inside = [one for one in value.values() if isinstance(one, dict | list)]
    rows = inside[0] if len(inside) == 1 else []
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict) or rows[0].keys() & _TURN:
        return [value]
    return rows


def _items(text: str, start: int, path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield one object of a list after the other, so that only their text is in memory as a whole."""
    at = _space(text, start + 1)
    number = 0
    while number or text[at : at + 1] != "]":
        number += 1
        where = Where(str(path), number)
        try:
            row, at = _DECODER.raw_decode(text, at)
        except RecursionError as error:
            raise DataError(f"{where}: nested too deeply (over {DEPTH_LIMIT} levels)") from error
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({first_line(error)})") from error
        yield where, checked(row, where)
        at = _space(text, at)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            raise DataError(f"{where}: neither a comma nor the end of the list behind it; is the file cut short?")
        at = _space(text, at + 1)
    if _space(text, at + 1) < len(text):
        raise DataError(f"{path}: more stands behind the list; leave the list alone in its file")


def _space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def depth(value: object) -> int:
    """Return how many levels a value is nested, found level by level: no recursion, no limit."""
    levels, level = 0, [value]
    while level:
        levels += 1
        inside = [one for one in level if isinstance(one, dict | list)]
        level = [item for one in inside for item in (one.values() if isinstance(one, dict) else one)]
    return levels
