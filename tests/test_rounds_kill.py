"""kill -9 at any moment of a round: the same command again ends with the files of rounds that nobody disturbed.

IRLHF_KILLS=50 kills at fifty moments by lot and around every output of every command;
without it only at a few.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import call, examples, write

LOTS = int(os.environ.get("IRLHF_KILLS", "0"))
ALL = LOTS > 0
REWARDS = """
rewards:
  short: {scorer: length, direction: lower, weight: 2}
  varied: {scorer: "careful:vowels", revision: "1"}
gold:
  short: {scorer: length, direction: lower}
"""
CAREFUL = """
def vowels(examples):
    return [sum(letter in "aeiou" for letter in one.completion) for one in examples]
"""
ROUND = ("--rounds", "1", "--prompts", "4", "--samples", "2", "--eval-prompts", "4", "--max-tokens", "4")
KEEP = ("--keep", "distinct,entropy-share=0.25")
MADE = ["samples.jsonl", "scored.jsonl", "kept.jsonl", "policy", "watch-data.jsonl", "watched-data.jsonl"]
# The moments just before a command's output is there and just after, and those of what stands at the end of rounds:
# what was watched, the link, which is made aside and then put into its place, and the whole.
BETWEEN = [f"{change} out/round-1/{name}" for name in MADE for change in ("rename", "remove")]
BETWEEN = [f"{one}.lock" if one.startswith("remove") else one for one in BETWEEN]
ENDS = ["rename out/round-1/round.json", "symlink out/.policy.link", "rename out/policy", "rename out/rounds.json"]
ENDS += ["remove out/rounds.json.lock"]

pytestmark = [pytest.mark.timeout(3600 if ALL else 300), pytest.mark.slow]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Scored rows and a policy, made by the commands."""
    Path("rewards.yaml").write_text(REWARDS)
    Path("careful.py").write_text(CAREFUL)
    write(Path("examples.jsonl"), examples(60))
    for line in (
        ("score", "examples.jsonl", "-r", "rewards.yaml", "-o", "scored.jsonl"),
        ("finetune", "scored.jsonl", "-r", "rewards.yaml", "--epochs", "1", "-o", "policy"),
    ):
        done = call(*line, "-q")
        assert done.code == 0, done.err
    return tmp_path


def lives(**plan: Any) -> list[dict[str, Any]]:
    """Kill rounds as planned, and return what became of each."""
    line = ["rounds", "scored.jsonl", "-r", "rewards.yaml", "--model", "policy", *ROUND, *KEEP, *plan.pop("more", ())]
    usual = {"arguments": [*line, "-q", "-o", "out"], "output": "out", "seed": 1}
    usual |= {"exact": [], "chain": [], "lots": 0, "lives": 1}
    Path("plan.json").write_text(json.dumps({**usual, **plan}))
    script = [sys.executable, str(Path(__file__).with_name("crash_points.py"))]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.strip().split("\n")[-1])["lives"]
    return found


def assert_nobody_could_tell(found: list[dict[str, Any]]) -> None:
    for life in found:
        assert life["codes"][-1] == 0, life
        assert life["different"] == [], life
    assert any(-signal.SIGKILL in life["codes"] for life in found)


def test_a_round_killed_at_any_moment_ends_with_the_same_files(folder: Path) -> None:
    chain = [*BETWEEN, *ENDS]
    found = lives(chain=chain, exact=[*BETWEEN[::2], *ENDS] if ALL else [], lots=LOTS or 3)
    assert_nobody_could_tell(found)
    (chained,) = (life["codes"] for life in found if len(life["codes"]) > 2)
    assert chained == [-signal.SIGKILL] * len(chain) + [0]
    assert len(found) >= 1 + (LOTS or 3)


@pytest.mark.skipif(not ALL, reason="IRLHF_KILLS is not set")
def test_rounds_killed_over_and_over_end_with_the_same_files(folder: Path) -> None:
    found = lives(more=["--rounds", "2"], lots=3, lives=17, seed=2)
    assert_nobody_could_tell(found)
    assert sum(life["codes"].count(-signal.SIGKILL) for life in found) > 30
