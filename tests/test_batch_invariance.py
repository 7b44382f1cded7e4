"""Batches are fixed by the input: a model whose numbers depend on a batch's shape gives a resumed run the same rows."""

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_api import Asked, Reply, serving
from fake_judge import number_of
from helpers import Bench, Row, call, example, read, write
from shape_dependent import BERT, LLAMA, made_dependent, register
from test_classifier import TEXT, bert

from irlhf.scoring.cache import NAME

WORDS = TEXT.split()[6:]
SAMPLES = 30  # of 10 prompts, in pools of 4 batches of 3


@pytest.fixture(autouse=True, scope="module")
def _registered() -> None:
    register()


@pytest.fixture
def policy(bench: Bench) -> Path:
    return made_dependent(bench.policy, Path("policy"), LLAMA)


def sampling(policy: Path, bench: Bench, *more: object) -> list[object]:
    asked = ["-t", "short=0:1:0.5", "--split", "all", "--limit", 10, "--max-tokens", 6]
    return ["sample", policy, bench.examples, *asked, "--batch", 3, "-q", *more]


def cut(output: Path, rows: int) -> None:
    """Leave what a kill leaves: some whole rows, and one that was being written."""
    lines = output.read_bytes().splitlines(keepends=True)
    output.unlink()
    partial = output.with_name(f"{output.name}.partial")
    partial.write_bytes(b"".join(lines[:rows]) + lines[rows][:20])


def assert_resumed_alike(command: Sequence[object], output: Path, cuts: Sequence[int]) -> None:
    assert call(*command, "-o", output).code == 0
    whole = output.read_bytes()
    for rows in cuts:
        cut(output, rows)
        outcome = call(*command, "-o", output)
        assert outcome.code == 0, outcome.err
        assert output.read_bytes() == whole, f"cut behind row {rows}"


def test_the_model_does_depend_on_the_shape_of_a_batch(policy: Path, bench: Bench) -> None:
    assert call(*sampling(policy, bench), "-o", "three.jsonl").code == 0
    assert call(*sampling(policy, bench), "--batch", 4, "-o", "four.jsonl").code == 0
    three, four = ([row["completion"] for row in read(Path(f"{name}.jsonl"))] for name in ("three", "four"))
    assert len(three) == SAMPLES
    assert three != four


@pytest.mark.parametrize("more", [[], ["--guidance", 2], ["--shard", "1/2"]], ids=["plain", "guided", "shard"])
def test_samples_cut_off_anywhere_are_those_of_an_uninterrupted_run(
    more: list[object], policy: Path, bench: Bench
) -> None:
    rows = [1, 2, 4] if "--shard" in more else [1, 2, 5, 11, 12, 13, 23, 29]
    assert_resumed_alike(sampling(policy, bench, *more), Path("out.jsonl"), rows)


