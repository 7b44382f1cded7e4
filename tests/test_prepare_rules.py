"""The rules that every row goes through, columns by other names, and what is said of the data."""

from pathlib import Path
from typing import Any

import pytest
from helpers import Row, call, read, write

from irlhf.core.errors import ConfigError, DataError
from irlhf.data.cleaning import BEGUN, JOINED
from irlhf.data.column_mapping import parse_map
from irlhf.data.prepare import prepare
from irlhf.data.settings import PrepareSettings

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}


def prepared(*rows: Row, **settings: Any) -> list[Row]:
    write(Path("raw.jsonl"), rows)
    prepare(["raw.jsonl"], "out.jsonl", PrepareSettings(**settings))
    return read(Path("out.jsonl"))


def reasons() -> list[str]:
    return [row["reason"] for row in read(Path("out.jsonl.rejected.jsonl"))]


def test_consecutive_turns_of_one_role_are_one() -> None:
    (found,) = prepared({"prompt": [USER, USER, ANSWER, ANSWER, USER], "completion": "c"})
    assert [turn["content"] for turn in found["prompt"]] == ["Hi\n\nHi", "Hello\n\nHello", "Hi"]
    assert found["noted"] == [JOINED]


def test_answers_of_tools_and_turns_with_more_than_text_stay_apart() -> None:
    tool = {"role": "tool", "content": "3", "tool_call_id": "c"}
    named = {"role": "user", "content": "Hi", "name": "Ann"}
    prompt = [USER, named, ANSWER, tool, tool]
    (found,) = prepared({"prompt": prompt, "completion": "c"})
    assert (found["prompt"], found.get("noted")) == (prompt, None)


@pytest.mark.parametrize("completion", ["c", [{"role": "assistant", "content": "c"}]])
def test_a_prompt_that_ends_with_an_answer_begins_the_completion(completion: Any) -> None:
    (found,) = prepared({"prompt": [USER, ANSWER], "completion": completion})
    text = found["completion"] if isinstance(found["completion"], str) else found["completion"][0]["content"]
    assert (found["prompt"], text, found["noted"]) == ([USER], "Hello\n\nc", [BEGUN])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": [{"role": "system", "content": "s"}], "completion": "c"}, "the prompt ends on the system's turn"),
        ({"prompt": [ANSWER], "completion": "c"}, "the prompt ends on the assistant's turn"),
        ({"prompt": [USER], "completion": [USER]}, "the completion ends on the user's turn"),
        ({"prompt": "p", "completion": "\u2003\n"}, "the completion is empty"),
        ({"prompt": "p", "completion": [{"role": "assistant", "content": " "}]}, "the completion is empty"),
    ],
)
def test_what_cannot_be_trained_on_is_set_aside(row: Row, reason: str) -> None:
    assert prepared(row) == []
    assert reasons()[0].startswith(reason)


def test_unicode_is_kept_byte_for_byte() -> None:
    text = " \u2028é e\u0301 \uff28 🌿\u200d\ufeff\u00a0"
    (found,) = prepared({"prompt": [{"role": "user", "content": text}], "completion": text})
    assert (found["prompt"][0]["content"], found["completion"]) == (text, text)


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "<s>", "</s>", "[INST]", "<<SYS>>", "<end_of_turn>", "<\uff5cUser\uff5c>", "<unk>"]
)
def test_text_like_a_special_token_is_reported_and_kept(text: str) -> None:
    rows = [{"prompt": "p", "completion": "a < b [c]"}, {"prompt": f"p{text}", "completion": "c"}]
    write(Path("raw.jsonl"), [*rows, {"prompt": "p", "completion": text}])
    outcome = call("prepare", "raw.jsonl", "-o", "out.jsonl", "--quiet")
    warning = f"warning: 2 rows contain text that looks like a special token, first '{text}' at raw.jsonl:2\n"
    assert outcome.err == warning
    assert read(Path("out.jsonl"))[2]["completion"] == text


