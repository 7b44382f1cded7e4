"""Read rows of parquet and Arrow files, and write parquet, with pyarrow in small batches.

A column whose values have no common type is written as JSON text and marked in the schema, so that reading restores its
values.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from os import SEEK_END
from pathlib import Path
from typing import IO, Any

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Where
from irlhf.io.column_types import (
    EXACT,
    FLAG,
    FRACTION,
    INEXACT,
    NULL,
    TEXT,
    WHOLE,
    ColumnType,
    TypeClash,
    merged,
    type_of,
)
from irlhf.io.jsonl import Broken, Given, checked, first_line, parse_row, refuse
from irlhf.io.tables import repeated

try:
    import pyarrow
    from pyarrow import ipc, parquet
except ModuleNotFoundError as missing:
    raise ConfigError("parquet files need pyarrow: pip install 'irlhf[parquet]'") from missing

_BATCH = 256  # rows in memory at a time
_BUFFER = 2**20  # bytes of a column read at a time
_SMALL = 64 * 2**20  # bytes; columns of smaller files are read whole, because a damaged page may claim gigabytes
_BEYOND = (OverflowError, KeyError, ValueError)  # dates after 9999, repeated map keys, invalid text
_DAMAGE = (pyarrow.ArrowException, OSError, ValueError)
_PARQUET, _ARROW_FILE = b"PAR1", b"ARRO"  # first bytes
_MARK = {b"irlhf": b"json"}  # schema metadata of columns with JSON text
_GROUP = 16 * 2**20  # bytes of rows in one row group
_WIDEST = 5000  # columns
_MOST_NAMES = 1000  # in the objects of one column
_DEEPEST = 32  # levels; Arrow reads schemas of up to 64
_SCALARS = {
    NULL: pyarrow.null(),
    TEXT: pyarrow.string(),
    FLAG: pyarrow.bool_(),
    EXACT: pyarrow.int64(),
    WHOLE: pyarrow.int64(),
    FRACTION: pyarrow.float64(),
}


@dataclass
class _Column:
    """One column: its type, or the reason why it is written as JSON text."""

    type: ColumnType = NULL
    reason: str = ""

    def take(self, value: object, row: int) -> None:
        """Widen the type so that it includes one more value."""
        if self.reason:
            return
        try:
            wider = merged(self.type, type_of(value))
        except TypeClash as clash:
            self.reason = f"{clash.name or 'it'} is {clash.here} in row {row} and {clash.elsewhere} elsewhere"
            return
        if wider is not self.type:
            self.type = wider
            self.reason = f"it has over {_MOST_NAMES:,} names" if _names_in(wider) > _MOST_NAMES else ""


def rows_of(raw: IO[bytes], path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of an open file, numbered from 1. Null values are dropped, also inside objects."""
    number = 0
    kind = "parquet" if raw.peek(4)[:4] == _PARQUET else "Arrow"  # type: ignore[attr-defined]
    try:
        schema, batches = (_parquet if kind == "parquet" else _arrow)(raw)
        duplicates = repeated(schema.names)
        if duplicates:
            raise DataError(f"{path}: column '{duplicates[0]:.40}' occurs twice; remove or rename one")
        marked = [column.name for column in schema if column.metadata and _MARK.items() <= column.metadata.items()]
        for batch in batches:
            for row in _values(batch):
                number += 1
                where = Where(str(path), number)
                yield where, _plain_row(row, marked, where)
    except _DAMAGE as error:
        reason = f"the {kind} file cannot be read ({first_line(error):.120}); download it again"
        raise DataError(f"{path}:{number + 1}: {reason}") from error


def _parquet(raw: IO[bytes]) -> tuple[Any, Iterator[Any]]:
    """Return the schema and the batches of a parquet file."""
    buffer = 0 if raw.seek(0, SEEK_END) < _SMALL else _BUFFER
    file = parquet.ParquetFile(raw, buffer_size=buffer, pre_buffer=False)
    return file.schema_arrow, file.iter_batches(_BATCH, use_threads=False)


def _arrow(raw: IO[bytes]) -> tuple[Any, Iterator[Any]]:
    """Return the schema and the batches of an Arrow file, in the file or the stream format."""
    if raw.peek(4)[:4] == _ARROW_FILE:  # type: ignore[attr-defined]
        file = ipc.open_file(raw)
        parts = (file.get_batch(i) for i in range(file.num_record_batches))
    else:
        file = ipc.open_stream(raw)
        parts = iter(file)
    return file.schema, (part.slice(at, _BATCH) for part in parts for at in range(0, part.num_rows, _BATCH))


