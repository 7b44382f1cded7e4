"""Rows that come in: what is read as it stands, and what is refused with its place."""

import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from helpers import example, write
from hypothesis import example as example_of
from hypothesis import given, settings
from hypothesis import strategies as st

from irlhf.core.errors import ConfigError, DataError, OutputError
from irlhf.core.example import LARGEST, Example, Where, as_text, dumps, finite, from_json, unique, value_at
from irlhf.io import files
from irlhf.io.files import read_json, read_rows, read_yaml, whole_file, write_json
from irlhf.io.jsonl import LINE_LIMIT, parse_row


def rows_of(text: bytes, tmp_path: Path) -> list[dict[str, object]]:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text)
    return [row for _, row in read_rows(path)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON (Expecting property name"),
        (b"hello there", 'char 0)); each row must be an object, like {"prompt": '),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b'{"a": [-1e999]}', "-1e999 is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": "\\ud800"}', "invalid text"),
        (b'{"\\udfff": 1}', "invalid text"),
        (b'{"a": "\\uDBFF"}', "invalid text"),
        (b'\xef\xbb\xbf{"a": 1}', "Unexpected UTF-8 BOM"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b"[1, 2]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a": ' + b"[" * 101 + b"]" * 101 + b"}", "nested too deeply"),
        (b'{"a": ' + b"[" * 90000 + b"]" * 90000 + b"}", "nested too deeply"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(line: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:3: ") as caught:
        rows_of(b'{"id": 1}\n\n' + line + b"\n", tmp_path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_looks_like_a_line_end_inside_a_text_is_text(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\x85four\x0bfive\x0csix\x1cseven"
    path = write(tmp_path / "rows.jsonl", [{"text": text}])
    assert [row for _, row in read_rows(path)] == [{"text": text}]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    assert rows_of(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n', tmp_path) == [{"a": 1}, {"a": 2}]


def test_a_last_line_without_its_end_is_read(tmp_path: Path) -> None:
    assert rows_of(b'{"a": 1}\n{"a": 2}', tmp_path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        (b"PAR1....", "parquet"),
        (b"\x28\xb5\x2f\xfd....", "zstandard"),
        (b"PK\x03\x04....", "zip"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(head: bytes, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=name):
        rows_of(head, tmp_path)


def test_nesting_up_to_the_limit_is_read(tmp_path: Path) -> None:
    inner = b"[" * 98 + b"]" * 98
    assert len(rows_of(b'{"a": ' + inner + b', "b": "' + b"{" * 200 + b'"}', tmp_path)) == 1


def test_a_line_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    packed = tmp_path / "bomb.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"a": "' + b"x" * (LINE_LIMIT + 10) + b'"}'))
    assert packed.stat().st_size < 50_000
    with pytest.raises(DataError, match=r"bomb\.jsonl\.gz:1: the line is longer than 16 MiB"):
        list(read_rows(packed))


@pytest.mark.parametrize("text", [b"", b"\n\n  \n", gzip.compress(b"", mtime=0)])
def test_a_file_without_rows_says_so(text: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        rows_of(text, tmp_path)


def test_a_gzip_cut_anywhere_never_gives_a_wrong_row(tmp_path: Path) -> None:
    whole = [{"id": str(i), "text": "fern " * i} for i in range(5)]
    packed = gzip.compress(b"".join(dumps(row) for row in whole), mtime=0)
    path = tmp_path / "rows.jsonl.gz"
    for size in range(len(packed)):
        path.write_bytes(packed[:size])
        seen = []
        with pytest.raises(DataError):
            seen += [row for _, row in read_rows(path)]
        assert seen == whole[: len(seen)]


@pytest.mark.parametrize("place", ["missing.jsonl", "."])
def test_a_path_that_is_no_file_is_a_config_error(place: str) -> None:
    with pytest.raises(ConfigError):
        list(read_rows(Path(place)))


def test_a_named_pipe_is_refused_before_it_is_emptied(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a regular file"):
        files.digest(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"id": None}, "no 'id'"),
        ({"id": ""}, "'id' is empty"),
        ({"id": True}, "'id' is true or false"),
        ({"id": [1]}, "'id' is a list"),
        ({"prompt": None}, "no 'prompt'"),
        ({"completion": None}, "no 'completion'"),
        ({"prompt": 3}, "'prompt' is a number"),
        ({"prompt": []}, "'prompt' is a list"),
        ({"prompt": [{"role": "user"}]}, "message 1 of 'prompt' needs text"),
        ({"prompt": [{"role": "oracle", "content": "x"}]}, "message 1 of 'prompt' needs a role"),
        ({"prompt": ["hello"]}, "message 1 of 'prompt' needs a role"),
        ({"prompt": [{"role": "user", "content": None, "tool_calls": [1]}]}, "needs text as"),
        ({"split": "dev"}, "split 'dev' is invalid; use"),
        ({"group": 7}, "'group' is a number"),
        ({"rewards": [1]}, "'rewards' is a list"),
        ({"rewards": {"a": True}}, "rewards.a is True"),
        ({"rewards": {"a": "0.5"}}, "rewards.a is '0.5'"),
        ({"rewards": {"a": None}}, "rewards.a is None"),
        ({"rewards": {"a": 10**400}}, "rewards.a is 1000"),
        ({"gold": {"a": False}}, "gold.a is False"),
        ({"asked": {"a": []}}, "asked.a is []"),
        ({"decoding": "greedy"}, "'decoding' is text"),
        ({"decoding": {"top_p": None}}, "decoding.top_p is None"),
        ({"decoding": {"temperature": 10**400}}, "decoding.temperature is 1000"),
        ({"target": {"a": 0.5}}, "'target' is not an object with text values"),
        ({"tokens": "many"}, "'tokens' is 'many'"),
        ({"entropy": "high"}, "'entropy' is 'high'"),
        ({"seed": 1.5}, "'seed' is 1.5"),
    ],
)
def test_a_row_that_is_no_example_is_refused_by_key(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(DataError) as caught:
        from_json(example(**fields), Where("rows.jsonl", 7))
    assert str(caught.value).startswith("rows.jsonl:7: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), True, False, "1", None, 10**400, [1]])
def test_what_is_no_finite_number_is_no_reward(number: object) -> None:
    assert not finite(number)


def test_an_assistant_may_call_tools_without_text() -> None:
    calls = [{"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}]
    assert from_json(example(completion=calls), "here").completion == calls


def test_a_number_as_id_becomes_text() -> None:
    assert from_json(example(id=17), "here").id == "17"


def test_an_id_that_repeats_gets_a_number() -> None:
    rows = [(Where("rows.jsonl", i), Example(id=one, prompt="p")) for i, one in enumerate(["a", "a#2", "a", "a"], 1)]
    assert [row.id for row in unique(rows)] == ["a", "a#2", "a#3", "a#4"]


def test_a_sample_that_occurs_twice_is_refused() -> None:
    rows = [(Where("rows.jsonl", i), Example(id="a", prompt="p", policy="x")) for i in (1, 2)]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: the sample 'a' occurs twice"):
        list(unique(rows))


def test_the_prompt_decides_where_no_group_is_given() -> None:
    one, again, other = (Example(id=i, prompt=p) for i, p in (("1", "p"), ("2", "p"), ("3", "q")))
    assert one.cluster == again.cluster != other.cluster
    called = Example(id="4", prompt="p", extra={"tools": [{"name": "look"}]})
    assert called.cluster not in (one.cluster, other.cluster)


@pytest.mark.parametrize(
    ("path", "value"), [("a.b", 1), ("a.c.d", 2), ("a.c.e", 3), ("l.1.x", 4), ("l.5", None), ("a.z", None)]
)
def test_a_path_finds_names_with_dots_and_fields_of_objects(path: str, value: object) -> None:
    fields = {"a.b": 1, "a": {"b": 9, "c.d": 2}, "a.c": {"e": 3}, "l": [0, {"x": 4}]}
    if value is None:
        with pytest.raises(KeyError):
            value_at(fields, path)
    else:
        assert value_at(fields, path) == value


def test_messages_read_as_text_are_parted_by_blank_lines() -> None:
    assert as_text([{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]) == "a\n\n"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(-LARGEST, LARGEST)
contents = texts | st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": texts}), min_size=1, max_size=3
)
keys = texts.filter(lambda name: name not in Example.__dataclass_fields__)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
rewards = st.dictionaries(texts, numbers, max_size=3)
records = st.builds(
    Example,
    id=texts.filter(bool),
    prompt=contents,
    completion=contents,
    group=texts,
    label=texts,
    split=st.sampled_from(["", "train", "validation", "test"]),
    source=texts,
    rewards=rewards,
    gold=rewards,
    target=st.dictionaries(texts, texts, max_size=3),
    prompt_numbers=rewards,
    finish=texts,
    tokens=st.none() | st.integers(0),
    entropy=st.none() | numbers,
    entropy_low=st.none() | numbers,
    entropy_high=st.none() | numbers,
    logprob=st.none() | numbers,
    censored=st.none() | st.integers(0),
    k3=st.none() | numbers,
    policy=texts,
    seed=st.none() | st.integers(),
    decoding=rewards,
    extra=st.dictionaries(keys, values, max_size=3),
)


@given(records)
@settings(max_examples=150, deadline=None)
def test_an_example_written_and_read_is_the_same(record: Example) -> None:
    line = dumps(record.to_json())
    assert line.count(b"\n") == 1
    assert from_json(parse_row(line, Where("rows.jsonl", 2)), "here") == record


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=9,
)


@given(st.dictionaries(st.text(max_size=4), values, max_size=4))
@example_of({"whole": 2**64, "small": -5e-324, "half": None})
@settings(max_examples=300, deadline=None)
def test_a_line_is_json_of_the_very_same_values(row: dict[str, Any]) -> None:
    line = dumps(row)
    assert repr(json.loads(line)) == repr(row)  # where == would take 1 for 1.0 and -0.0 for 0.0
    assert line.count(b"\n") == 1


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("beside", ["text", None, 2**64])
def test_what_is_no_number_is_never_written(number: float, beside: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps({"beside": beside, "rewards": {"a": [number]}})


def test_half_a_character_becomes_a_question_mark() -> None:
    assert dumps({"path": "a\udcff", "n": 1}) == b'{"path":"a?","n":1}\n'


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_the_reader(line: bytes) -> None:
    try:
        row = parse_row(line, Where("rows.jsonl", 1))
    except DataError:
        return
    json.dumps(row, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\nb: 2\na: 3\n", "settings.yaml:3: 'a' occurs twice"),
        ("a: &x 1\nb: *x\n", r"settings.yaml:2: aliases"),
        ("[a]: 1\n? {b: c}\n: 2\n", "a key must be plain text"),
        ("a: [1\n", "settings.yaml:2: "),
        ("- a\n", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: !!python/object/apply:os.system [true]\n", "settings.yaml:1: could not determine a constructor"),
        ("a: 2020-99-99\n", "not YAML"),
        ("a: \x01\n", "not YAML"),
        ("a: " + "[" * 20000, "not YAML"),
    ],
)
def test_a_bad_yaml_is_one_line_of_reason(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_yaml_over_a_mebibyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("a: " + "x" * files.YAML_LIMIT)
    with pytest.raises(ConfigError, match="over 1 MiB"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": NaN}', "[" * 90000])
def test_a_damaged_json_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"eval\.json"):
        read_json(path)


def test_a_whole_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    write_json(path, {"a": 1})
    with pytest.raises(OutputError), whole_file(path) as temporary:
        temporary.rename(temporary.with_name("lost"))
    (tmp_path / "lost").unlink()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["eval.json"]


def test_a_whole_file_keeps_the_mode_of_the_one_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    write_json(path, {"a": 1})
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o640)
    write_json(path, {"a": 2})
    assert path.stat().st_mode & 0o777 == 0o640
