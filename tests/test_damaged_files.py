"""Bytes of real-shaped files damaged at random: the account closes, or one line says where and what is wrong."""

import gzip
import json
import os
import random
import re
import resource
import tracemalloc
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
from fuzz import Watch, examine, hold_blocks, hold_command, hold_files, hold_typed
from helpers import Row, slow_after
from raw_rows import ROWS, several
from test_tables import arrow, jsonl, table

from irlhf.core.errors import DataError
from irlhf.core.registry import FORMATS
from irlhf.data.settings import PrepareSettings
from irlhf.io.compression import zstd
from irlhf.io.files import read_rows
from irlhf.io.parquet import write as write_parquet

MUTATIONS = int(os.environ.get("IRLHF_FUZZ_MUTATIONS") or 1_000)  # over all formats and kinds of file
START = int(os.environ.get("IRLHF_FUZZ_START") or 0)  # number of the first case, which is all its seed
GROWTH = 256 * 2**10  # KiB that all cases together may add to the memory at its most

SIGNS = b'{}[]",:\n\\'
VALUE = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null')
ODD = [
    b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 400, b"9" * 5000, b"null", b"true", b"[]", b"{}", b'""', b"[" * 120,
    b"[" * 3000, b'{"a":' * 60, b'"\\ud800"', b'"\\udc00\\ud800"', b"\\u0000", b"\x00", b"\xff\xfe", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n", b"\xe2\x80\xa8", b"\x85", b"\x1b[2J", b'"', b"'", b"\\", b"\t", b",,,",
    b'"role"', b'"system"', b'"function_call"', b'"tool_calls":[1],', b'"id":"",', b'"id":"x\\ny",', b'"split":"test",',
    b'"rewards":{"a":1e300},', b'"noted":[{"\\n":1}],', b"<s>", b"\n\nHuman:", b"\\n\\nAssistant:", b"N/A", b"1.5",
    "\u202e\N{HERB}\u00e9".encode(), b" " * 2000,
]  # fmt: skip


def cells(rows: list[Row]) -> list[Row]:
    """Rows of a table: what is no single value stands in its cell as JSON."""
    plain = str | int | float
    return [{name: one if isinstance(one, plain) else json.dumps(one) for name, one in row.items()} for row in rows]


def columns(rows: list[Row]) -> list[Row]:
    """Rows of parquet, which has no empty object."""
    return [{name: one for name, one in row.items() if one != {}} for row in rows]


def written(rows: list[Row]) -> bytes:
    """Rows as irlhf writes them, with a column that is JSON text."""
    Path("mixed.jsonl").write_bytes(jsonl([{**row, "mixed": n or [{"a": "b"}]} for n, row in enumerate(rows)]))
    write_parquet(Path("mixed.jsonl"), Path("mixed.parquet"))
    return Path("mixed.parquet").read_bytes()


TYPED = [
    {"prompt": "p", "completion": "c", "on": date(2026, 1, n), "at": datetime(2026, 1, 1, n), "took": timedelta(n) // n,
     "by": time(n), "price": Decimal(n) / 4, "said": b"yes"}
    for n in range(1, 4)
]  # fmt: skip
Writer = Callable[[list[Row]], bytes]
WRITERS: dict[str, Writer] = {
    "raw.jsonl": jsonl,
    "raw.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "wrapped.json": lambda rows: json.dumps({"version": 1, "data": rows}).encode(),
    "lines.json": jsonl,
    "raw.csv": lambda rows: table(cells(rows)),
    "raw.tsv": lambda rows: table(cells(rows), "\t"),
    "raw.parquet": lambda rows: arrow(columns(rows), compression="none", use_dictionary=False),
    "fractions.csv": lambda rows: table([{**one, "share": "0,5", "n": 7} for one in cells(rows)], ";"),
    "untold.txt": lambda rows: table(cells(rows), "\t"),
    "snappy.parquet": lambda rows: arrow(columns(rows)),
    "mixed.parquet": written,
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": zstd.compress,
}
# What people have stands several times.
KINDS = [*WRITERS, *["raw.jsonl"] * 8]
PACKED = [*PACKERS, *[""] * 6]
FORMS = [*FORMATS, *["auto"] * 3 * len(FORMATS)]


class Case(NamedTuple):
    """One damaged file, and how it is read."""

    name: str
    data: bytes
    settings: PrepareSettings


class Mutator:
    """Files of every format and kind, and what can happen to their bytes."""

    def __init__(self) -> None:
        self.files = {kind: [write(several(name)) for name in ROWS] for kind, write in WRITERS.items()}
        self.files["raw.parquet"] += [arrow(TYPED, compression="none", use_dictionary=False)] * 4

    def case(self, number: int) -> Case:
        """Return one case; its number is its seed. Packed files are damaged before they are packed, or after."""
        rng = random.Random(number)
        kind, packer = rng.choice(KINDS), rng.choice(PACKED)
        pack, early = PACKERS[packer], rng.random() < 0.5
        data, other = (rng.choice(self.files[kind]) for _ in range(2))
        if not early:
            data, other = pack(data), pack(other)
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            rng.choice(DAMAGE)(rng, changed, other)
        settings = PrepareSettings(rng.choice(FORMS), drop_duplicates=rng.random() < 0.2)
        return Case(kind + packer, pack(bytes(changed)) if early else bytes(changed), settings)


def flip(rng: random.Random, data: bytearray, other: bytes) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    data[at : at + rng.choice((1, 1, 2, 4))] = rng.randbytes(rng.choice((1, 2, 4)))


def delete(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 1, 2, 8, 60, 400))]


