"""Rows of every kind of file: the same rows from each, and what is damaged named in one line."""

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import resource
import sys
import tracemalloc
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest
from helpers import call, process, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from raw_rows import ROWS

from irlhf.core.errors import ConfigError, DataError
from irlhf.data.prepare import prepare
from irlhf.data.settings import PrepareSettings
from irlhf.io.compression import compress, zstd
from irlhf.io.files import read_each, read_rows

FLAT = [
    {"prompt": "How do I repot a fern?", "completion": "In spring,\nin a larger pot.", "score": 0.5, "rank": 1},
    {"prompt": 'Say "a, b".', "completion": "42", "score": -1e-3, "rank": 2},
    {"prompt": "Tab\tand ümläut 🌿", "completion": " spaces ", "rank": 10**12},
    {"prompt": "= 1; 2", "completion": "007", "score": 3.25, "rank": -4, "note": "0x1f"},
]
CHAT = [{"role": "user", "content": "Hi"}]
NESTED = [
    {"messages": [*CHAT, {"role": "assistant", "content": "Hello"}], "labels": {"quality": 0.75, "tags": ["a", "b"]}},
    {"messages": [*CHAT, {"role": "assistant", "content": "No", "weight": 1}], "labels": {"tags": []}, "n": 7},
]

SOUND = (b'{"id": 1, "prompt": "p", "completion": "c"}', b'{"id": 2, "prompt": "q", "completion": "d"}')


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table(rows: list[dict[str, Any]], separator: str = ",", end: str = "\r\n") -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    made = io.StringIO(newline="")
    writer = csv.DictWriter(made, columns, delimiter=separator, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return made.getvalue().encode()


def arrow(rows: list[dict[str, Any]], **options: Any) -> bytes:
    columns = dict.fromkeys(name for row in rows for name in row)
    made = io.BytesIO()
    columnar = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
    parquet.write_table(columnar, made, row_group_size=3 if len(rows) < 100 else 50_000, **options)
    return made.getvalue()


Writer = Callable[[list[dict[str, Any]]], bytes]
WRITERS: dict[str, Writer] = {
    "rows.jsonl": jsonl,
    "rows.jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "rows.jsonl.zst": lambda rows: zstd.compress(jsonl(rows)),
    "rows.json": lambda rows: json.dumps(rows, indent=2).encode(),
    "wrapped.json": lambda rows: json.dumps({"version": "1.0", "data": rows}).encode(),
    "lines.json": jsonl,
    "rows.json.zst": lambda rows: zstd.compress(json.dumps(rows).encode()),
    "list.jsonl": lambda rows: json.dumps(rows).encode(),
    "rows.parquet": arrow,
}
TABLES: dict[str, Writer] = {
    "rows.csv": table,
    "marked.csv": lambda rows: b"\xef\xbb\xbf" + table(rows, end="\n"),
    "ROWS.CSV": table,
    "semicolons.csv": lambda rows: table(rows, ";"),
    "tabs.csv": lambda rows: table(rows, "\t"),
    "table.txt": table,
    "semicolons.zst": lambda rows: zstd.compress(b"\n" + table(rows, ";")),
    "rows.tsv": lambda rows: table(rows, "\t"),
    "rows.csv.gz": lambda rows: gzip.compress(table(rows)),
    "rows.tsv.zst": lambda rows: zstd.compress(table(rows, "\t")),
}


def put(name: str, content: bytes) -> Path:
    Path(name).write_bytes(content)
    return Path(name)


def rows_of(name: str, content: bytes) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(put(name, content))]


def rows_with(path: Path, delimiter: str) -> list[Any]:
    return [row for _, row in read_each(path, delimiter=delimiter)]


