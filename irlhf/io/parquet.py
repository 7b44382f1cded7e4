"""Rows of parquet files, by pyarrow, a few at a time.

A column whose values have no type in common is written as JSON text, and marked, so that it is read as what it was.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from os import SEEK_END
from pathlib import Path
from typing import IO, Any

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Where
from irlhf.io.column_types import FLAG, FRACTION, ITEMS, LIST, TEXT, WHOLE, Column, Shape
from irlhf.io.jsonl import Broken, Given, checked, first_line, parse_row, refuse
from irlhf.io.tables import repeated

try:
    import pyarrow
    from pyarrow import parquet
except ModuleNotFoundError as missing:
    raise ConfigError("parquet files need pyarrow: pip install 'irlhf[parquet]'") from missing

_BATCH = 256  # rows in memory at a time
_BUFFER = 2**20  # bytes of each column that are read at a time
_SMALL = 64 * 2**20  # bytes of a file of which a whole column is: a damaged page of it may say that it has gigabytes
_BEYOND = (OverflowError, KeyError, ValueError)  # dates after the year 9999, keys that a map has twice, half characters
_DAMAGE = (pyarrow.ArrowException, OSError, ValueError)
_MARK = {b"irlhf": b"json"}  # in the schema, of columns of JSON text
_GROUP = 16 * 2**20  # bytes of rows that are packed together
_WIDEST = 5000  # columns


def rows_of(raw: IO[bytes], path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of an open file, counted from 1. What is null is absent, in rows and in objects inside them."""
    number = 0
    try:
        buffer = 0 if raw.seek(0, SEEK_END) < _SMALL else _BUFFER
        file = parquet.ParquetFile(raw, buffer_size=buffer, pre_buffer=False)
        again = repeated(file.schema_arrow.names)
        if again:
            raise DataError(f"{path}: column '{again[0]:.40}' stands twice; write it without the other")
        marked = [
            column.name for column in file.schema_arrow if column.metadata and _MARK.items() <= column.metadata.items()
        ]
        for batch in file.iter_batches(_BATCH, use_threads=False):
            for row in _values(batch):
                number += 1
                where = Where(str(path), number)
                yield where, _plain_row(row, marked, where)
    except _DAMAGE as error:
        reason = f"the parquet file cannot be read ({first_line(error):.120}); fetch it again"
        raise DataError(f"{path}:{number + 1}: {reason}") from error


def write(source: Path, target: Path) -> dict[str, str]:
    """Write JSONL of ours as parquet; return the columns that are JSON text, each with the reason.

    The rows are read twice: for the types of all, and to be written. Whole numbers beside fractions become fractions,
    and what is null is absent.
    """
    columns: dict[str, Column] = {}
    for number, row in enumerate(_parsed(source), 1):
        for name, value in row.items():
            columns.setdefault(name, Column()).take(value, number)
        if len(columns) > _WIDEST:
            raise DataError(f"{source}:{number}: over {_WIDEST:,} columns; name the output .jsonl, or rename this file")
    for column in columns.values():
        column.settle()
    columns = {name: column for name, column in columns.items() if column.clash or column.shape.kind}
    schema = pyarrow.schema([_field(name, column) for name, column in columns.items()])
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for group in _groups(_batches(_parsed(source), columns, schema)):
            writer.write_table(pyarrow.Table.from_batches(group, schema))
    return {name: column.clash for name, column in columns.items() if column.clash}


def _parsed(source: Path) -> Iterator[dict[str, Any]]:
    with source.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            yield parse_row(line, Where(str(source), number))


def _field(name: str, column: Column) -> Any:
    if column.clash:
        return pyarrow.field(name, pyarrow.string(), metadata=_MARK)
    return pyarrow.field(name, _type(column.shape))


def _type(shape: Shape) -> Any:
    if not shape.kind:
        return pyarrow.null()
    if shape.kind == LIST:
        return pyarrow.list_(_type(shape.inside.get(ITEMS, Shape())))
    simple = {TEXT: pyarrow.string(), FLAG: pyarrow.bool_(), WHOLE: pyarrow.int64(), FRACTION: pyarrow.float64()}
    return simple.get(shape.kind) or pyarrow.struct([(name, _type(inner)) for name, inner in shape.parts()])


def _batches(rows: Iterable[dict[str, Any]], columns: Mapping[str, Column], schema: Any) -> Iterator[Any]:
    """Yield a few rows at a time as columns."""
    waiting: list[dict[str, Any]] = []
    for row in rows:
        waiting.append({name: _stored(value, columns[name]) for name, value in row.items() if name in columns})
        if len(waiting) == _BATCH:
            yield pyarrow.RecordBatch.from_pylist(waiting, schema)
            waiting.clear()
    yield pyarrow.RecordBatch.from_pylist(waiting, schema)


def _stored(value: Any, column: Column) -> Any:
    return json.dumps(value, ensure_ascii=False) if column.clash and value is not None else value


def _groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Gather batches until they are worth being packed together."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if sum(batch.nbytes for batch in group) > _GROUP:
            yield group
            group = []
    yield group


def _values(batch: Any) -> list[dict[str, Any] | Exception]:
    """Return the rows of a batch, and in the place of one that holds what Python cannot, why."""
    try:
        parsed: list[dict[str, Any] | Exception] = batch.to_pylist(maps_as_pydicts="strict")
    except _BEYOND as error:
        if batch.num_rows == 1:
            return [error]
        return [row for offset in range(batch.num_rows) for row in _values(batch.slice(offset, 1))]
    return parsed


def _plain_row(row: dict[str, Any] | Exception, marked: Iterable[str], where: Where) -> Given:
    if isinstance(row, Exception):
        return Broken(DataError(f"{where}: a value cannot be read ({first_line(row):.200}); leave its column out"), "")
    try:
        unmarked = {name: _unmarked(row[name], name) for name in marked if row[name] is not None}
        return checked({**_plain(row), **unmarked}, where)
    except TypeError as error:
        return Broken(DataError(f"{where}: {error}; leave its column out"), f"{row!r:.1000}")


def _unmarked(text: str, name: str) -> Any:
    """Return what a column of JSON text holds. Raises TypeError where that is none."""
    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise TypeError(f"'{name:.40}' is marked as JSON, and is none") from error


def _plain(value: Any) -> Any:
    """Return a value as JSON has it. Raises TypeError for one that JSON has not."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items() if item is not None}
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
            raise TypeError("bytes that are no text") from error
    raise TypeError(f"a value of type {type(value).__name__}, which JSON has not")