def write(source: Path, target: Path) -> dict[str, str]:
    """Write a JSONL file of irlhf as parquet; return the columns written as JSON text, each with the reason.

    The rows are read twice: to infer the column types, and to write them. A column with integers and floats becomes
    float, and null values are dropped. Raises DataError if there are too many columns.
    """
    columns: dict[str, _Column] = {}
    for number, row in enumerate(_parsed(source), 1):
        for name, value in row.items():
            columns.setdefault(name, _Column()).take(value, number)
        if len(columns) > _WIDEST:
            raise DataError(
                f"{source}:{number}: over {_WIDEST:,} columns, too many for parquet; use an output that ends in .jsonl"
            )
    for column in columns.values():
        column.reason = column.reason or _unwritable(column.type)
    columns = {name: column for name, column in columns.items() if column.reason or column.type != NULL}
    schema = pyarrow.schema([_field(name, column) for name, column in columns.items()])
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for group in _groups(_batches(_parsed(source), columns, schema)):
            writer.write_table(pyarrow.Table.from_batches(group, schema))
    return {name: column.reason for name, column in columns.items() if column.reason}


def _parsed(source: Path) -> Iterator[dict[str, Any]]:
    with source.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            yield parse_row(line, Where(str(source), number))


def _names_in(given: ColumnType) -> int:
    if isinstance(given, dict):
        return len(given) + sum(map(_names_in, given.values()))
    return _names_in(given[0]) if isinstance(given, list) else 0


def _unwritable(given: ColumnType, depth: int = 1) -> str:
    """Return why parquet cannot hold a type, or ""."""
    if given == INEXACT:
        return "it has integers that are too large for its type"
    if depth > _DEEPEST:
        return f"it is nested deeper than {_DEEPEST} levels"
    parts = _parts(given) if isinstance(given, dict) else {}
    if isinstance(given, dict) and not parts:
        return "it holds an object that is always empty"
    inside = given if isinstance(given, list) else parts.values()
    return next(filter(None, (_unwritable(part, depth + 1) for part in inside)), "")


def _field(name: str, column: _Column) -> Any:
    if column.reason:
        return pyarrow.field(name, pyarrow.string(), metadata=_MARK)
    return pyarrow.field(name, _arrow_type(column.type))


def _arrow_type(given: ColumnType) -> Any:
    if isinstance(given, str):
        return _SCALARS[given]
    if isinstance(given, list):
        return pyarrow.list_(_arrow_type(given[0]))
    return pyarrow.struct([(name, _arrow_type(part)) for name, part in _parts(given).items()])


def _parts(given: Mapping[str, ColumnType]) -> dict[str, ColumnType]:
    """Return the types inside an object, without names that are null in every row."""
    return {name: part for name, part in given.items() if part != NULL}


def _batches(rows: Iterable[dict[str, Any]], columns: Mapping[str, _Column], schema: Any) -> Iterator[Any]:
    """Yield record batches of up to _BATCH rows."""
    rows_in_batch: list[dict[str, Any]] = []
    for row in rows:
        rows_in_batch.append({name: _stored(value, columns[name]) for name, value in row.items() if name in columns})
        if len(rows_in_batch) == _BATCH:
            yield pyarrow.RecordBatch.from_pylist(rows_in_batch, schema)
            rows_in_batch.clear()
    yield pyarrow.RecordBatch.from_pylist(rows_in_batch, schema)


def _stored(value: Any, column: _Column) -> Any:
    return json.dumps(value, ensure_ascii=False) if column.reason and value is not None else value


def _groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield lists of batches of at least _GROUP bytes, one per row group."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if sum(batch.nbytes for batch in group) > _GROUP:
            yield group
            group = []
    yield group


def _values(batch: Any) -> list[dict[str, Any] | Exception]:
    """Return the rows of a batch; a row with a value that Python cannot represent is replaced by the exception."""
    try:
        parsed: list[dict[str, Any] | Exception] = batch.to_pylist(maps_as_pydicts="strict")
    except _BEYOND as error:
        if batch.num_rows == 1:
            return [error]
        return [row for offset in range(batch.num_rows) for row in _values(batch.slice(offset, 1))]
    return parsed


def _plain_row(row: dict[str, Any] | Exception, marked: Iterable[str], where: Where) -> Given:
    if isinstance(row, Exception):
        return Broken(DataError(f"{where}: a value cannot be read ({first_line(row):.200}); remove its column"), "")
    try:
        unmarked = {name: _unmarked(row[name], name) for name in marked if row[name] is not None}
        return checked({**_plain(row), **unmarked}, where)
    except TypeError as error:
        return Broken(DataError(f"{where}: {error}; remove its column"), f"{row!r:.1000}")


def _unmarked(text: str, name: str) -> Any:
    """Return the parsed JSON text of a column. Raises TypeError if it is not JSON."""
    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise TypeError(f"'{name:.40}' is marked as JSON but is not valid JSON") from error


def _plain(value: Any) -> Any:
    """Return a value converted to a JSON type. Raises TypeError if there is none."""
    if value is None or isinstance(value, str | bool | int | float):
        # pandas writes NaN where a value is missing
        return None if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, dict):
        items = {str(name): _plain(item) for name, item in value.items()}
        return {name: item for name, item in items.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == math.floor(value) else float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise TypeError("bytes that are not UTF-8 text") from error
    raise TypeError(f"a value of type {type(value).__name__}, which JSON does not support")