def refusal(name: str, content: bytes) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(name, content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [*WRITERS, *TABLES])
def test_the_same_rows_come_from_every_kind_of_file(name: str) -> None:
    found = list(read_rows(put(name, {**WRITERS, **TABLES}[name](FLAT))))
    assert [row for _, row in found] == FLAT
    assert [list(map(type, row.values())) for _, row in found] == [list(map(type, row.values())) for row in FLAT]
    assert [str(where) for where, _ in found] == [f"{name}:{number}" for number in range(1, 5)]


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_inside_a_row_is_kept(name: str) -> None:
    assert rows_of(name, WRITERS[name](NESTED)) == NESTED


@pytest.mark.parametrize("name", [*WRITERS, *TABLES])
def test_prepare_makes_the_same_examples_of_each(name: str) -> None:
    put("raw.jsonl", jsonl(FLAT))
    name = put(name, {**WRITERS, **TABLES}[name](FLAT)).rename(f"raw.{name.split('.', 1)[1]}").name
    made = []
    for source in ("raw.jsonl", name):
        prepare([source], f"{source}.out")
        made.append(read(Path(f"{source}.out")))
    assert made[0] == made[1]
    assert made[0][0]["id"] == "raw-0"


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1),
        ("-0.50", -0.5),
        ("1e-3", 0.001),
        ("007", "007"),
        ("1,5", "1,5"),
        ("1.", "1."),
        (".5", ".5"),
        ("+1", "+1"),
        ("1e999", "1e999"),
        ("9" * 400, "9" * 400),
        ("NaN", "NaN"),
        ("True", "True"),
        (" 1", " 1"),
        ("\u0661", "\u0661"),
        ("2024-01-01", "2024-01-01"),
    ],
)
def test_a_cell_is_a_number_only_where_all_of_it_is_one(cell: str, value: object) -> None:
    (row,) = rows_of("rows.csv", table([{"a": cell, "b": "x"}]))
    assert (row["a"], type(row["a"])) == (value, type(value))


