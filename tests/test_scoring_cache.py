"""Replies that are kept: nobody is asked the same twice, and nothing old is taken for an answer to a new question."""

import gc
import json
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Row, call, example, names, read, write
from test_classifier import LABELS, bert, llama
from transformers import BertForSequenceClassification

from irlhf.core.errors import OutputError
from irlhf.core.example import Example
from irlhf.scoring.cache import NAME, Replies, key
from irlhf.scoring.score import score
from irlhf.scoring.scorers.base import Traits
from irlhf.scoring.settings import ScoreSettings

COUNTED = """
from pathlib import Path

def words(examples, factor=1):
    with open("asked", "a") as file:
        file.writelines(f"{one.id} {factor}\\n" for one in examples)
    return [factor * len(one.completion.split()) for one in examples]

def nan_once(examples):
    first = not Path("asked").exists()
    words(examples)
    return [float("nan") if first else 1.0 for one in examples]
"""
ROWS = [example(0, completion="one"), example(1, completion="one two"), example(2, completion="one")]


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "counted", raising=False)
    Path("counted.py").write_text(COUNTED)
    write(Path("in.jsonl"), ROWS)


def scored(rewards: Any, output: str = "out.jsonl", **settings: Any) -> list[Row]:
    Path("rewards.yaml").write_text(json.dumps({"rewards": rewards}))
    Path("asked").unlink(missing_ok=True)
    score("in.jsonl", "rewards.yaml", output, ScoreSettings(**settings))
    return [row["rewards"] for row in read(Path(output))]


def asked() -> list[str]:
    return Path("asked").read_text().splitlines() if Path("asked").exists() else []


MINE = {"scorer": "counted:words", "revision": "1"}


def test_a_finished_run_asks_nobody_again() -> None:
    first = scored({"a": MINE})
    assert asked() == ["e0 1", "e1 1", "e2 1"]
    assert scored({"a": MINE}) == first
    assert asked() == []


def test_one_more_reward_asks_its_own_scorer_alone() -> None:
    scored({"a": MINE})
    found = scored({"a": MINE, "b": {**MINE, "options": {"factor": 3}}}, "more.jsonl")
    assert asked() == ["e0 3", "e1 3", "e2 3"]
    assert found == [{"a": 1, "b": 3}, {"a": 2, "b": 6}, {"a": 1, "b": 3}]


def test_another_weight_or_direction_asks_nobody() -> None:
    scored({"a": MINE})
    scored({"a": {**MINE, "weight": 2, "direction": "lower"}}, "more.jsonl")
    assert asked() == []


def test_another_revision_asks_again() -> None:
    scored({"a": MINE})
    scored({"a": {**MINE, "revision": "2"}}, "more.jsonl")
    assert len(asked()) == 3


def test_code_without_a_revision_is_asked_each_time() -> None:
    spec = {"a": {"scorer": "counted:words"}}
    scored(spec)
    scored(spec, "more.jsonl")
    assert len(asked()) == 3
    assert not Path(NAME).exists()


def test_a_function_that_sees_the_whole_row_is_asked_about_each_row_but_not_about_rewards() -> None:
    scored({"a": MINE})
    Path("out.jsonl").rename("in.jsonl")
    scored({"a": MINE}, "more.jsonl")
    assert asked() == []


def test_a_nan_is_not_kept() -> None:
    spec = {"a": {"scorer": "counted:nan_once", "revision": "1"}}
    Path("rewards.yaml").write_text(json.dumps({"rewards": spec}))
    score("in.jsonl", "rewards.yaml", "out.jsonl", ScoreSettings(on_bad_row="skip"))
    assert read(Path("out.jsonl")) == []
    score("in.jsonl", "rewards.yaml", "more.jsonl")
    assert [row["rewards"]["a"] for row in read(Path("more.jsonl"))] == [1.0, 1.0, 1.0]


def test_the_file_is_where_cache_says() -> None:
    scored({"a": MINE}, cache="kept.sqlite")
    assert Path("kept.sqlite").exists()
    assert not Path(NAME).exists()
    scored({"a": MINE}, "more.jsonl", cache="kept.sqlite")
    assert asked() == []


def test_the_cache_is_no_part_of_what_a_run_is() -> None:
    scored({"a": MINE})
    scored({"a": MINE}, cache="kept.sqlite")
    assert asked() == []


