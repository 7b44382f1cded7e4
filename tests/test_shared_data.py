"""Real data that nobody on this project wrote: Anthropic's pairs and a pretrained model, dirt and all."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, SHARED, Row, read

from irlhf.core.example import SPLITS
from irlhf.data.cleaning import BEGUN, JOINED
from irlhf.data.formats.helpers import DIFFER, EQUAL
from irlhf.data.prepare import prepare
from irlhf.data.settings import PrepareSettings
from irlhf.scoring.score import score

DIRT: dict[str, dict[str, Any]] = {
    "harmless": {
        "rows": 2312,
        "differ": {1254, 1688, 1950, 1952, 2036},
        "empty": {86, 516, 925, 1103},
        "equal": set(),
        "joined": 8,  # of prompts with two answers in a row
        "paragraphs": {"chosen": 48, "rejected": 79},  # completions with a blank line in them
    },
    "helpful": {
        "rows": 2354,
        "differ": {168, 354, 567, 743, 960, 1011, 1166, 1307, 1450},
        "empty": {120, 740, 1214, 2063},
        "equal": {721, 2168},
        "joined": 14,
        "paragraphs": {"chosen": 171, "rejected": 117},
    },
}


@pytest.fixture(scope="module", params=sorted(DIRT))
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Row], list[Row]]:
    """The name of a data set, its examples, its rejected rows."""
    if not SHARED.is_dir():
        pytest.skip("IRLHF_SHARED_DATA names no folder with the shared data")
    out = tmp_path_factory.mktemp(request.param) / "examples.jsonl"
    summary = prepare([SHARED / "hh-rlhf" / f"{request.param}-base.test.jsonl.gz"], out)
    rejected = read(out.with_name("examples.jsonl.rejected.jsonl"))
    assert summary["written"] + summary["rejected"] == 2 * DIRT[request.param]["rows"]
    return request.param, read(out), rejected


def number(row: Row) -> int:
    return int(row["id"].rsplit("-", 1)[1][:-1])


def test_the_account_closes(pairs: tuple[str, list[Row], list[Row]]) -> None:
    name, examples, rejected = pairs
    assert len(examples) + len(rejected) == 2 * DIRT[name]["rows"]
    assert len({row["id"] for row in examples}) == len(examples)


def test_empty_completions_are_set_aside_by_number(pairs: tuple[str, list[Row], list[Row]]) -> None:
    name, _, rejected = pairs
    assert {int(row["where"].rsplit(":", 1)[1]) - 1 for row in rejected} == DIRT[name]["empty"]
    assert {row["reason"].split(" completion")[1] for row in rejected} == {" is empty"}


def test_pairs_whose_prompts_differ_are_parted(pairs: tuple[str, list[Row], list[Row]]) -> None:
    name, examples, _ = pairs
    assert {number(row) for row in examples if row["pair"] == row["id"]} == DIRT[name]["differ"]


def test_equal_prompts_of_several_pairs_share_a_group(pairs: tuple[str, list[Row], list[Row]]) -> None:
    _, examples, _ = pairs
    groups = {(json.dumps(row["prompt"]), row["group"]) for row in examples}
    assert len(groups) == len({prompt for prompt, _ in groups}) == len({group for _, group in groups})


def test_pairs_that_are_equal_are_kept(pairs: tuple[str, list[Row], list[Row]]) -> None:
    name, examples, _ = pairs
    texts: dict[int, set[str]] = {}
    for row in examples:
        texts.setdefault(number(row), set()).add(json.dumps([row["prompt"], row["completion"]]))
    complete = {row for row in texts if row not in DIRT[name]["empty"]}
    assert {row for row in complete if len(texts[row]) == 1} == DIRT[name]["equal"]


def test_prompts_end_with_a_question_and_completions_hold_no_turn(pairs: tuple[str, list[Row], list[Row]]) -> None:
    name, examples, _ = pairs
    roles = [[turn["role"] for turn in row["prompt"]] for row in examples]
    assert all(one == ["user", "assistant"] * (len(one) // 2) + ["user"] for one in roles)
    # Where the two prompts of a pair differ, one of them has two answers in a row.
    assert {number(row) for row in examples if BEGUN in row.get("noted", ())} <= DIRT[name]["differ"]
    whole = [row["completion"] for row in examples if BEGUN not in row.get("noted", ())]
    assert not [text for text in whole if "\n\nHuman:" in text or "\n\nAssistant:" in text]
    assert all(row["completion"].strip() == row["completion"] != "" for row in examples)


def test_what_was_done_to_the_data_is_counted(pairs: tuple[str, list[Row], list[Row]]) -> None:
    name, examples, _ = pairs
    noted = Counter(one for row in examples for one in row.get("noted", ()))
    assert {number(row) for row in examples if DIFFER in row.get("noted", ())} == DIRT[name]["differ"]
    assert {number(row) for row in examples if EQUAL in row.get("noted", ())} == DIRT[name]["equal"]
    assert noted[JOINED] == DIRT[name]["joined"]
    assert noted[BEGUN] == len(DIRT[name]["differ"])


def test_every_word_of_the_data_is_still_there(pairs: tuple[str, list[Row], list[Row]], shared: Path) -> None:
    name, examples, _ = pairs
    speaker = {"user": "Human", "assistant": "Assistant"}
    for row, raw in zip(examples, raws(name, examples, shared), strict=True):
        said = [f"{speaker[turn['role']]}: {turn['content']}" for turn in row["prompt"]]
        whole = " ".join([*said, f"Assistant: {row['completion']}"]).split()
        joined = {JOINED, BEGUN} & set(row.get("noted", ()))
        # Two turns of one speaker are one, which names the speaker once.
        dropped = {"Human:", "Assistant:"} if joined else set()
        assert [word for word in raw.split() if word not in dropped] == [word for word in whole if word not in dropped]


def test_answers_of_several_paragraphs_are_whole(pairs: tuple[str, list[Row], list[Row]], shared: Path) -> None:
    name, examples, _ = pairs
    answers = [raw.rpartition("\n\nAssistant:")[2].strip() for raw in raws(name, examples, shared)]
    assert all(row["completion"].endswith(answer) for row, answer in zip(examples, answers, strict=True))
    both = zip(examples, answers, strict=True)
    assert Counter(row["label"] for row, answer in both if "\n\n" in answer) == DIRT[name]["paragraphs"]


def raws(name: str, examples: list[Row], shared: Path) -> list[str]:
    """The transcript that each example was made of."""
    with gzip.open(shared / "hh-rlhf" / f"{name}-base.test.jsonl.gz") as raw:
        rows = [json.loads(line) for line in raw]
    return [rows[number(row)][row["label"]] for row in examples]


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of both files, as a hub would get it."""
    if not SHARED.is_dir():
        pytest.skip("IRLHF_SHARED_DATA names no folder with the shared data")
    out = tmp_path_factory.mktemp("better") / "better-hh"
    prepare([SHARED / "hh-rlhf" / f"{name}-base.test.jsonl.gz" for name in DIRT], out, PrepareSettings(card=True))
    return out