def test_a_column_is_of_numbers_only_if_all_its_cells_are() -> None:
    rows = [{"n": "50.30", "mixed": "50.30"}, {"n": "NA", "mixed": "three"}, {"n": "4", "mixed": "NA"}]
    found = rows_of("rows.csv", table(rows))
    assert found == [{"n": 50.3, "mixed": "50.30"}, {"mixed": "three"}, {"n": 4, "mixed": "NA"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_number_that_may_be_another_is_refused_with_both_ways_to_write_it(delimiter: str) -> None:
    told = refusal("rows.csv", table([{"a": cell, "answer": "1,234"} for cell in ("12", "1.234", "1,234")], delimiter))
    assert told == ("rows.csv:3: '1,234' is ambiguous: decimal comma or thousands separator? Write 1.234 or 1234")


def test_a_point_is_the_decimal_sign_of_every_table_and_a_comma_of_none() -> None:
    cells = ["1.234", "0.5", "12", "1,234,567", "1.2.2026", "a,b"]
    names = {f"c{i}": cell for i, cell in enumerate(cells)}
    (found,) = rows_of("rows.csv", table([{**names, "answer": "1,5"}], ";"))
    assert list(found.values()) == [1.234, 0.5, 12, "1,234,567", "1.2.2026", "a,b", "1,5"]
    told = refusal("rows.csv", table([{"a": "-0,5", "b": "x"}], ";"))
    assert told == "rows.csv:1: '-0,5' has a decimal comma; write -0.5"


@pytest.mark.parametrize("header", ["prompt;completion, long", "completion,prompt;c"])
def test_a_header_that_two_signs_part_is_refused_and_a_delimiter_decides(header: str) -> None:
    source = put("rows.csv", f"{header}\np;q\n".encode())
    refused = call("prepare", source, "-o", "out.jsonl")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "the header holds semicolons and commas; choose with irlhf prepare --delimiter" in refused.err
    assert len(rows_with(source, ";")[0]) == 2


@pytest.mark.parametrize(
    ("name", "said"), [("rows.csv", "|"), ("rows.txt", "|"), ("rows.csv", "tab"), ("rows.tsv", ";")]
)
def test_prepare_reads_tables_by_the_delimiter_that_is_named(name: str, said: str) -> None:
    delimiter = "\t" if said == "tab" else said
    put("raw.jsonl", jsonl(FLAT))
    source = put(name, table(FLAT, delimiter))
    assert call("prepare", source, "-o", "out.jsonl", "--delimiter", said).code == 0
    assert rows_with(source, delimiter) == FLAT
    assert [row["completion"] for row in read(Path("out.jsonl"))] == [row["completion"] for row in FLAT]


@pytest.mark.parametrize("delimiter", [";;", '"', "\n"])
def test_a_delimiter_that_is_none_is_refused(delimiter: str) -> None:
    refused = call("prepare", put("rows.csv", table(FLAT)), "-o", "out.jsonl", "--delimiter", delimiter)
    assert (refused.code, "it must be one character, such as ';', or tab" in refused.err) == (2, True)


def test_quoted_signs_and_old_line_ends_part_no_header() -> None:
    assert rows_of("rows.csv", b'"a;b","c\td",e\n1,2,3\n') == [{"a;b": 1, "c\td": 2, "e": 3}]
    assert refusal("rows.csv", b"a,b\r1,2\r").startswith("rows.csv: invalid header: not a row of cells")
    assert rows_of("rows.csv", b"prompt\nhi; there\n") == [{"prompt": "hi; there"}]


STDIN = {
    "its first line has names separated by commas": table(FLAT),
    "its first line has names separated by semicolons": table(FLAT, ";"),
    "its first line has names separated by tabs": gzip.compress(table(FLAT, "\t")),
    "": json.dumps(FLAT, indent=1).encode(),
}


@pytest.mark.parametrize("told", STDIN)
def test_tables_and_lists_are_read_from_stdin_and_said(told: str) -> None:
    done = process("prepare", "-", "-o", "-", given=STDIN[told])
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["completion"] for line in done.stdout.splitlines()] == [row["completion"] for row in FLAT]
    assert (f"-: read as a table, because {told}\n" if told else "-: read as prompt") in done.stderr.decode()


@pytest.mark.parametrize("torn", [b'lo", "completion": "c"}\n', b"not json\n", b"Hello, {name}\n", b"a,a\n", b"a,,b\n"])
def test_a_torn_first_line_of_jsonl_makes_no_table(torn: bytes) -> None:
    done = process("prepare", "-", "-o", "-", given=torn + SOUND[0])
    assert (done.returncode, b"-:1: not JSON" in done.stderr) == (1, True)


def test_an_answer_that_is_a_number_stays_text() -> None:
    put("sums.csv", b"question,answer\n2+2,4\n3-3,0\n")
    prepare(["sums.csv"], "out.jsonl", PrepareSettings(map={"prompt": "question", "completion": "answer"}))
    assert [row["completion"] for row in read(Path("out.jsonl"))] == ["4", "0"]


def test_blank_lines_and_rows_of_empty_cells_are_no_rows() -> None:
    assert rows_of("rows.csv", b"\n\na,b\n\n,\n1,\n\n") == [{"a": 1}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a,b\n1,2\n1,2,3\n", "rows.csv:2: 3 cells but 2 columns"),
        (b"a,b\n1,2\n3\n", "rows.csv:2: 1 cells but 2 columns"),
        (b'a,b\n1,2\n3,"open\n5,6\n', "rows.csv:2: not a row of cells"),
        (b'a,b\n1,2\n3,"x"y\n', "rows.csv:2: not a row of cells"),
        (b"a,b\n1,2\n3,\xff\n", "rows.csv:2: not UTF-8"),
        (b"a,a\n1,2\n", "rows.csv: invalid header: 'a' occurs twice"),
        (b'a,"b\n1,2\n', "rows.csv: invalid header: not a row of cells"),
        (b"a,\xff\n1,2\n", "rows.csv: invalid header: not UTF-8"),
        (b"a,b\n", "rows.csv: the file has no rows"),
        (b"", "rows.csv: the file has no rows"),
    ],
)
def test_a_damaged_table_is_named_by_row(text: bytes, told: str) -> None:
    assert refusal("rows.csv", text).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'[{"a": 1}, {"a": ', "rows.json:2: not JSON"),
        (b'[{"a": 1}, ', "rows.json:2: not JSON"),
        (b'[{"a": 1}', "rows.json:1: expected a comma or the end"),
        (b'[{"a": 1}, 2]', "rows.json:2: not a JSON object"),
        (b'[{"a": 1}, {"a": 1e999}]', "rows.json:2: a number is too large"),
        (b'[{"a": 1}, {"a": "\\ud800"}]', "rows.json:2: invalid text"),
        (b'[{"a": 1}, {"a": ' + b"[" * 101 + b"]" * 101 + b"}]", "rows.json:2: nested too deeply"),
        (b'[{"a": 1}, {"a": ' + b"[" * 90000 + b"]" * 90000 + b"}]", "rows.json:2: nested too deeply"),
        (b'[{"a": "\xff"}]', "rows.json: not UTF-8"),
        (b'[{"a": 1}] [2]', "rows.json: more text follows the list"),
        (b'{"data": [{"a": 1}, 2]}', "rows.json:2: not a JSON object"),
        (b'{\n"data": [{"a": 1}', "rows.json: not JSON"),
        (b'{\n"a": 1}\n{"a": 2}', "rows.json: more text follows the object"),
        (b"[]", "rows.json: the file has no rows"),
    ],
)
def test_a_damaged_list_is_named_by_row(text: bytes, told: str) -> None:
    assert refusal("rows.json", text).startswith(told)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"conversations": [{"from": "human", "value": "Hi"}]},
        {"prompt": "p", "chosen": [{"a": 1}], "rejected": [{"a": 2}]},
        {"prompt": "p", "labels": {"a": 1}, "completions": [{"a": 1}]},
        {"prompt": "p"},
    ],
)
def test_one_object_alone_is_one_row(row: dict[str, Any]) -> None:
    assert rows_of("one.json", json.dumps(row, indent=1).encode()) == [row]
    assert rows_of("one.json", json.dumps(row).encode()) == [row]


