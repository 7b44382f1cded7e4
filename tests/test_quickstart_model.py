"""quickstart --model: from prompts alone to a policy and a report, on a pretrained base."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from helpers import Bench, call, read

from irlhf.core.example import SPLITS
from irlhf.models.loading import load_tokenizer
from irlhf.policy.policy_file import FILE
from irlhf.quickstart.pretrained import commands, embedded_prompts, make_plan, quickstart_pretrained
from irlhf.quickstart.settings import PretrainedSettings
from irlhf.quickstart.summary import side_by_side, verdict
from irlhf.quickstart.timing import Pace, measure_pace

SMALL = PretrainedSettings(limit=20, samples=2, max_tokens=24, epochs=1)
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# The path in a process of its own, as the command runs it.
ALONE = """
import sys
from typer.main import get_command
from irlhf.cli.app import app
from irlhf.quickstart.settings import PretrainedSettings; from irlhf.quickstart.pretrained import quickstart_pretrained
folder, model, seed, limit, samples, max_tokens, epochs = sys.argv[1:]
settings = PretrainedSettings(int(seed), int(limit), int(samples), int(max_tokens), float(epochs))
group = get_command(app)
quickstart_pretrained(folder, lambda line: group.main(list(line), standalone_mode=False), model, settings)
"""


def run(arguments: Sequence[str]) -> None:
    outcome = call(*arguments)
    assert outcome.code == 0, outcome.err


@pytest.fixture(scope="module")
def base(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama with a tokenizer and a chat template, in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("bases") / "a base"
    folder.mkdir()
    for path in bench.policy.iterdir():
        if path.is_file() and path.name != FILE:
            (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def home(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run that was not interrupted."""
    folder = tmp_path_factory.mktemp("quickstart") / "home"
    quickstart_pretrained(folder, run, str(base), SMALL)
    return folder


def test_prompts_alone_become_a_policy_and_a_report(home: Path) -> None:
    left = {path.name for path in home.iterdir()}
    assert {"prompts.jsonl", "rewards.yaml", "word_length.py", "run.sh", "policy", "eval.json", "report.html"} <= left
    settings = json.loads((home / "policy" / FILE).read_text())["training"]["settings"]
    assert (settings["objective"], settings["lora"], settings["batch"]) == ("contrast", 32, 8)
    answers = read(home / "scored-answers.jsonl")
    test_prompts = {row["prompt"] for row in read(home / "prompts.jsonl") if row["split"] == "test"}
    assert {row["prompt"] for row in answers} == test_prompts
    assert len(answers) == 9 * len(test_prompts)
    assert {row["split"] for row in read(home / "samples.jsonl")} == {"train", "validation"}


def test_the_report_has_a_verdict_a_picture_and_answers_at_three_levels(home: Path) -> None:
    text = (home / "report.md").read_text()
    for name in ("plain", "personal"):
        assert f"`{name}`" in text.split("![")[0]
        assert f"## `{name}` at low, medium and high" in text
    assert (home / text.split("](")[1].split(")")[0]).read_bytes().startswith(b"\x89PNG")


def test_the_same_command_shows_the_result_again_and_repeats_no_work(
    home: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.glob("*.jsonl")}
    quickstart_pretrained(home, run, str(base), SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in home.glob("*.jsonl")}
    shown = capsys.readouterr()
    assert "plain: 0.10 (low)" in shown.out
    assert "rank correlation with the target" in " ".join(shown.out.split())
    assert "that was timed" not in shown.err  # nothing is left to be timed


def test_what_will_be_done_and_how_long_it_takes_stands_before_the_first_command(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class StoppedError(Exception):
        pass

    def stop(arguments: Sequence[str]) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        quickstart_pretrained(tmp_path / "home", stop, str(base), SMALL)
    announced = capsys.readouterr().err.split("[1/7")[0]
    assert "36 samples of at most 24 tokens, to 18 prompts" in announced
    assert "18 answers to 2 prompts" in announced
    assert "minutes in all, by a batch that was timed on this machine" in announced
    assert str(tmp_path / "home") in announced
    script = (tmp_path / "home" / "run.sh").read_text()
    assert f"--model '{base}'" in script


@pytest.mark.slow
def test_killed_anywhere_it_resumes_to_the_same_figures(home: Path, base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path / "home"), str(base), *map(str, astuple(SMALL))]
    for sign in ("samples.jsonl.run.json", "policy.partial"):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and not (tmp_path / "home" / sign).exists():
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -signal.SIGKILL, f"{sign}: ended before it could be killed"
    subprocess.run(command, check=True, capture_output=True)
    figures = [json.loads((folder / "eval.json").read_text()) for folder in (tmp_path / "home", home)]
    assert figures[0] == figures[1]


