"""Rows of parquet files, by pyarrow, a few at a time."""

import math
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from os import SEEK_END
from pathlib import Path
from typing import IO, Any

from irlhf.errors import ConfigError, DataError
from irlhf.records import Where
from irlhf.tables import Broken, Given, checked, first_line, repeated

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


def rows_of(raw: IO[bytes], path: Path) -> Iterator[tuple[Where, Given]]:
    """Yield the rows of an open file, counted from 1. What is null is absent, in rows and in objects inside them."""
    number = 0
    try:
        buffer = 0 if raw.seek(0, SEEK_END) < _SMALL else _BUFFER
        file = parquet.ParquetFile(raw, buffer_size=buffer, pre_buffer=False)
        again = repeated(file.schema_arrow.names)
        if again:
            raise DataError(f"{path}: column '{again[0]:.40}' stands twice; write it without the other")
        for batch in file.iter_batches(_BATCH, use_threads=False):
            for row in _values(batch):
                number += 1
                where = Where(str(path), number)
                yield where, _plain_row(row, where)
    except _DAMAGE as error:
        reason = f"the parquet file cannot be read ({first_line(error):.120}); fetch it again"
        raise DataError(f"{path}:{number + 1}: {reason}") from error


def _values(batch: Any) -> list[dict[str, Any] | Exception]:
    """Return the rows of a batch, and in the place of one that holds what Python cannot, why."""
    try:
        found: list[dict[str, Any] | Exception] = batch.to_pylist(maps_as_pydicts="strict")
    except _BEYOND as error:
        if batch.num_rows == 1:
            return [error]
        return [row for place in range(batch.num_rows) for row in _values(batch.slice(place, 1))]
    return found


def _plain_row(row: dict[str, Any] | Exception, where: Where) -> Given:
    if isinstance(row, Exception):
        return Broken(DataError(f"{where}: a value cannot be read ({first_line(row):.200}); leave its column out"), "")
    try:
        return checked(_plain(row), where)
    except TypeError as error:
        return Broken(DataError(f"{where}: {error}; leave its column out"), f"{row!r:.1000}")


def _plain(value: Any) -> Any:
    """Return a value as JSON has it. Raises TypeError for one that JSON has not."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
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