def insert(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(ODD)


def double(rng: random.Random, data: bytearray, other: bytes) -> None:
    at, to = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    data[to:to] = data[at : at + rng.choice((1, 4, 30, 300))] * rng.choice((1, 1, 2, 20))


def truncate(rng: random.Random, data: bytearray, other: bytes) -> None:
    del data[rng.randrange(len(data) + 1) :]


def splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]


def swap(rng: random.Random, data: bytearray, other: bytes) -> None:
    places = [at for at, sign in enumerate(data) if sign in SIGNS]
    if places:
        one, two = rng.choice(places), rng.choice(places)
        data[one], data[two] = data[two], data[one]


def restructure(rng: random.Random, data: bytearray, other: bytes) -> None:
    places = [at for at, sign in enumerate(data) if sign in SIGNS]
    if places:
        data[rng.choice(places)] = rng.choice(SIGNS)


def replace_value(rng: random.Random, data: bytearray, other: bytes) -> None:
    found = [one.span() for one in VALUE.finditer(data)]
    given = VALUE.findall(other)
    if found and given:
        start, end = rng.choice(found)
        data[start:end] = rng.choice(given if rng.random() < 0.5 else ODD)


def swap_values(rng: random.Random, data: bytearray, other: bytes) -> None:
    found = [one.span() for one in VALUE.finditer(data)]
    if len(found) > 1:
        (start, end), (later, last) = sorted(rng.sample(found, 2))
        data[start:last] = data[later:last] + data[end:later] + data[start:end]


DAMAGE = [
    flip, overwrite, delete, insert, double, truncate, splice, swap, restructure, replace_value, replace_value,
    swap_values,
]  # fmt: skip


@pytest.mark.fuzz
@pytest.mark.timeout(0)  # each case has its own limit
def test_no_damage_to_bytes_ends_in_a_traceback_or_an_open_account(watch: Watch) -> None:
    mutator = Mutator()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(START, START + MUTATIONS):
        case = mutator.case(number)
        path = Path(case.name)
        path.write_bytes(case.data)
        try:
            run = examine(watch, path, case.settings)
            if number % 16 == 0:
                hold_files(path, case.settings, run)
            if number % 16 == 8 and not case.settings.drop_duplicates:
                hold_blocks(path, case.settings, run)
            if number % 64 == 1:
                hold_typed(path, case.settings, run)
            if number % 256 == 2:
                hold_command(path, case.settings, run)
        except BaseException as error:
            error.add_note(f"case {number}: {case.name} {case.data[:3000]!r}")
            raise
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH


MIB = 2**20
# How each begins, what follows, how many MiB of that, and what is said.
BOMBS: dict[str, tuple[bytes, bytes, int, str]] = {
    "line.jsonl.zst": (b"", b"a", 4096, ":1: the line is longer than 16 MiB"),
    "line.jsonl.gz": (b'{"prompt": "', b"a", 64, ":1: the line is longer than 16 MiB"),
    "line.csv.zst": (b"", b",", 1024, ":1: the line is longer than 16 MiB"),
    "nested.jsonl.gz": (b'{"prompt": ', b"[", 12, ":1: nested too deeply"),
    "nested.json.zst": (b"[", b"[", 12, ":1: nested too deeply"),
    "blank.json.gz": (b"{\n", b"\r\n", 2, ": not JSON"),
}


@pytest.mark.parametrize("name", slow_after(3, BOMBS))
def test_a_small_file_that_unpacks_to_a_large_one_is_refused_in_flat_memory(name: str) -> None:
    head, unit, size, told = BOMBS[name]
    pack = zstd.compress if name.endswith(".zst") else gzip.compress
    step = min(size, 64)
    Path(name).write_bytes(pack(head) + pack(unit * (step * MIB // len(unit))) * (size // step))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"^{name}{told}"):
            list(read_rows(Path(name)))
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_large_rows_of_a_table_of_semicolons_are_read_in_flat_memory() -> None:
    rows = zstd.compress(b"a;b\n") + zstd.compress(b"1;" + b"x" * MIB + b"\n") * 200
    Path("rows.csv.zst").write_bytes(rows)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_rows(Path("rows.csv.zst"))) == 200
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("wide.csv", ",".join(f"c{n}" for n in range(100_000)).encode() + b"\n1\n"),
        ("wide.jsonl", json.dumps(dict.fromkeys(map(str, range(100_000)), 1)).encode()),
        ("unknown.jsonl", (json.dumps({f"column {n}": n for n in range(12)}).encode() + b"\n") * 3000),
        ("spaces of labels.jsonl", json.dumps(ROWS["steerlm"]).replace("quality:3", " " * 200_000).encode()),
        ("spaces.jsonl", json.dumps({**ROWS["helpsteer"], "prompt": " " * 200_000 + "?"}).encode()),
    ],
)
def test_no_row_takes_time_beyond_its_size(watch: Watch, name: str, data: bytes) -> None:
    """Each took minutes: columns held to each other, names to those of every format, spaces to spaces."""
    path = Path(name)
    path.write_bytes(data)
    examine(watch, path, PrepareSettings())
