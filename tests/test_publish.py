"""prepare --card: a folder that a hub takes as it stands, with one type a column and a data card that is true."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pytest
import yaml
from helpers import Row, call, example, names, process, read, write
from markdown_it import MarkdownIt
from raw_rows import ROWS

from irlhf.core.errors import ConfigError, DataError
from irlhf.data.prepare import prepare
from irlhf.data.settings import PrepareSettings
from irlhf.io.jsonl import DEPTH_LIMIT

CARD = PrepareSettings(card=True)
PAIR = ROWS["hh"]
SCALARS = {"string": pa.string(), "bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "null": pa.null()}


def published(rows: dict[str, list[Row]], **settings: Any) -> dict[str, Any]:
    """Write raw files of rows, and the data set of them."""
    for name, each in rows.items():
        Path(name).parent.mkdir(exist_ok=True)
        write(Path(name), each)
    return prepare(list(rows), "made", PrepareSettings(card=True, **settings))


def text() -> str:
    return Path("made/README.md").read_text(encoding="utf-8")


def front() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text().split("---\n")[1])
    return found


def arrow(spelled: Any) -> pa.DataType:
    """The type that a hub's loader makes of a feature in the head of a card."""
    if isinstance(spelled, str):
        return SCALARS[spelled]
    if isinstance(spelled, list):
        return pa.struct([(one["name"], arrow(one)) for one in spelled])
    kind = next(name for name in ("dtype", "list", "struct") if name in spelled)
    return pa.list_(arrow(spelled[kind])) if kind == "list" else arrow(spelled[kind])


def schemas() -> dict[str, pa.Schema]:
    return {one["config_name"]: pa.schema(list(arrow(one["features"]))) for one in front()["dataset_info"]}


def as_loaded(path: str, schema: pa.Schema) -> list[Row]:
    """The rows as Arrow's own reader has them, in small blocks and with columns of these types alone."""
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    blocks = pyarrow.json.ReadOptions(block_size=1 << 16)
    found: list[Row] = pyarrow.json.read_json(path, read_options=blocks, parse_options=options).to_pylist()
    return found


def filled(value: Any, kind: pa.DataType) -> Any:
    """A JSON value as Arrow has it: what is absent is null."""
    if pa.types.is_struct(kind) and value is not None:
        return {one.name: filled(value.get(one.name), one.type) for one in kind}
    if pa.types.is_list(kind) and value is not None:
        return [filled(one, kind.value_type) for one in value]
    return value


def test_a_data_set_is_a_file_for_each_source_and_a_card() -> None:
    summary = published({"good.jsonl": [PAIR, PAIR], "more.jsonl": [{"prompt": "p", "completion": "c"}]})
    assert names(Path("made")) == {"good.jsonl", "more.jsonl", "README.md"}
    assert names(Path.cwd()) == {"good.jsonl", "more.jsonl", "made", "made.run.json"}
    assert (summary["written"], summary["files"]) == (5, ["made/good.jsonl", "made/more.jsonl"])
    assert [one["data_files"][0]["path"] for one in front()["configs"]] == [["good.jsonl"], ["more.jsonl"]]
    assert str(Path.cwd()) not in text()


def test_every_row_says_where_it_was_how_long_its_prompt_is_and_what_was_done_to_it() -> None:
    longer = f"\n\nHuman: A\n\nHuman: B\n\nAssistant: C{PAIR['chosen']}"
    published({"raw.jsonl": [PAIR, {"chosen": longer, "rejected": longer}], "none.jsonl": [PAIR]})
    rows = read(Path("made/raw.jsonl"))
    assert [row["source_row"] for row in rows] == [0, 0, 1, 1]
    assert [row["user_turns"] for row in rows] == [1, 1, 2, 2]
    assert [len(row["noted"]) for row in rows] == [0, 0, 2, 2]
    assert [str(schema.field("noted").type.value_type) for schema in schemas().values()] == ["string", "string"]
    assert list(rows[0])[-3:] == list(rows[2])[-3:] == ["user_turns", "source_row", "noted"]


