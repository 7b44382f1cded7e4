"""Read rows of JSON: one object per line, or one value with a list of objects."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Where
from irlhf.io.compression import DAMAGE

LINE_LIMIT = 16 * 2**20  # bytes; a longer line means a broken or malicious file
JSON_LIMIT = 256 * 2**20  # bytes of one JSON value, which is read at once
DEPTH_LIMIT = 100  # levels of nesting in one row, well below Python's recursion limit
BLOCK = 2**19  # bytes of lines in one block
EXPECTED = 'each row must be an object, like {"prompt": …}'
BOM = b"\xef\xbb\xbf"

_CHUNK = 2**20  # bytes
_SPACE = re.compile(r"[ \t\r\n]*")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # the escape of a surrogate, alone or in a pair
_TURN = {"role", "from"}  # keys of a chat message


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that cannot be read. The rows after it can."""

    error: DataError
    given: str  # the text of the row


Given = dict[str, Any] | Broken
Numbered = Iterator[tuple[int, bytes]]  # lines, numbered from 1


def parse_row(line: bytes, where: Where) -> dict[str, Any]:
    """Return the object on one line. Raises DataError if it is not UTF-8, not JSON or not an object."""
    try:
        text = line.decode("utf-8-sig" if where.line == 1 else "utf-8")
        if text.startswith("\ufeff"):  # for example, after files with a BOM were concatenated
            raise ValueError("Unexpected UTF-8 BOM (decode using utf-8-sig): line 1 column 1 (char 0)")
        row = _ROW.decode(text)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply (over {DEPTH_LIMIT} levels)") from error
    except ValueError as error:
        hint = "" if text.lstrip()[:1] in ("{", "[") else f"; {EXPECTED}"
        raise DataError(f"{where}: not JSON ({first_line(error)}){hint}") from error
    if line.count(b"{") + line.count(b"[") <= DEPTH_LIMIT and isinstance(row, dict) and not _HALF.search(line):
        return row
    return _validated(row, where)


def checked(row: object, where: Where) -> Given:
    """Return an object that can be written back unchanged, or a Broken row."""
    try:
        return _validated(row, where)
    except DataError as error:
        return Broken(error, "" if depth(row) > DEPTH_LIMIT else json.dumps(row))


def _validated(row: object, where: Where) -> dict[str, Any]:
    if depth(row) > DEPTH_LIMIT:
        raise DataError(f"{where}: nested too deeply (over {DEPTH_LIMIT} levels)")
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object; {EXPECTED}")
    try:
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()  # a lone surrogate cannot be encoded
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: invalid text (a lone surrogate, \\ud800-\\udfff); fix or remove it") from error
    except ValueError as error:
        raise DataError(f"{where}: a number is too large (over 1.8e308); remove it") from error
    return row


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).split("\n", 1)[0]


def refuse(constant: str) -> float:
    """Raise ValueError for NaN and Infinity, which Python's JSON parser accepts."""
    raise ValueError(f"{constant} is not a number")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.20} is too large for a number")
    return number


def _missing(constant: str) -> None:
    """Return null for NaN and Infinity, which pandas writes where a value is missing."""


_ROW = json.JSONDecoder(parse_constant=_missing, parse_float=_float)
_DECODER = json.JSONDecoder(parse_constant=_missing)


def numbered_lines(stream: Any, path: Path) -> Numbered:
    """Yield the numbered lines of a stream. Raises DataError if a line exceeds LINE_LIMIT."""
    number = 0
    while line := stream.readline(LINE_LIMIT + 1):
        number += 1
        if len(line) > LINE_LIMIT:
            raise DataError(
                f"{path}:{number}: the line is longer than {LINE_LIMIT >> 20} MiB; is the file JSONL or a table?"
            )
        yield number, line


def parse_lines(numbered: Numbered, path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield the row on each line, or a Broken row; blank lines are skipped."""
    for number, line in numbered:
        if line.strip():
            where = Where(str(path), number)
            try:
                row: Given = parse_row(line, where)
            except DataError as error:
                row = Broken(error, line.decode("utf-8", "replace"))
            yield where, row


def blocks_of(stream: Any, path: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of JSONL lines, starting with the line `first`, each with the number of its first line."""
    begun, size = first, 0
    lines: list[bytes] = []
    try:
        for number, line in numbered_lines(stream, path):
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
    """Yield the rows of a block; `number` is that of its first line."""
    return parse_lines(enumerate(BytesIO(block), number), path)


def objects(stream: Any, path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of a .json file: JSONL if its first line is a whole value and more follows, else one value."""
    begun = bytearray()
    filled: list[bytes] = []
    while len(filled) < 2 and len(begun) <= JSON_LIMIT and (line := stream.readline(LINE_LIMIT + 1)):
        begun += line
        filled += [line] if line.strip() else []
    if len(filled) == 2 and _is_whole(filled[0]):
        rest = ((number + begun.count(b"\n"), line) for number, line in numbered_lines(stream, path))
        return parse_lines(chain(enumerate(BytesIO(begun), 1), rest), path)
    return document(begun, stream, path)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def document(begun: bytes | bytearray, stream: Any, path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield the objects of one JSON value, numbered from 1. Raises DataError if it is not valid."""
    whole = bytearray(begun)
    while len(whole) <= JSON_LIMIT and (more := stream.read(_CHUNK)):
        whole += more
    if len(whole) > JSON_LIMIT:
        raise DataError(
            f"{path}: one JSON value of over {JSON_LIMIT >> 20} MiB; convert it to JSONL: jq -c '.[]' {path}"
        )
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
        raise DataError(f"{path}: more text follows the object; write one object per line, or one list")
    for number, row in enumerate(_list_in(value), 1):
        where = Where(str(path), number)
        yield where, checked(row, where)


def _list_in(value: dict[str, Any]) -> list[Any]:
    """Return the object's only list of objects, unless it is a chat; else the object as a single row."""
    inside = [inner for inner in value.values() if isinstance(inner, dict | list)]
    rows = inside[0] if len(inside) == 1 else []
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict) or rows[0].keys() & _TURN:
        return [value]
    return rows


def _items(text: str, start: int, path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield the objects of a list one by one, so that only the text is in memory at once."""
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
            raise DataError(f"{where}: expected a comma or the end of the list after it; the file may be truncated")
        at = _space(text, at + 1)
    if _space(text, at + 1) < len(text):
        raise DataError(f"{path}: more text follows the list; keep only the list in the file")


def _space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def depth(value: object) -> int:
    """Return the nesting depth of a value, without recursion."""
    levels, level = 0, [value]
    while level:
        levels += 1
        inside = [inner for inner in level if isinstance(inner, dict | list)]
        level = [item for inner in inside for item in (inner.values() if isinstance(inner, dict) else inner)]
    return levels
