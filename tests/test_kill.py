"""kill -9 at any moment: the same command again loses no row and doubles none."""

import hashlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import IRLHF, Bench, examples, read, wait_until, write

from irlhf.policy.policy_file import read_policy

KILLS = 50
PATIENT = """
import time
def words(examples):
    time.sleep(0.004)
    return [len(one.completion.split()) for one in examples]
"""


def killed(command: list[str], share: float) -> dict[str, Any]:
    """Kill a command within the first `share` of its time, 50 times over; return what the killer saw."""
    Path("out").mkdir()
    output = "out/out.jsonl"
    plan = {"kills": KILLS, "seed": 1, "share": share, "output": output}
    commands = {"reference": [*command, "reference.jsonl"], "arguments": [*command, output]}
    Path("plan.json").write_text(json.dumps({**plan, **commands}))
    killer = [sys.executable, str(Path(__file__).with_name("kill_loop.py")), "plan.json"]
    done = subprocess.run(killer, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return seen


def assert_nothing_lost_or_doubled(seen: dict[str, Any], ids: set[str]) -> None:
    reference = Path("reference.jsonl")
    assert len(read(reference)) == len(ids)
    assert {row["id"] for row in read(reference)} == ids
    assert seen["kills"] >= KILLS
    assert seen["with_rows"] >= KILLS / 3
    assert set(seen["finished"]) == {hashlib.sha256(reference.read_bytes()).hexdigest()}
    assert seen["left"] == ["out.jsonl", "out.jsonl.run.json"]


@pytest.mark.slow
def test_score_killed_at_fifty_moments_gives_the_rows_of_an_uninterrupted_run(tmp_path: Path) -> None:
    write(Path("in.jsonl"), examples(2000))
    Path("patient.py").write_text(PATIENT)
    Path("rewards.yaml").write_text("rewards: {a: {scorer: 'patient:words'}}")
    seen = killed(["score", "in.jsonl", "-r", "rewards.yaml", "-q", "-o"], share=0.8)
    assert_nothing_lost_or_doubled(seen, {f"e{i}" for i in range(2000)})


@pytest.mark.slow
def test_sample_killed_at_fifty_moments_gives_the_rows_of_an_uninterrupted_run(bench: Bench) -> None:
    asked = ["-t", "short=0:1:0.25", "-t", "colour=data", "--split", "all", "--limit", "24", "--max-tokens", "12"]
    seen = killed(["sample", str(bench.policy), str(bench.examples), *asked, "--batch", "4", "-q", "-o"], share=0.5)
    policy = read_policy(bench.policy).digest
    assert_nothing_lost_or_doubled(seen, {f"g{i}/{policy}/0/{k}" for i in range(24) for k in range(5)})


def written() -> int:
    """Return how many bytes of rows there are."""
    partial = Path("out.jsonl.partial")
    return partial.stat().st_size if partial.exists() else 0


def test_whole_processes_killed_from_outside_lose_nothing_either(tmp_path: Path) -> None:
    write(Path("in.jsonl"), examples(3000))
    Path("patient.py").write_text(PATIENT)
    Path("rewards.yaml").write_text("rewards: {a: {scorer: 'patient:words'}}")
    command = [*IRLHF, "score", "in.jsonl", "-r", "rewards.yaml", "-q", "-o", "out.jsonl"]
    rng = random.Random(2)
    deaths = []
    while len(deaths) < 5:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as one:
            size = written() + rng.randint(1, 40_000)
            wait_until(lambda one=one, size=size: one.poll() is not None or written() >= size)
            one.kill()
        deaths.append(one.returncode)
        Path("out.jsonl").unlink(missing_ok=True)
    assert -signal.SIGKILL in deaths
    assert subprocess.run(command, check=False).returncode == 0
    assert [row["id"] for row in read(Path("out.jsonl"))] == [f"e{i}" for i in range(3000)]
