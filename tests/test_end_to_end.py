"""The line as a whole: samples go back in at the beginning, and the documented script runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, Bench, call, examples, names, read, write


def test_samples_walk_back_through_score_into_the_next_training(bench: Bench) -> None:
    ask = ["-t", "short=data", "-n", "2", "--split", "train", "--limit", "30", "--max-tokens", "16", "--top-p", "0.9"]
    Path("short.yaml").write_text("rewards:\n  short: {scorer: length, direction: lower}\n")
    for command in (
        ["sample", bench.policy, bench.examples, *ask, "-o", "samples.jsonl"],
        ["score", "samples.jsonl", "-r", "short.yaml", "-o", "scored.jsonl"],
        ["finetune", "scored.jsonl", "-r", "short.yaml", "--model", bench.policy, "--epochs", "0.5", "-o", "next"],
        ["sample", "next", bench.examples, "-t", "short=1", "--limit", "2", "--max-tokens", "4", "-o", "after.jsonl"],
    ):
        outcome = call(*command)
        assert outcome.code == 0, (command, outcome.err)
    before, after = read(Path("samples.jsonl"))[0], read(Path("after.jsonl"))[0]
    assert before["policy"] != after["policy"]
    assert all(row["target"] == {"short": "data"} for row in read(Path("scored.jsonl")))


def test_test_prompts_cannot_leak_through_the_loop(bench: Bench) -> None:
    ask = ["-t", "short=1", "--split", "test", "--limit", "3", "--max-tokens", "8"]
    Path("short.yaml").write_text("rewards:\n  short: {scorer: length}\n")
    call("sample", bench.policy, bench.examples, *ask, "-o", "samples.jsonl")
    call("score", "samples.jsonl", "-r", "short.yaml", "-o", "scored.jsonl")
    outcome = call("finetune", "scored.jsonl", "-r", "short.yaml", "-o", "next")
    assert outcome.code == 1
    assert "no rows to train on" in outcome.err


@pytest.mark.slow  # whole processes; test_quickstart.py goes the same way
def test_the_documented_script_runs(tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in examples(60)]
    write(tmp_path / "pairs.jsonl", rows)
    command = [sys.executable, ROOT / "examples" / "api.py", "pairs.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("length: {'value': ")
    assert {"policy", "samples.jsonl", "eval.json", "plots"} <= names(tmp_path)