def test_the_examples_are_those_of_prepare() -> None:
    published({"raw.jsonl": [PAIR, ROWS["hh"]]})
    prepare(["raw.jsonl"], "plain.jsonl")
    added = ("user_turns", "source_row", "noted")
    rows = read(Path("made/raw.jsonl"))
    assert [{name: one for name, one in row.items() if name not in added} for row in rows] == read(Path("plain.jsonl"))


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_loader_reads_every_format_with_the_types_of_the_card(name: str) -> None:
    row = ROWS[name]
    rows = [row] if name == "oasst-trees" else [row, json.loads(json.dumps(row))]
    if "id" in row:
        rows[1]["id"] = "another"
    if name == "oasst":
        said = {"parent_id": "m0", "role": "assistant", "rank": 0, "text": "Air."}
        rows = [row, {**row, **said, "message_id": "m1"}]
    published({"raw.jsonl": rows})
    (schema,) = schemas().values()
    written = read(Path("made/raw.jsonl"))
    assert {one for each in written for one in each} == set(schema.names)
    assert as_loaded("made/raw.jsonl", schema) == [filled(one, pa.struct(list(schema))) for one in written]


def test_a_row_as_deep_as_one_can_be_is_set_aside_beside_the_others() -> None:
    deep: Any = []
    for _ in range(DEPTH_LIMIT - 2):
        deep = [deep]
    published({"raw.jsonl": [example(0), example(1, completion="", meta=deep)]})
    assert [row["id"] for row in read(Path("made/raw.jsonl"))] == ["e0"]
    assert "the completion is empty" in text()


