"""The quickstart: its corpus, its line of commands, what it leaves behind."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from irlhf.cli import app
from irlhf.quickstart import QuickstartSettings, quickstart, steps, write_inputs
from irlhf.quickstart.corpus import TOPICS, generate

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


def test_the_line_goes_from_dialogues_to_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickstart(tmp_path / "home", run, SMALL)
    left = {path.name for path in (tmp_path / "home").iterdir()}
    assert {"rewards.yaml", "prompts.jsonl", "policy", "samples.jsonl", "eval.json", "report.html", "run.sh"} <= left
    evaluation = json.loads((tmp_path / "home" / "eval.json").read_text())
    assert {policy["name"] for policy in evaluation["policies"].values()} == {"policy", "plain"}
    assert [mix["weights"] for mix in evaluation["tradeoff"]].count({"kindness": 1.0, "detail": 1.0}) == 1
    shown = capsys.readouterr().out
    assert "kindness: 0.90" in shown
    assert "detail: 0.10" in shown


def test_a_second_run_does_nothing_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    quickstart(home, run, SMALL)
    before = {path: path.stat().st_mtime_ns for path in home.glob("*samples*.jsonl")}
    quickstart(home, run, SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in home.glob("*samples*.jsonl")}


def test_run_sh_holds_the_very_commands(tmp_path: Path) -> None:
    line = steps(SMALL)
    write_inputs(tmp_path, SMALL, line)
    script = (tmp_path / "run.sh").read_text().splitlines()
    assert [row for row in script if row.startswith("irlhf")] == [f"irlhf {step.command}" for step in line]


def test_init_makes_a_folder_that_runs(tmp_path: Path) -> None:
    run(["init", str(tmp_path / "mine")])
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"rewards.yaml", "template.yaml", "run.sh"}
    again = CliRunner().invoke(app, ["init", str(tmp_path / "mine")])
    assert again.exit_code == 2
    assert "is there already" in again.stderr