def test_a_thousand_equal_texts_cost_one(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    write(Path("in.jsonl"), [example(i, prompt="how", completion="no") for i in range(1000)])
    Path("rewards.yaml").write_text(json.dumps({"rewards": {"a": {"scorer": str(folder)}}}))
    read_rows: list[int] = []

    def counted(module: torch.nn.Module, _: Any, given: Any) -> None:
        if isinstance(module, BertForSequenceClassification):
            read_rows.append(len(given.logits))

    hook = torch.nn.modules.module.register_module_forward_hook(counted)
    try:
        score("in.jsonl", "rewards.yaml", "out.jsonl")
    finally:
        hook.remove()
    assert read_rows == [1]
    assert len({row["rewards"]["a"] for row in read(Path("out.jsonl"))}) == 1


LOADED = """
import sys, irlhf
from irlhf.scoring.settings import ScoreSettings; from irlhf.scoring.score import score
score("in.jsonl", "rewards.yaml", sys.argv[1])
print("torch" in sys.modules, "transformers" in sys.modules, "openai" in sys.modules)
"""


def test_what_is_known_already_loads_no_model(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", **LABELS)
    spec = {"a": {"scorer": str(folder), "label": "good"}}
    scored(spec)
    Path("rewards.yaml").write_text(json.dumps({"rewards": {**spec, "b": {**spec["a"], "read": "probability"}}}))
    Path("again.py").write_text(LOADED)
    for output in ("other.jsonl", "other.jsonl"):
        done = subprocess.run([sys.executable, "again.py", output], capture_output=True, timeout=120, check=True)
        assert done.stdout.split() == [b"False", b"False", b"False"]
    assert {"a", "b"} == set(read(Path("other.jsonl"))[0]["rewards"])


def test_other_weights_in_the_same_folder_are_asked_again_and_refuse_the_old_output(tmp_path: Path) -> None:
    folder = bert(tmp_path / "rm", num_labels=1)
    spec = {"a": {"scorer": str(folder)}}
    first = scored(spec)
    llama(tmp_path / "other", pad_token_id=0)
    for file in (tmp_path / "other").iterdir():
        file.replace(folder / file.name)
    outcome = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl")
    assert outcome.code == 2
    assert "scorers.a was" in outcome.err
    assert "only changes are scored" in outcome.err
    assert scored(spec, "more.jsonl") != first


def test_no_text_stands_in_the_file() -> None:
    write(Path("in.jsonl"), [example(0, prompt="my secret", completion="is this")])
    scored({"a": MINE})
    assert b"secret" not in Path(NAME).read_bytes()


def test_a_file_that_is_no_cache_is_one_line() -> None:
    Path(NAME).write_text("not a database, but a text that somebody wrote here, long enough to be looked at " * 20)
    Path("rewards.yaml").write_text(json.dumps({"rewards": {"a": MINE}}))
    outcome = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl")
    assert outcome.code == 4
    assert "choose another file with --cache" in outcome.err


def test_keys_part_scorers_prompts_and_completions() -> None:
    texts = [("a", "b"), ("b", "a"), ("ab", ""), ("", "ab")]
    examples = [Example(id=str(n), prompt=prompt, completion=said) for n, (prompt, said) in enumerate(texts)]
    kinds = [Traits("one"), Traits("two"), Traits("one", whole_row=True)]
    assert len({key(kind, one) for kind in kinds for one in examples}) == 12


def test_threads_and_two_connections_write_at_a_time(tmp_path: Path) -> None:
    bases = [Replies(tmp_path / NAME) for _ in range(2)]

    def work(number: int) -> None:
        for n in range(50):
            bases[number % 2].put({f"{number}/{n}".encode(): {"": float(n)}})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    keys = [f"{number}/{n}".encode() for number in range(8) for n in range(50)]
    assert len(Replies(tmp_path / NAME).get(keys)) == 400


def test_what_a_kill_left_in_sqlites_journal_is_taken_up_by_the_same_run() -> None:
    scored({"a": MINE})
    gc.collect()  # closes what the end of a process closes
    child = os.fork()
    if not child:
        replies = Replies(Path(NAME))
        replies.put({b"key": {"": 1.0}})
        os._exit(0)  # as kill -9 does it: nothing is closed
    os.waitpid(child, 0)
    assert f"{NAME}-wal" in names(Path.cwd())
    scored({"a": MINE})
    assert asked() == []
    assert {f"{NAME}-wal", f"{NAME}-shm"} & names(Path.cwd()) == set()
    assert Replies(Path(NAME)).get([b"key"]) == {b"key": {"": 1.0}}


def test_a_damaged_file_is_an_output_error(tmp_path: Path) -> None:
    Replies(tmp_path / NAME).put({b"a": {"": 1.0}})
    base = sqlite3.connect(tmp_path / NAME)
    base.execute("DROP TABLE replies")
    base.execute("CREATE TABLE replies (key BLOB PRIMARY KEY)")
    base.close()
    with pytest.raises(OutputError, match="the cache cannot be used"):
        Replies(tmp_path / NAME).get([b"a"])