def better_rows(better: Path, name: str) -> list[Row]:
    return read(better / f"{name}-base.test.jsonl")


@pytest.mark.parametrize("name", DIRT)
def test_the_data_set_holds_every_completion_but_the_empty_ones(better: Path, name: str) -> None:
    rows = better_rows(better, name)
    there = {(row["source_row"], row["label"]) for row in rows}
    every = {(number, label) for number in range(DIRT[name]["rows"]) for label in ("chosen", "rejected")}
    assert len(there) == len(rows) == 2 * DIRT[name]["rows"] - len(DIRT[name]["empty"])
    assert {number for number, _ in every - there} == DIRT[name]["empty"]
    aside = [one for one in read(better.with_name("better-hh.rejected.jsonl")) if f"{name}-base" in one["where"]]
    assert {int(one["where"].rsplit(":", 1)[1]) - 1 for one in aside} == DIRT[name]["empty"]
    assert [row["id"] for row in rows] == [
        f"{name}-base.test-{row['source_row']}{'a' if row['label'] == 'chosen' else 'b'}" for row in rows
    ]
    assert all(row["user_turns"] == sum(turn["role"] == "user" for turn in row["prompt"]) for row in rows)


@pytest.mark.parametrize("name", DIRT)
def test_an_unrepaired_row_gives_its_transcript_back(better: Path, name: str, shared: Path) -> None:
    tools: dict[str, Any] = {}
    (code,) = re.findall(r"```python\n(def transcript.*?)```", (better / "README.md").read_text(), re.DOTALL)
    exec(code, tools)
    rows = better_rows(better, name)
    repaired = [bool({JOINED, BEGUN} & set(row["noted"])) for row in rows]
    lost = [tools["transcript"](row) != raw for row, raw in zip(rows, raws(name, rows, shared), strict=True)]
    # Not even white space at the ends of turns is lost in these files, but where two turns became one.
    assert lost == repaired
    assert sum(lost) == {"harmless": 13, "helpful": 22}[name]


@pytest.mark.parametrize("name", DIRT)
def test_answers_of_several_paragraphs_are_whole_in_the_data_set(better: Path, name: str, shared: Path) -> None:
    rows = better_rows(better, name)
    answers = [raw.rpartition("\n\nAssistant:")[2].strip() for raw in raws(name, rows, shared)]
    several = [(row, answer) for row, answer in zip(rows, answers, strict=True) if "\n\n" in answer]
    assert Counter(row["label"] for row, _ in several) == DIRT[name]["paragraphs"]
    assert all(row["completion"].endswith(answer) for row, answer in several)
    assert all(row["completion"] == answer or BEGUN in row["noted"] for row, answer in several)