def killed_behind(size: int, command: Sequence[object]) -> None:
    line = [sys.executable, str(Path(__file__).with_name("shape_dependent.py")), str(size), *map(str, command)]
    done = subprocess.run(line, check=False, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGXFSZ, done.stderr


@pytest.mark.slow
def test_samples_of_a_killed_process_are_those_of_an_uninterrupted_run(policy: Path, bench: Bench) -> None:
    command, out = sampling(policy, bench), Path("out.jsonl")
    assert call(*command, "-o", "whole.jsonl").code == 0
    killed_behind(Path("whole.jsonl").stat().st_size // 6, [*command, "-o", out])
    written = Path("out.jsonl.partial").read_bytes()
    assert 0 < written.count(b"\n") < SAMPLES / 2
    assert not written.endswith(b"\n")
    assert call(*command, "-o", out).code == 0
    assert out.read_bytes() == Path("whole.jsonl").read_bytes()


def scored_rows(count: int) -> list[Row]:
    """Rows of different lengths, a few of them with equal texts, so that a pool of 256 rows is many batches."""
    rng = random.Random(3)
    texts = [
        (" ".join(rng.choices(WORDS, k=4)), " ".join(rng.choices(WORDS, k=rng.randint(1, 20)))) for _ in range(count)
    ]
    # The note makes the rows longer than the file of kept replies, so that it is the rows that meet the limit.
    return [
        example(i, prompt=prompt, completion=completion, note="x" * 600) for i, (prompt, completion) in enumerate(texts)
    ]


@pytest.fixture
def scoring(tmp_path: Path) -> list[object]:
    """The command that scores 600 rows with a reward model, with a function of ours that runs one, and with a rule."""
    model = made_dependent(bert(tmp_path / "plain", num_labels=1), tmp_path / "rm", BERT)
    write(Path("in.jsonl"), scored_rows(600))
    Path("company.py").write_text(
        "def size(examples):\n    return [len(examples) + len(one.completion) / 1e3 for one in examples]\n"
    )
    specs = {"rm": {"scorer": f"hf:{model}"}, "mine": {"scorer": "company:size"}, "length": {"scorer": "length"}}
    Path("rewards.yaml").write_text(json.dumps({"rewards": specs}))
    return ["score", "in.jsonl", "-r", "rewards.yaml", "-q"]


@pytest.mark.parametrize("kept", [True, False], ids=["replies kept", "replies lost"])
def test_rewards_cut_off_anywhere_are_those_of_an_uninterrupted_run(kept: bool, scoring: list[object]) -> None:
    out = Path("out.jsonl")
    assert call(*scoring, "-o", out).code == 0
    whole = out.read_bytes()
    for rows in (1, 100, 256, 300, 599):
        cut(out, rows)
        if not kept:
            Path(NAME).unlink()
        outcome = call(*scoring, "-o", out)
        assert outcome.code == 0, outcome.err
        assert out.read_bytes() == whole, f"cut behind row {rows}"


@pytest.mark.slow
def test_rewards_of_a_killed_process_are_those_of_an_uninterrupted_run(scoring: list[object]) -> None:
    out = Path("out.jsonl")
    assert call(*scoring, "-o", "whole.jsonl", "--cache", "whole.sqlite").code == 0
    killed_behind(Path("whole.jsonl").stat().st_size * 2 // 3, [*scoring, "-o", out, "--cache", "killed.sqlite"])
    assert 256 < Path("out.jsonl.partial").read_bytes().count(b"\n") < 512
    assert call(*scoring, "-o", out, "--cache", "killed.sqlite").code == 0
    assert out.read_bytes() == Path("whole.jsonl").read_bytes()


def test_kept_replies_change_nothing_of_the_other_rows(scoring: list[object]) -> None:
    assert call(*scoring, "-o", "whole.jsonl").code == 0
    whole = {row["id"]: row["rewards"]["rm"] for row in read(Path("whole.jsonl"))}
    rows = read(Path("in.jsonl"))
    write(Path("some.jsonl"), rows[::3])
    assert call("score", "some.jsonl", *scoring[2:], "-o", "some-scored.jsonl", "--cache", "some.sqlite").code == 0
    before = {row["id"]: row["rewards"]["rm"] for row in read(Path("some-scored.jsonl"))}
    assert call(*scoring, "-o", "again.jsonl", "--cache", "some.sqlite").code == 0
    again = {row["id"]: row["rewards"]["rm"] for row in read(Path("again.jsonl"))}
    assert again == whole | before
    assert before != {name: whole[name] for name in before}


def test_a_server_is_never_asked_again_about_a_row_that_was_written(tmp_path: Path) -> None:
    numbers: list[int] = []
    lock = threading.Lock()

    def script(asked: Asked) -> Reply:
        with lock:
            numbers.append(number_of(asked))
        return Reply({"reward": number_of(asked) / 7})

    write(Path("in.jsonl"), [example(i) for i in range(40)])
    with serving(script) as server:
        specs = {"served": {"scorer": f"{server.root}/score"}, "length": {"scorer": "length"}}
        Path("rewards.yaml").write_text(json.dumps({"rewards": specs}))
        command, out = ["score", "in.jsonl", "-r", "rewards.yaml", "-q", "-o", "out.jsonl"], Path("out.jsonl")
        assert call(*command).code == 0
        whole = out.read_bytes()
        cut(out, 25)
        Path(NAME).unlink()
        numbers.clear()
        assert call(*command).code == 0
    assert sorted(numbers) == list(range(25, 40))
    assert out.read_bytes() == whole


def test_rows_set_aside_before_the_interruption_are_asked_about_without_their_pools(tmp_path: Path) -> None:
    write(Path("in.jsonl"), [example(i) for i in range(700)])
    Path("silent.py").write_text(
        "from irlhf.scoring.scorers.base import Failure\n"
        "def words(examples):\n"
        "    with open('asked', 'a') as file:\n"
        "        file.writelines(f'{one.id}\\n' for one in examples)\n"
        "    return [Failure('silent') if one.id in ('e100', 'e300') else 1 for one in examples]\n"
    )
    Path("rewards.yaml").write_text(json.dumps({"rewards": {"a": {"scorer": "silent:words"}}}))
    command = ["score", "in.jsonl", "-r", "rewards.yaml", "-q", "--on-bad-row", "skip", "-o", "out.jsonl"]
    assert call(*command).code == 0
    whole, aside = Path("out.jsonl").read_bytes(), Path("out.jsonl.rejected.jsonl").read_bytes()
    cut(Path("out.jsonl"), 400)
    Path("asked").unlink()
    assert call(*command).code == 0
    assert Path("asked").read_text().split() == ["e100", *(f"e{i}" for i in range(256, 700))]
    assert Path("out.jsonl").read_bytes() == whole
    assert Path("out.jsonl.rejected.jsonl").read_bytes() == aside
