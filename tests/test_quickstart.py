"""The quickstart: its corpus, its line of commands, what it leaves behind."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from helpers import names, wait_until
from typer.testing import CliRunner

from irlhf.cli.app import app
from irlhf.core.errors import ConfigError
from irlhf.quickstart.corpus import TOPICS, generate
from irlhf.quickstart.quickstart import quickstart, steps, write_inputs
from irlhf.quickstart.settings import QuickstartSettings

# The line in a process of its own, as the command runs it.
_ALONE = """
import sys
from typer.main import get_command
from irlhf.cli.app import app
from irlhf.core.errors import ConfigError
from irlhf.quickstart.settings import QuickstartSettings; from irlhf.quickstart.quickstart import quickstart
folder, seed, rows, epochs, prompts = sys.argv[1:]
group = get_command(app)
settings = QuickstartSettings(int(seed), int(rows), float(epochs), int(prompts))
quickstart(folder, lambda line: group.main(list(line), standalone_mode=False), settings)
"""
SMALL = QuickstartSettings(rows=400, epochs=0.2, prompts=3)


@pytest.fixture(scope="module")
def dialogues() -> list[dict[str, str]]:
    return list(generate(3000, 1))


def run(arguments: Sequence[str]) -> None:
    result = CliRunner().invoke(app, list(arguments), prog_name="irlhf", catch_exceptions=False)
    assert result.exit_code == 0, result.stderr


def test_whole_topics_are_held_out() -> None:
    prompts: dict[str, set[str]] = {}
    for row in generate(5000, 0):
        prompts.setdefault(TOPICS[row["topic"]].split, set()).add(row["prompt"])
    assert not prompts["test"] & prompts["train"]
    assert not prompts["validation"] & (prompts["train"] | prompts["test"])


def test_equal_seeds_make_equal_dialogues(dialogues: list[dict[str, str]]) -> None:
    assert dialogues == list(generate(3000, 1))
    assert dialogues != list(generate(3000, 2))


def test_replies_are_whole_sentences_that_do_not_repeat(dialogues: list[dict[str, str]]) -> None:
    for row in dialogues:
        sentences = re.split(r"(?<=[.!?]) ", row["completion"])
        assert len(set(sentences)) == len(sentences), row["completion"]
        assert all(sentence[0].isupper() or sentence[0].isdigit() for sentence in sentences), row["completion"]
        assert row["completion"][-1] in ".!?"


def test_no_slot_or_doubled_word_is_left_in_the_text(dialogues: list[dict[str, str]]) -> None:
    for row in dialogues:
        text = f"{row['prompt']} {row['completion']}"
        assert not re.search(r"[{}\[\]|]|  ", text), text
        assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text
        assert not re.search(r"\ba [aeiou](?!ne\b|uro|ni|se)|\ban [^aeiouhAEIOU]", text), text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small quickstart that nobody interrupted."""
    folder = tmp_path_factory.mktemp("quickstart") / "home"
    quickstart(folder, run, SMALL)
    return folder


def test_the_line_goes_from_dialogues_to_a_report(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickstart(home, run, SMALL)
    left = {path.name for path in home.iterdir()}
    assert {"rewards.yaml", "prompts.jsonl", "policy", "samples.jsonl", "eval.json", "report.html", "run.sh"} <= left
    evaluation = json.loads((home / "eval.json").read_text())
    assert {policy["name"] for policy in evaluation["policies"].values()} == {"policy", "plain"}
    assert [mix["weights"] for mix in evaluation["tradeoff"]].count({"kindness": 1.0, "detail": 1.0}) == 1
    shown = capsys.readouterr().out
    assert "kindness: 0.90" in shown
    assert "detail: 0.10" in shown


@pytest.mark.slow  # draws the report again
def test_a_second_run_does_nothing_again(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.glob("*samples*.jsonl")}
    quickstart(home, run, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in home.glob("*samples*.jsonl")}


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_to_the_same_figures(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ALONE, str(tmp_path / "home"), *map(str, astuple(SMALL))]
    rng = random.Random(5)
    for sign in ("scored.jsonl.run.json", "policy.partial", "plain.partial/metrics.jsonl", "samples.jsonl.partial"):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until((tmp_path / "home" / sign).exists, 240)
        time.sleep(rng.uniform(0, 0.2))
        child.kill()
        assert child.wait() == -signal.SIGKILL, f"{sign}: ended before it could be killed"
    subprocess.run(command, check=True, capture_output=True)
    assert _figures(tmp_path / "home") == _figures(home)


def _figures(folder: Path) -> dict[str, Any]:
    evaluation: dict[str, Any] = json.loads((folder / "eval.json").read_text())
    return evaluation


def test_a_file_that_somebody_changed_is_not_replaced(tmp_path: Path) -> None:
    write_inputs(tmp_path, SMALL, steps(SMALL))
    (tmp_path / "scorers.py").write_text("mine = 1\n")
    with pytest.raises(ConfigError, match="choose another folder"):
        write_inputs(tmp_path, SMALL, steps(SMALL))
    assert (tmp_path / "scorers.py").read_text() == "mine = 1\n"


def test_run_sh_holds_the_very_commands(tmp_path: Path) -> None:
    line = steps(SMALL)
    write_inputs(tmp_path, SMALL, line)
    script = (tmp_path / "run.sh").read_text().splitlines()
    assert [row for row in script if row.startswith("irlhf")] == [f"irlhf {step.command}" for step in line]


def test_init_makes_a_folder_that_runs(tmp_path: Path) -> None:
    run(["init", str(tmp_path / "mine")])
    assert names(tmp_path / "mine") == {"rewards.yaml", "template.yaml", "run.sh", "templates"}
    assert "bins.yaml" in names(tmp_path / "mine" / "templates")
    again = CliRunner().invoke(app, ["init", str(tmp_path / "mine")])
    assert again.exit_code == 2
    assert "already exists" in again.stderr


def test_run_sh_of_init_finds_data_from_where_you_stand(tmp_path: Path) -> None:
    run(["init", "mine"])
    (tmp_path / "rows.jsonl").write_text('{"odd": 1}\n')
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    line = subprocess.run(
        ["mine/run.sh"],
        env={**os.environ, "PATH": path, "DATA": "rows.jsonl"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert line.returncode == 1
    assert f"{tmp_path / 'rows.jsonl'}:1: no known format has the keys odd" in line.stderr