def test_duplicates_are_kept_or_set_aside_and_counted() -> None:
    rows = [{"prompt": "p", "completion": "c", "n": n} for n in range(3)]
    rows += [{"prompt": "p", "completion": "d"}, {"prompt": [{"role": "user", "content": "p"}], "completion": "c"}]
    assert len(prepared(*rows)) == 5
    Path("out.jsonl").unlink()
    write(Path("raw.jsonl"), rows)
    summary = prepare(["raw.jsonl"], "out.jsonl", PrepareSettings(drop_duplicates=True))
    assert (summary["written"], summary["rejected"], summary["duplicates dropped"]) == (2, 3, 3)
    assert reasons() == ["an earlier row has the same prompt and completion"] * 3


def test_columns_are_read_by_other_names() -> None:
    row = {"question": "p", "answer": {"text": "c", "votes": 3}, "good": True, "topic": 7, "other": [1]}
    names = {"prompt": "question", "completion": "answer.text", "label": "good", "group": "topic"}
    (found,) = prepared(row, map=names)
    assert (found["prompt"], found["completion"], found["label"], found["group"]) == ("p", "c", "chosen", "7")
    assert (found["answer"], found["other"]) == ({"text": "c", "votes": 3}, [1])
    assert "question" not in found


def test_mapped_columns_can_be_any_format() -> None:
    row = {"q": "p", "answers": ["good", {"text": "bad"}], "a.b": 1}
    found = prepared(row, map={"prompt": "q", "chosen": "answers.0", "rejected": "answers.1.text", "n": "a.b"})
    assert [(one["label"], one["completion"], one["n"]) for one in found] == [
        ("chosen", "good", 1), ("rejected", "bad", 1),
    ]  # fmt: skip


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(DataError, match=r"raw.jsonl:1: no 'a.x' for --map prompt=a.x \(columns: a, c\)"):
        prepared({"a": {"b": 1}, "c": 2}, map={"prompt": "a.x"})


@pytest.mark.parametrize("pair", ["prompt", "=x", "prompt=", "a=b"])
def test_a_map_that_says_nothing_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match="--map"):
        parse_map(["a=c", pair])


def test_map_works_from_the_shell() -> None:
    write(Path("raw.jsonl"), [{"q": "p", "a": "c"}])
    outcome = call("prepare", "raw.jsonl", "-o", "-", "--map", "prompt=q", "--map", "completion=a")
    assert outcome.code == 0, outcome.err
    assert '"prompt":"p","completion":"c"' in outcome.out


@pytest.mark.parametrize(
    ("row", "nearest"),
    [
        ({"prompt": "p", "responce": "c", "helpfulness": 1, "correctness": 1, "coherence": 1, "complexity": 1,
          "verbosity": 1}, "the nearest, helpsteer, lacks response"),
        ({"prompt": "p", "human_ref_A": "a", "history": "b", "labels": 1}, "the nearest, shp, lacks human_ref_B"),
        ({"Prompt": "p", "Completion": "c"}, "use --map prompt=Prompt --map completion=Completion, or see"),
        ({"question": "p", "answer": "c", "Clarity (1-5)": 3}, "--map prompt=question --map completion=answer"),
        ({"User Query": "p", "Query": "q", "output": "c"}, "--map prompt=Query --map completion=output"),
        ({"instruction": "p", "answer": ["c"]}, "use --map prompt=COLUMN --map completion=COLUMN"),
        ({"chosen": "x", "rejected": "y"}, "the nearest is"),
    ],
)  # fmt: skip
def test_an_unknown_file_is_told_the_nearest_shape(row: Row, nearest: str) -> None:
    with pytest.raises(DataError) as caught:
        prepared(row)
    assert nearest in str(caught.value)
    assert ", ".join(row) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trl", "did you mean one of trl-preference, trl-stepwise, trl-unpaired?"),
        ("red", "did you mean 'red-team'?"),
        ("alpacca", "did you mean 'alpaca'?"),
    ],
)
def test_a_family_of_formats_is_listed(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared({"a": 1}, format=name)
    assert hint in str(caught.value)


def test_what_was_done_is_said_and_counted() -> None:
    write(Path("raw.jsonl"), [{"prompt": [USER, USER], "completion": "c"}])
    outcome = call("prepare", "raw.jsonl", "-o", "out.jsonl")
    assert outcome.err.splitlines()[:2] == [
        'raw.jsonl: read as prompt-completion, because of "prompt" and "completion"',
        "noted consecutive turns of one role joined: 1 rows",
    ]