def test_a_column_of_two_types_is_named_with_its_first_such_row() -> None:
    rows = [example(0, score=1), example(1), example(2, score=None), example(3, score="good")]
    with pytest.raises(DataError, match=r"^raw\.jsonl:4: 'score' is text here and a number elsewhere; "):
        published({"raw.jsonl": rows})
    assert names(Path.cwd()) == {"raw.jsonl"}
    published({"raw.jsonl": rows}, on_bad_row="skip")
    assert [row["id"] for row in read(Path("made/raw.jsonl"))] == ["e0", "e1", "e2"]
    (aside,) = read(Path("made.rejected.jsonl"))
    assert (aside["where"], aside["row"]) == ("raw.jsonl:4", rows[3])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([{"a": {"b": [1]}}, {"a": {"b": ["x"]}}], "'meta.a.b' is text here and a number elsewhere"),
        ([[1, "x"]], "'meta' is text here and a number elsewhere"),
        ([True, 1], "'meta' is a number here and true or false elsewhere"),
        ([{}, []], "'meta' is a list here and an object elsewhere"),
    ],
)
def test_types_are_told_apart_inside_a_column(values: list[Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        published({"raw.jsonl": [example(number, meta=value) for number, value in enumerate(values)]})
    assert str(caught.value).startswith(f"raw.jsonl:{len(values)}: {said}; ")


def test_what_a_row_that_is_set_aside_held_is_no_type_of_a_column() -> None:
    rows = [example(0, a=1), example(1, b="text", a="text"), example(2, b=1)]
    summary = published({"raw.jsonl": rows}, on_bad_row="skip")
    assert (summary["written"], summary["rejected"]) == (2, 1)


def test_whole_numbers_and_others_are_one_type() -> None:
    values = [1, 2.5, None, 10**30]
    published({"raw.jsonl": [example(number, n=value) for number, value in enumerate(values)]})
    schema = schemas()["raw"]
    assert schema.field("n").type == pa.float64()
    assert [row["n"] for row in as_loaded("made/raw.jsonl", schema)] == [1.0, 2.5, None, 1e30]


def test_a_number_beyond_a_word_is_no_whole_number_to_a_hub() -> None:
    edges = {"most": 2**63 - 1, "least": -(2**63), "over": 2**63}
    published({"raw.jsonl": [example(0, **edges)]})
    schema = schemas()["raw"]
    assert {name: str(schema.field(name).type) for name in edges} == {
        "most": "int64",
        "least": "int64",
        "over": "double",
    }
    (row,) = as_loaded("made/raw.jsonl", schema)
    assert {name: row[name] for name in edges} == edges


def test_prompts_are_messages_in_every_row() -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    published({"raw.jsonl": [example(0, prompt="Hi"), example(1, prompt=messages)]})
    assert [row["prompt"] for row in read(Path("made/raw.jsonl"))] == [messages[1:], messages]
    assert [row["user_turns"] for row in read(Path("made/raw.jsonl"))] == [1, 1]


def test_preparing_a_data_set_again_changes_nothing() -> None:
    rows = [example(0), example(1, group="g", label="chosen", extra={"a": [1]}), example(2, noted="kept")]
    published({"raw.jsonl": [*rows, example(3, source_row=7, source="elsewhere")]})
    made = Path("made/raw.jsonl").read_bytes()
    assert [row["source_row"] for row in read(Path("made/raw.jsonl"))] == [0, 1, 2, 7]
    prepare(["made/raw.jsonl"], "again.jsonl")
    prepare(["made/raw.jsonl"], "again", CARD)
    assert Path("again.jsonl").read_bytes() == Path("again/raw.jsonl").read_bytes() == made


def test_files_of_one_set_are_its_splits() -> None:
    raw = ("a.train.jsonl", "a.test.jsonl", "b-test.jsonl", "train.csv.jsonl", "c/train.jsonl", "d/train.jsonl")
    published({name: [{"prompt": name, "completion": "c"}] for name in raw})
    found = {one["config_name"]: [each["split"] for each in one["data_files"]] for one in front()["configs"]}
    assert found == {"a": ["train", "test"], "b": ["test"], "train.csv": ["train"], "c": ["train"], "d": ["train"]}
    assert next(one["splits"] for one in front()["dataset_info"]) == [
        {"name": "train", "num_examples": 1},
        {"name": "test", "num_examples": 1},
    ]


def test_the_splits_of_one_subset_have_the_same_columns() -> None:
    published({"train.jsonl": [example(0, a=1)], "test.jsonl": [example(1, a=2.5, b="x")]})
    assert list(schemas()) == ["default"]
    assert schemas()["default"].field("a").type == pa.float64()
    with pytest.raises(DataError, match=r"^test\.jsonl:1: 'a' is text here and a number elsewhere"):
        prepare(
            [write(Path("train.jsonl"), [example(0, a=1)]), write(Path("test.jsonl"), [example(1, a="x")])], "x", CARD
        )


def test_two_sources_never_share_a_file() -> None:
    with pytest.raises(ConfigError, match=r"two sources would be written to a-b\.jsonl"):
        published({"a b.jsonl": [example(0)], "a!b.jsonl": [example(1)]})
    with pytest.raises(ConfigError, match=r"a b\.jsonl is named twice"):
        prepare(["a b.jsonl", "a b.jsonl"], "made", CARD)


def test_ids_differ_across_files_and_duplicates_are_found_across_them() -> None:
    rows = {"a.jsonl": [example(0)], "b.jsonl": [{**example(0), "id": "other"}, example(2)]}
    assert published(rows, drop_duplicates=True)["duplicates dropped"] == 1
    assert "an earlier row has the same prompt and completion: 1, in rows 0, counted from 0" in text()


HOSTILE = [
    "a|b.jsonl",
    "`c``.jsonl",
    "<script>.jsonl",
    "ünï code [1]*.jsonl",
    "it's $(touch pwned).jsonl",
    "- x: 'y'.jsonl",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_the_card(name: str) -> None:
    published({name: [example(0, **{"odd|`*col": "x"})]})
    (file,) = names(Path("made")) - {"README.md"}
    assert set(file) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert front()["configs"][0]["data_files"] == [{"split": "train", "path": [file]}]
    tokens = MarkdownIt("commonmark").enable("table").parse(text().split("---\n", 2)[2])
    assert not [one for one in tokens if one.type == "html_block"]
    widths: list[int] = []
    for one in tokens:
        if one.type == "tr_open":
            widths.append(0)
        elif one.type in ("th_open", "td_open"):
            widths[-1] += 1
    # Files, fields, where they come from: as wide as their heads say.
    assert set(widths) == {4, 3, 7}


def test_the_account_of_the_card_closes() -> None:
    empty = {"chosen": f"{PAIR['chosen']}", "rejected": PAIR["rejected"].removesuffix(" It is painted.")}
    published({"raw.jsonl": [PAIR, empty, PAIR, *[empty] * 30]})
    assert "| `raw.jsonl` | `raw.jsonl` | hh | 33 | 35 | 31 |" in text()
    assert f"empty: 31, in rows {', '.join(map(str, [1, *range(3, 22)]))} and others, counted from 0" in text()
    assert len(read(Path("made.rejected.jsonl"))) == 31
    assert names(Path("made")) == {"raw.jsonl", "README.md"}


def test_well_known_data_carry_their_licence_authors_and_warning() -> None:
    published({"hh.jsonl": [PAIR], "attempts.jsonl": [ROWS["red-team"]]})
    head = front()
    assert (head["license"], head["language"], head["size_categories"]) == ("mit", ["en"], ["n<1K"])
    assert "not-for-all-audiences" in head["tags"]
    assert "2204.05862" in text()
    assert "2209.07858" in text()
    assert "Copyright (c) 2022 Anthropic" in text()
    assert "| `rating` | `float64` | the person" in text()
    assert text().count("offensive or upsetting") == 1


def test_no_licence_is_claimed_of_data_of_others() -> None:
    published({"hh.jsonl": [PAIR], "own.jsonl": [example(0)]})
    assert "license" not in front()
    assert "This card states no licence" in text()
    assert "2204.05862" in text()


def test_the_card_repeats_the_command() -> None:
    published({"a b.jsonl": [{"q": "p", "completion": "c"}]}, map={"prompt": "q"}, test=0.0, limit=3)
    (command,) = [line for line in text().splitlines() if line.startswith("irlhf prepare")]
    assert command == (
        "irlhf prepare 'a b.jsonl' --format auto --test 0.0 --validation 0.05 --limit 3 --on-bad-row stop"
        " --map prompt=q --card -o made"
    )
    before = text()
    Path("elsewhere").mkdir()
    outcome = process(*command.split()[1:2], *[*["a b.jsonl"], *command.split()[4:-1]], "elsewhere/made")
    assert outcome.returncode == 0, outcome.stderr
    assert Path("elsewhere/made/README.md").read_text() == before


def test_a_finished_data_set_is_left_alone_and_another_one_refused() -> None:
    write(Path("raw.jsonl"), [example(0)])
    first = call("prepare", "raw.jsonl", "--card", "-o", "made")
    assert "next: irlhf score made/raw.jsonl -r FILE" in first.err
    again = call("prepare", "raw.jsonl", "--card", "-o", "made")
    assert (again.code, "made is complete already" in again.err) == (0, True)
    other = call("prepare", "raw.jsonl", "--card", "--test", "0.5", "-o", "made")
    assert (other.code, "test was 0.1 and is 0.5" in other.err) == (2, True)


def test_a_data_set_begun_by_a_run_that_was_killed_is_made_afresh() -> None:
    Path("made.partial").mkdir()
    write(Path("made.partial/raw.jsonl"), [example(5)])
    write(Path("made.partial/stale.jsonl"), [example(6)])
    published({"raw.jsonl": [example(0)]})
    assert names(Path("made")) == {"raw.jsonl", "README.md"}
    assert [row["id"] for row in read(Path("made/raw.jsonl"))] == ["e0"]


def test_a_bad_row_leaves_nothing_behind() -> None:
    with pytest.raises(DataError, match=r"^b\.jsonl:2: "):
        published({"a.jsonl": [example(0)], "b.jsonl": [example(1), {"prompt": 1}]})
    assert names(Path.cwd()) == {"a.jsonl", "b.jsonl"}


def test_a_file_without_a_row_is_no_data_set() -> None:
    with pytest.raises(DataError, match=r"^raw\.jsonl: none of its rows can be used"):
        published({"raw.jsonl": [example(0, completion=" ")]})
    assert names(Path.cwd()) == {"raw.jsonl"}


def test_a_stream_is_read_but_not_written() -> None:
    outcome = process("prepare", "-", "--card", "-o", "made", given=json.dumps(PAIR).encode())
    assert outcome.returncode == 0, outcome.stderr
    assert names(Path("made")) == {"stdin.jsonl", "README.md"}
    outcome = process("prepare", "-", "--card", given=json.dumps(PAIR).encode())
    assert (outcome.returncode, outcome.stdout) == (2, b"")
    assert b"a data set is a folder and cannot go to stdout; choose an output with -o" in outcome.stderr


def test_a_data_set_says_its_size() -> None:
    published({"raw.jsonl": [example(number) for number in range(1000)]})
    assert front()["size_categories"] == ["1K<n<10K"]
    assert len(as_loaded("made/raw.jsonl", schemas()["raw"])) == 1000