@pytest.mark.parametrize(
    ("model", "reason"), [("./nowhere", "no such folder"), ("tiny", "random weights"), (".", "no config.json")]
)
def test_a_base_that_cannot_be_loaded_is_one_line_and_leaves_nothing(model: str, reason: str) -> None:
    outcome = call("quickstart", "--model", model, "-o", "home")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert reason in outcome.err
    assert not Path("home").exists()


def test_a_base_without_its_weights_is_one_line_and_leaves_nothing(base: Path) -> None:
    Path("hollow").mkdir()
    for path in base.iterdir():
        if path.suffix != ".safetensors":
            (Path("hollow") / path.name).write_bytes(path.read_bytes())
    outcome = call("quickstart", "--model", "hollow", "-o", "home")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "no model of this kind in safetensors" in outcome.err
    assert not Path("home").exists()


@pytest.mark.parametrize(
    ("options", "reason"), [(("--limit", 40), "name a model"), (("--model", "x", "--limit", 5), "at least 20 prompts")]
)
def test_a_limit_needs_a_model_and_prompts_of_each_split(options: Sequence[object], reason: str, base: Path) -> None:
    outcome = call("quickstart", *(base if part == "x" else part for part in options), "-o", "home")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert reason in outcome.err


def test_another_seed_in_the_same_folder_is_refused(home: Path, base: Path) -> None:
    outcome = call("quickstart", "--model", base, "--seed", 1, "--limit", 20, "-o", home)
    assert outcome.code == 2
    assert "choose another folder with -o" in outcome.err


def test_the_embedded_prompts_are_distinct_and_split_by_their_number() -> None:
    prompts = embedded_prompts()
    assert 300 <= len(prompts) <= 400
    assert len({row["prompt"].lower() for row in prompts}) == len(prompts)
    shares = [sum(row["split"] == split for row in prompts) / len(prompts) for split in SPLITS]
    assert shares == pytest.approx([0.85, 0.05, 0.1])
    assert all(row["prompt"][-1] in ".?!" and len(row["prompt"]) < 100 for row in prompts)
    assert embedded_prompts(40) == prompts[:40]


def test_the_time_grows_with_what_is_to_be_done(base: Path) -> None:
    pace = measure_pace(str(base), ["How do I repot a fern?"] * 8, 8)
    assert 0 < pace.a_sample < 1
    assert 0 < pace.a_step < 60
    slow = commands(make_plan(str(base), SMALL), Pace(1.0, 10.0))
    assert [slow[0].seconds, slow[3].seconds] == [36, 2 * 18]
    fast = commands(make_plan(str(base), SMALL), Pace(0.5, 1.0))
    assert slow[0].seconds == 2 * fast[0].seconds
    assert slow[2].seconds == 10 * fast[2].seconds


def test_the_verdict_claims_no_more_than_its_interval() -> None:
    def figures(value: float, low: float, high: float) -> dict[str, Any]:
        return {"n": 324, "prompts": 36, "within": {"spearman": {"value": value, "low": low, "high": high}}}

    assert verdict("plain", figures(0.6, 0.5, 0.7)).startswith("The policy follows `plain`")
    assert "0.60 [0.50, 0.70] (324 answers to 36 prompts)" in verdict("plain", figures(0.6, 0.5, 0.7))
    nothing = verdict("plain", figures(0.1, -0.1, 0.3))
    assert nothing.startswith("The policy does not follow `plain`")
    assert "includes 0" in nothing
    assert "moves against" in verdict("plain", figures(-0.5, -0.7, -0.3))
    assert "not measurable" in verdict("plain", {"n": 18, "prompts": 2, "within": {"prompts": 0}})


def test_answers_side_by_side_differ_in_one_target() -> None:
    rows = [
        {"group": "g", "prompt": "p", "completion": f"{a}/{b}", "asked": {"plain": a + 0.01, "personal": b}}
        for a in (0.1, 0.5, 0.9)
        for b in (0.1, 0.5, 0.9)
    ]
    assert list(side_by_side(rows, "personal", 3)) == [("p", ["0.5/0.1", "0.5/0.5", "0.5/0.9"])]
    assert list(side_by_side(rows, "plain", 3)) == [("p", ["0.1/0.5", "0.5/0.5", "0.9/0.5"])]


@pytest.mark.slow
def test_the_path_holds_for_the_reference_base(tmp_path: Path) -> None:
    folder = os.environ.get("IRLHF_REFERENCE_BASE", "")
    if not Path(folder, "config.json").is_file():
        pytest.skip("IRLHF_REFERENCE_BASE names no folder with SmolLM2-135M-Instruct")
    settings = PretrainedSettings(limit=20, samples=2, max_tokens=12, epochs=0.5)
    quickstart_pretrained(tmp_path / "home", run, folder, settings)
    assert "--learning-rate 0.001" in (tmp_path / "home" / "run.sh").read_text()
    assert "within prompts" in (tmp_path / "home" / "report.md").read_text()