def test_blank_lines_of_jsonl_in_a_json_file_are_counted() -> None:
    found = read_rows(put("rows.json", b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\n\n{"a": 3}\n'))
    assert [f"{where} {row['a']}" for where, row in found] == ["rows.json:1 1", "rows.json:3 2", "rows.json:5 3"]


def test_plot_reads_scored_rows_of_a_json_list() -> None:
    rows = [{"id": f"{n}", "prompt": "p", "completion": "c", "rewards": {"a": n / 9}} for n in range(9)]
    put("scored.json", json.dumps(rows).encode())
    outcome = call("plot", "scored.json", "-o", "plots")
    assert outcome.code == 0, outcome.err
    assert Path("plots/distribution.png").is_file()


def test_one_json_value_over_the_limit_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irlhf.io.jsonl.JSON_LIMIT", 2**20)
    told = refusal("rows.json.gz", gzip.compress(json.dumps([{"a": "x" * 2**20}]).encode()))
    assert told == "rows.json.gz: one JSON value of over 1 MiB; convert it to JSONL: jq -c '.[]' rows.json.gz"


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst", "rows.json.zst", "rows.csv.gz", "rows.tsv.zst"])
def test_a_packed_file_cut_anywhere_never_gives_a_wrong_row(name: str) -> None:
    whole = {**WRITERS, **TABLES}[name](FLAT)
    for size in range(0, len(whole), 3):
        seen = []
        with pytest.raises(DataError):
            seen += [row for _, row in read_rows(put(name, whole[:size]))]
        assert seen == FLAT[: len(seen)]


def test_a_changed_byte_of_a_packed_output_is_found() -> None:
    compress(put("rows.jsonl", jsonl(FLAT * 50)), Path("rows.jsonl.zst"))
    whole = Path("rows.jsonl.zst").read_bytes()
    for place in range(4, len(whole), 7):
        refusal("rows.jsonl.zst", whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])


def test_files_packed_in_parts_are_read_to_the_end() -> None:
    parts = b"".join(zstd.compress(jsonl([row])) for row in FLAT)
    said = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    assert rows_of("rows.jsonl.zst", said + parts) == FLAT


@pytest.mark.parametrize("size", [0, 4, 8, 100, -100, -8, -1])
def test_a_parquet_file_cut_short_is_named(size: int) -> None:
    whole = arrow(FLAT)
    told = refusal("rows.parquet", whole[:size])
    assert told.startswith(
        "rows.parquet:1: the parquet file cannot be read" if size else "rows.parquet: the file has no rows"
    )


def test_a_parquet_file_damaged_in_the_middle_never_gives_a_traceback() -> None:
    whole = arrow(FLAT * 50)
    for place in range(4, len(whole), 211):
        put("rows.parquet", whole[:place] + b"\xff\x00\xff" + whole[place + 3 :])
        with contextlib.suppress(DataError):
            list(read_rows(Path("rows.parquet")))


def test_a_parquet_page_that_says_it_is_of_gigabytes_takes_none() -> None:
    whole = arrow(FLAT)
    size = slice(10, 12)  # of the first page as it is packed, the third number of its header
    assert whole[4:10:5] == b"\x15\x15"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = refusal("rows.parquet", whole[: size.start] + b"\xfe\xff\xff\xff\x0f" + whole[size.stop :])
    assert "than expected (2147483647)" in told
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def test_a_parquet_file_is_not_read_packed_nor_by_a_pipe() -> None:
    assert "parquet and Arrow cannot be read from a compressed file" in refusal(
        "rows.parquet.gz", gzip.compress(arrow(FLAT))
    )
    done = process("prepare", "-", "-o", "-", given=arrow(FLAT))
    assert (done.returncode, b"parquet and Arrow cannot be read from a compressed file or a pipe" in done.stderr) == (
        1,
        True,
    )


def test_values_that_json_has_not_become_text_or_are_named() -> None:
    columns: dict[str, list[Any]] = {"when": [date(2026, 1, 2)], "price": [Decimal("1.50")], "said": [b"yes"]}
    parquet.write_table(pyarrow.table(columns), "rows.parquet")
    assert [row for _, row in read_rows(Path("rows.parquet"))] == [{"when": "2026-01-02", "price": 1.5, "said": "yes"}]
    assert refusal("rows.parquet", arrow([{"a": b"\xff"}])) == (
        "rows.parquet:1: bytes that are not UTF-8 text; remove its column"
    )


def test_nan_is_a_missing_value() -> None:
    Path("rows.parquet").write_bytes(arrow([{"a": 1.0, "b": 1}, {"a": float("nan"), "b": 2}]))
    assert [row for _, row in read_rows(Path("rows.parquet"))] == [{"a": 1.0, "b": 1}, {"b": 2}]
    for name, text in (("rows.jsonl", b'{"a": NaN}\n'), ("rows.json", b'[{"a": -Infinity}]')):
        Path(name).write_bytes(text)
        assert [row for _, row in read_rows(Path(name))] == [{"a": None}]


@pytest.mark.parametrize("suffix", ["bz2", "xz"])
def test_other_compressed_files_are_read_and_written(suffix: str) -> None:
    module = {"bz2": bz2, "xz": lzma}[suffix]
    Path(f"raw.jsonl.{suffix}").write_bytes(module.compress(jsonl(FLAT)))
    prepare([f"raw.jsonl.{suffix}"], f"out.jsonl.{suffix}")
    assert json.loads(module.decompress(Path(f"out.jsonl.{suffix}").read_bytes()).splitlines()[0])["id"] == "raw-0"
    Path(f"cut.jsonl.{suffix}").write_bytes(module.compress(jsonl(FLAT) * 2000)[:-200])
    with pytest.raises(DataError, match="truncated or damaged; download it again"):
        list(read_rows(Path(f"cut.jsonl.{suffix}")))


def test_arrow_files_streams_and_saved_data_sets_are_read() -> None:
    rows = pyarrow.Table.from_pylist([{"prompt": f"q{i}", "completion": "a"} for i in range(300)])
    folder = Path("saved/train")
    folder.mkdir(parents=True)
    with pyarrow.ipc.new_file("rows.feather", rows.schema) as file:
        file.write_table(rows)
    with pyarrow.ipc.new_stream(folder / "data-00000-of-00001.arrow", rows.schema) as stream:
        stream.write_table(rows)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    Path("saved/dataset_dict.json").write_text('{"splits": ["train"]}')
    assert prepare(["rows.feather"], "a.jsonl")["written"] == 300
    assert prepare(["saved"], "b.jsonl")["written"] == 300
    assert json.loads(Path("b.jsonl").read_bytes().splitlines()[299])["id"] == "saved-train-299"
    with pytest.raises(ConfigError, match="read it with `irlhf prepare saved`"):
        list(read_rows(Path("saved")))


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array([0, 2**31 - 1], pyarrow.int32()).view(pyarrow.date32()),
        pyarrow.array([0, 2**62]).view(pyarrow.timestamp("us")),
        pyarrow.array([1000, 123]).view(pyarrow.timestamp("ns")),
        pyarrow.array([0, 2**60]).view(pyarrow.time64("us")),
        pyarrow.array([[("a", 1)], [("a", 1), ("a", 2)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        pyarrow.array([b"a", b"\xff"]).view(pyarrow.string()),
    ],
    ids=lambda column: str(column.type),
)
def test_a_row_of_parquet_that_python_cannot_hold_is_named_alone(column: Any) -> None:
    parquet.write_table(pyarrow.table({"prompt": ["p", "q"], "a": column}), "raw.parquet")
    with pytest.raises(DataError, match=r"^raw.parquet:2: a value cannot be read \(.*\); remove its column$"):
        list(read_rows(Path("raw.parquet")))


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "irlhf.io.parquet", raising=False)
    with pytest.raises(ConfigError, match=r"parquet files need pyarrow: pip install 'irlhf\[parquet\]'"):
        rows_of("rows.parquet", arrow(FLAT))


@pytest.mark.parametrize(
    ("name", "text", "given"),
    [
        ("raw.csv", b"id,prompt,completion\n1,p,c\nbad\n2,q,d\n", "bad\n"),
        (
            "raw.json",
            b'[{"id": 1, "prompt": "p", "completion": "c"}, 5, {"id": 2, "prompt": "q", "completion": "d"}]',
            "5",
        ),
        (
            "raw.jsonl",
            b'{"id": 1, "prompt": "p", "completion": "c"}\n{\n{"id": 2, "prompt": "q", "completion": "d"}\n',
            "{\n",
        ),
    ],
)
def test_rows_that_cannot_be_read_are_set_aside_by_prepare_and_score(name: str, text: bytes, given: str) -> None:
    put(name, text)
    put("rewards.yaml", b"rewards:\n  a: {scorer: length}\n")
    assert call("prepare", name, "-o", "a.jsonl", "--on-bad-row", "skip").code == 0
    assert [row["completion"] for row in read(Path("a.jsonl"))] == ["c", "d"]
    call("score", name, "-r", "rewards.yaml", "-o", "b.jsonl", "--on-bad-row", "skip")
    for out in ("a", "b"):
        aside = read(Path(f"{out}.jsonl.rejected.jsonl"))
        assert [(row["where"], row["row"]) for row in aside] == [(f"{name}:2", given)]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_an_output_is_packed_by_its_suffix_to_the_same_bytes_each_time(suffix: str) -> None:
    put("raw.csv", table(FLAT))
    outputs = [Path(f"{name}.jsonl{suffix}") for name in ("one", "two")]
    for out in outputs:
        prepare(["raw.csv"], out)
    prepare(["raw.csv"], "plain.jsonl")
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert [row for _, row in read_rows(outputs[0])] == read(Path("plain.jsonl"))
    assert outputs[0].read_bytes()[:2] == {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5"}[suffix]


def through_parquet(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows as they are read again, and the columns that are JSON text."""
    from irlhf.io.parquet import write

    untyped = write(put("rows.jsonl", jsonl(rows)), Path("rows.parquet"))
    return [row for _, row in read_rows(Path("rows.parquet"))], untyped


def present(value: Any) -> Any:
    """A value without what is null."""
    if isinstance(value, dict):
        return {name: present(one) for name, one in value.items() if one is not None}
    return [present(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", sorted(ROWS.keys() - {"oasst"}))  # whose one row makes no example
def test_examples_of_every_format_are_the_same_from_parquet(name: str) -> None:
    put("raw.jsonl", jsonl([ROWS[name]]))
    for out in ("out.jsonl", "out.parquet"):
        prepare(["raw.jsonl"], out)
    assert Path("out.parquet").read_bytes()[:4] == b"PAR1"
    assert [row for _, row in read_rows(Path("out.parquet"))] == present(read(Path("out.jsonl")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "", "a.b"]), JSON, min_size=1), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_are_the_same_from_parquet(rows: list[dict[str, Any]]) -> None:
    rows = [{"id": f"{number}", **row} for number, row in enumerate(rows)]
    assert present(through_parquet(rows)[0]) == present(rows)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([None, "1", 1], "it is a number in row 3 and text elsewhere"),
        ([CHAT, "Hi"], "it is text in row 2 and a list elsewhere"),
        ([[{"a": 1}], [{"a": [1]}]], "a is a list in row 2 and a number elsewhere"),
        ([True, 1], "it is a number in row 2 and true or false elsewhere"),
        ([2**53 + 1, 0.5], "it has integers that are too large for its type"),
        ([10**30], "it has integers that are too large for its type"),
        ([{}], "it holds an object that is always empty"),
        ([{f"{n}": n} for n in range(1001)], "it has over 1,000 names"),
        ([json.loads("[" * 40 + "]" * 40)], "it is nested deeper than 32 levels"),
    ],
)
def test_a_column_of_no_one_type_is_json_text_and_says_why(values: list[Any], told: str) -> None:
    rows = [{"id": f"{number}", "x": value} for number, value in enumerate(values)]
    found, untyped = through_parquet(rows)
    assert untyped == {"x": told}
    assert found == present(rows)
    column = parquet.read_table("rows.parquet")["x"].to_pylist()
    assert [None if text is None else json.loads(text) for text in column] == values


def test_other_programs_find_types_in_parquet() -> None:
    chat = {"id": "a", "prompt": CHAT, "rewards": {"x": 1, "y": 0.5}, "n": 3, "seen": False, "gone": None}
    through_parquet([chat, {**chat, "rewards": {"x": 0.25}, "tags": ["t"]}])
    assert parquet.read_schema("rows.parquet").to_string().splitlines() == [
        *("id: string", "prompt: list<element: struct<role: string, content: string>>"),
        *("  child 0, element: struct<role: string, content: string>",),
        *("      child 0, role: string", "      child 1, content: string"),
        *("rewards: struct<x: double, y: double>", "  child 0, x: double", "  child 1, y: double"),
        *("n: int64", "seen: bool", "tags: list<element: string>", "  child 0, element: string"),
    ]


def test_the_line_walks_on_parquet() -> None:
    put("raw.jsonl", jsonl(FLAT))
    put("rewards.yaml", b"rewards:\n  words: {scorer: length}\n")
    assert call("prepare", "raw.jsonl", "-o", "a.parquet").code == 0
    scored = call("score", "a.parquet", "-r", "rewards.yaml", "-o", "b.parquet")
    assert scored.code == 0, scored.err
    again = call("score", "a.parquet", "-r", "rewards.yaml", "-o", "b.parquet")
    assert "b.parquet is complete already" in again.err
    assert [row["rewards"] for _, row in read_rows(Path("b.parquet"))] == [{"words": n} for n in (6, 1, 1, 1)]
    assert not list(Path.cwd().glob("*.partial"))


def test_what_is_json_text_is_said_once_the_rows_are_written() -> None:
    rows = [{"prompt": "p", "completion": "c"}, {"prompt": CHAT, "completion": "c"}]
    put("raw.jsonl", jsonl(rows))
    told = call("prepare", "raw.jsonl", "-o", "out.parquet").err
    assert "out.parquet: column 'prompt' is written as JSON text: it is a list in row 2 and text elsewhere" in told
    assert [row["prompt"] for _, row in read_rows(Path("out.parquet"))] == ["p", CHAT]


def test_text_that_is_marked_as_json_and_is_none_is_named() -> None:
    through_parquet([{"x": "1"}, {"x": 1}])
    changed = parquet.read_table("rows.parquet").set_column(
        0, pyarrow.field("x", pyarrow.string(), metadata={"irlhf": "json"}), [["1", "[" * 9999]]
    )
    parquet.write_table(changed, "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet:2: 'x' is marked as JSON but is not valid JSON"):
        list(read_rows(Path("rows.parquet")))


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.csv.gz", "out.parquet.zst"])
def test_an_output_is_not_called_what_it_is_not(name: str) -> None:
    put("raw.jsonl", jsonl(FLAT))
    with pytest.raises(ConfigError, match="unsupported suffix"):
        prepare(["raw.jsonl"], name)
    assert not Path(name).exists()


def test_a_shard_is_not_written_as_parquet() -> None:
    put("a.jsonl", SOUND[0])
    put("rewards.yaml", b"rewards:\n  words: {scorer: length}\n")
    refused = call("score", "a.jsonl", "-r", "rewards.yaml", "--shard", "1/2", "-o", "b.parquet")
    assert (refused.code, "parquet shards cannot be concatenated" in refused.err) == (2, True)


def test_without_pyarrow_no_work_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "irlhf.io.parquet", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'irlhf\[parquet\]'"):
        prepare(["raw.jsonl"], "out.parquet")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows_that_become_parquet() -> None:
    from irlhf.io.parquet import write

    rows = ({"id": f"{n}", "text": f"{n} " * 40, "x": n if n % 2 else f"{n}"} for n in range(150_000))
    with Path("rows.jsonl").open("wb") as out:
        out.writelines(json.dumps(row).encode() + b"\n" for row in rows)
    most = 0
    convert, before = pyarrow.RecordBatch.from_pylist, pyarrow.total_allocated_bytes()

    def watched(*arguments: Any) -> Any:
        nonlocal most
        most = max(most, pyarrow.total_allocated_bytes() - before)
        return convert(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("irlhf.io.parquet.pyarrow.RecordBatch", SimpleNamespace(from_pylist=watched))
        write(Path("rows.jsonl"), Path("rows.parquet"))
    assert 0 < most < 40 * 2**20
    assert sum(1 for _ in read_rows(Path("rows.parquet"))) == 150_000


@pytest.mark.parametrize(
    "name",
    [
        "rows.jsonl.zst",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("rows.csv", "rows.parquet", "rows.json")),
    ],
)
def test_memory_does_not_grow_with_the_rows(name: str) -> None:
    count = 100_000
    path = put(name, {**WRITERS, **TABLES}[name]([{"id": f"{n}", "text": f"{n} " * 10} for n in range(count)]))
    allowed = 4 * 2**20 + (3 * path.stat().st_size if name == "rows.json" else 0)  # its text is in memory
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    try:
        for number, _ in enumerate(read_rows(path), 1):
            if number % 10_000 == 1:
                assert pyarrow.total_allocated_bytes() - before < 8 * 2**20
        assert tracemalloc.get_traced_memory()[1] < allowed
    finally:
        tracemalloc.stop()
    assert number == count