@pytest.mark.parametrize("name", DIRT)
def test_the_data_set_is_one_type_a_column_to_its_loader(better: Path, name: str) -> None:
    import pyarrow
    import pyarrow.json

    text, message = pyarrow.string(), pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    texts = ("id", "completion", "group", "label", "split", "source", "pair")
    types = {**dict.fromkeys(texts, text), "prompt": pyarrow.list_(message), "noted": pyarrow.list_(text)}
    types |= dict.fromkeys(("user_turns", "source_row"), pyarrow.int64())
    loaded = pyarrow.json.read_json(better / f"{name}-base.test.jsonl")
    assert dict(zip(loaded.schema.names, loaded.schema.types, strict=True)) == types
    assert loaded.to_pylist() == better_rows(better, name)


@pytest.mark.parametrize("name", DIRT)
def test_preparing_and_scoring_the_data_set_keeps_it_as_it_is(better: Path, name: str) -> None:
    made = better / f"{name}-base.test.jsonl"
    prepare([made], "again.jsonl")
    assert Path("again.jsonl").read_bytes() == made.read_bytes()
    Path("rewards.yaml").write_text("rewards:\n  length: {scorer: length}\n")
    score(made, "rewards.yaml", "scored.jsonl")
    scored = read(Path("scored.jsonl"))
    assert [{key: one for key, one in row.items() if key != "rewards"} for row in scored] == read(made)
    assert all(row["rewards"]["length"] >= 1 for row in scored)


def test_the_page_about_the_data_set_says_what_its_card_says(better: Path, shared: Path) -> None:
    page = (ROOT / "docs" / "better-hh.md").read_text(encoding="utf-8").splitlines()
    card = (better / "README.md").read_text(encoding="utf-8").splitlines()
    figures = [line for line in page if line.startswith(("| ", "- `"))]
    assert len(figures) == 10
    assert not [line for line in figures if line not in card]
    before, after = (json.loads(line) for line in page if line.startswith("{"))
    assert after in better_rows(better, "helpful")
    assert raws("helpful", [after, {**after, "label": "rejected"}], shared) == [before["chosen"], before["rejected"]]


def test_no_conversation_stands_in_two_splits(pairs: tuple[str, list[Row], list[Row]]) -> None:
    _, examples, _ = pairs
    assert first_turns(examples) == {"train": 1, "validation": 1, "test": 1}


def test_no_tree_of_open_assistant_stands_in_two_splits(shared: Path) -> None:
    prepare([shared / "oasst" / "en_100_tree.jsonl"], "examples.jsonl")
    examples = read(Path("examples.jsonl"))
    assert len(examples) == 687
    assert first_turns(examples) == {"train": 1, "validation": 1, "test": 1}


def first_turns(examples: list[Row]) -> dict[str, int]:
    """In how many splits the first turns of each split stand, at most."""
    splits: dict[str, set[str]] = {}
    for row in examples:
        splits.setdefault(" ".join(row["prompt"][0]["content"].casefold().split()), set()).add(row["split"])
    return {split: max(len(found) for found in splits.values() if split in found) for split in SPLITS}


@pytest.mark.slow
def test_a_small_slice_walks_the_whole_example(shared: Path) -> None:
    small = {"LIMIT": "120", "EPOCHS": "0.2", "PROMPTS": "6", "N": "3"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = ["bash", ROOT / "examples" / "hh.sh", shared / "hh-rlhf", shared / "stories260K", "hh"]
    ran = subprocess.run(script, env={**os.environ, **small, "PATH": path}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = {one["name"]: one for one in json.loads(Path("hh/eval.json").read_text())["policies"].values()}
    assert set(found) == {"policy", "plain"}
    assert found["plain"]["baseline"] == "plain"
    assert all(one["rewards"]["length"]["n"] == 18 for one in found.values())
    assert Path("hh/plots/target-actual.png").stat().st_size > 10_000


@pytest.mark.slow
def test_columns_of_real_data_are_rewards_with_no_model_involved(shared: Path) -> None:
    if not shutil.which("jq"):
        pytest.skip("the example shapes its data with jq, which is not here")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = ["bash", ROOT / "examples" / "columns.sh", shared, "columns"]
    ran = subprocess.run(script, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert not Path("columns/replies.sqlite").exists()
    solutions = read(Path("columns/scored-solutions.jsonl"))
    raw = [json.loads(line) for line in (shared / "gsm8k/example_model_solutions.jsonl").read_text().splitlines()]
    told = [one["is_correct"] for row in raw for one in row.values() if isinstance(one, dict)]
    assert [row["rewards"]["correct"] for row in solutions] == [float(one) for one in told]
    replies = read(Path("columns/scored-replies.jsonl"))
    given = [row["scores"] for row in json.loads((shared / "topical_chat/topical_chat.json").read_text())]
    names = dict(zip(replies[0]["rewards"], given[0], strict=True))
    assert [{names[name]: value for name, value in row["rewards"].items()} for row in replies] == given
