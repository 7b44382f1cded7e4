"""--shard: several runs share the work, and together they write what one would have written."""

import signal
import subprocess
from pathlib import Path

import pytest
from helpers import IRLHF, Bench, Row, begun, call, example, examples, read, wait_until, write

from irlhf.sampling.sample import sample
from irlhf.sampling.settings import SampleSettings
from irlhf.scoring.score import score
from irlhf.scoring.settings import ScoreSettings

SLOW = """
import time
def words(examples):
    time.sleep(0.05)
    return [len(one.completion.split()) for one in examples]
"""


def lines(*paths: str) -> list[bytes]:
    """The rows of files, put together as `cat` does."""
    return b"".join(Path(path).read_bytes() for path in paths).splitlines(keepends=True)


DRAWN = ("completion", "finish", "tokens", "entropy", "logprob")


def requested(*paths: str) -> list[Row]:
    """The rows of files in order of their ids, without what is drawn: a part's batches are not those of one run."""
    rows = sorted((row for path in paths for row in read(Path(path))), key=lambda row: str(row["id"]))
    return [{name: value for name, value in row.items() if name not in DRAWN} for row in rows]


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Rows whose prompts have several completions each, and how they are scored."""
    made = [example(i, group=f"g{i // 3}") for i in range(900)]
    write(tmp_path / "in.jsonl", made)
    (tmp_path / "rewards.yaml").write_text("rewards: {a: {scorer: length}}")
    return made


def test_shards_of_score_hold_the_rows_of_one_run_and_nothing_twice(rows: list[Row]) -> None:
    score("in.jsonl", "rewards.yaml", "whole.jsonl", ScoreSettings(limit=700))
    for i in (1, 2, 3):
        score("in.jsonl", "rewards.yaml", f"{i}.jsonl", ScoreSettings(limit=700, shard=f"{i}/3"))
    assert sorted(lines("1.jsonl", "2.jsonl", "3.jsonl")) == sorted(lines("whole.jsonl"))
    found = [{row["group"] for row in read(Path(f"{i}.jsonl"))} for i in (1, 2, 3)]
    assert all(groups and not groups & other for groups, other in zip(found, found[1:] + found[:1], strict=True))
    ids = [row["id"] for row in read(Path("2.jsonl"))]
    assert ids == [row["id"] for row in rows if row["id"] in set(ids)]


def test_rows_that_cannot_be_read_are_set_aside_by_one_shard_alone(rows: list[Row]) -> None:
    with Path("in.jsonl").open("a") as stream:
        stream.writelines(f'{{"id": {n}}}\n' for n in range(20))
    for i in (1, 2):
        score("in.jsonl", "rewards.yaml", f"{i}.jsonl", ScoreSettings(on_bad_row="skip", shard=f"{i}/2"))
    aside = [read(Path(f"{i}.jsonl.rejected.jsonl")) for i in (1, 2)]
    assert sorted(row["where"] for part in aside for row in part) == sorted(f"in.jsonl:{n}" for n in range(901, 921))
    assert all(aside)


def test_shards_of_sample_hold_the_rows_of_one_run_and_nothing_twice(bench: Bench) -> None:
    settings = {"target": ("short=0:1:0.5",), "n": 2, "split": "all", "limit": 30, "max_tokens": 8}
    sample(bench.policy, bench.examples, "whole.jsonl", SampleSettings(**settings))  # type: ignore[arg-type]
    for i in (1, 2, 3):
        part = SampleSettings(**settings, shard=f"{i}/3")  # type: ignore[arg-type]
        summary = sample(bench.policy, bench.examples, f"{i}.jsonl", part)
        assert 0 < summary["prompts"] < 30
    assert requested("1.jsonl", "2.jsonl", "3.jsonl") == requested("whole.jsonl")


def killed_then_run_again(command: list[object], output: Path) -> None:
    with subprocess.Popen(command) as child:
        wait_until(lambda: child.poll() is not None or begun(output))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    subprocess.run(command, check=True)


@pytest.mark.slow  # whole processes; test_batch_invariance.py cuts and kills in every run
def test_a_shard_of_score_that_was_killed_is_whole_after_a_second_run(tmp_path: Path) -> None:
    write(Path("in.jsonl"), examples(4000))
    Path("slow.py").write_text(SLOW)
    Path("rewards.yaml").write_text("rewards: {a: {scorer: 'slow:words'}}")
    command = [*IRLHF, "score", "in.jsonl", "-r", "rewards.yaml", "-q"]
    for path, more in {"whole.jsonl": [], "1.jsonl": ["--shard", "1/2"]}.items():
        subprocess.run([*command, *more, "-o", path], check=True)
    killed_then_run_again([*command, "--shard", "2/2", "-o", "2.jsonl"], Path("2.jsonl"))
    assert sorted(lines("1.jsonl", "2.jsonl")) == sorted(lines("whole.jsonl"))


@pytest.mark.slow
def test_a_shard_of_sample_that_was_killed_is_whole_after_a_second_run(bench: Bench) -> None:
    asked = ["-t", "short=0:1:0.1", "--split", "all", "--limit", "40", "--max-tokens", "16", "--batch", "4", "-q"]
    command = [*IRLHF, "sample", bench.policy, bench.examples, *asked, "--shard", "2/2"]
    assert call(*command[len(IRLHF) :], "-o", "whole.jsonl").code == 0
    killed_then_run_again([*command, "-o", "2.jsonl"], Path("2.jsonl"))
    assert lines("2.jsonl") == lines("whole.jsonl")


def test_shards_put_together_go_on_along_the_line(bench: Bench) -> None:
    names = [f"samples-{i}.jsonl" for i in (1, 2)]
    for i, name in enumerate(names, 1):
        command = ["sample", bench.policy, bench.examples, "-t", "short=0:1:0.5", "--max-tokens", "8", "--shard"]
        assert call(*command, f"{i}/2", "-o", name).code == 0
    Path("samples.jsonl").write_bytes(b"".join(lines(*names)))
    rewards = Path("rewards.yaml")
    rewards.write_text("rewards: {short: {scorer: length, direction: lower}}")
    assert call("score", "samples.jsonl", "-r", rewards, "-o", "scored.jsonl").code == 0
    outcome = call("eval", "scored.jsonl", "--policy", bench.policy)
    assert outcome.code == 0, outcome.err


def test_a_part_without_prompts_is_an_empty_file(rows: list[Row]) -> None:
    write(Path("one.jsonl"), rows[:1])
    counts = [
        score("one.jsonl", "rewards.yaml", f"{i}.jsonl", ScoreSettings(shard=f"{i}/4")).get("written", 0)
        for i in (1, 2, 3, 4)
    ]
    assert sorted(counts) == [0, 0, 0, 1]
    assert len(lines(*(f"{i}.jsonl" for i in (1, 2, 3, 4)))) == 1


def test_another_part_is_not_gone_on_with(rows: list[Row]) -> None:
    command = ["score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "--shard"]
    assert call(*command, "1/2").code == 0
    outcome = call(*command, "2/2")
    assert (outcome.code, "shard was 1/2 and is 2/2" in outcome.err) == (2, True)
    assert call("score", "in.jsonl", "--keep", "best", "--shard", "1/2").code == 2
    assert "write I/N" in call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "new.jsonl", "--shard", "3/2").err
