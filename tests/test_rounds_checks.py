"""Rounds in careless hands: what cannot end well is one line before anything is drawn, and nothing is lost silently."""

import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from helpers import IRLHF, Outcome, call, examples, names, process, read, wait_until, write

from irlhf.training.settings import FinetuneSettings

REWARDS = """
rewards:
  short: {scorer: length, direction: lower, weight: 2}
  varied: {scorer: "regex: [aeiou]"}
"""
MOODY = """
from irlhf.scoring.scorers.base import Failure

def some(examples):
    return [Failure("it is odd") if sum(map(ord, one.id)) % 3 == 0 else len(one.completion) for one in examples]

def none(examples):
    return [Failure("it never works") for one in examples]
"""
ROUND = ("--rounds", 1, "--prompts", 4, "--samples", 2, "--eval-prompts", 4, "--max-tokens", 4)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scored rows and a policy."""
    folder = tmp_path_factory.mktemp("care")
    (folder / "rewards.yaml").write_text(REWARDS)
    write(folder / "examples.jsonl", examples(60))
    scored = folder / "scored.jsonl"
    assert call("score", folder / "examples.jsonl", "-r", folder / "rewards.yaml", "-o", scored, "-q").code == 0
    trained(folder, "policy", scored)
    return folder


def trained(folder: Path, name: str, scored: Path, rewards: str = REWARDS, *more: object) -> None:
    file = folder / f"{name}.yaml"
    file.write_text(rewards)
    done = call("finetune", scored, "-r", file, "--epochs", 1, "-q", "-o", folder / name, *more)
    assert done.code == 0, done.err


def line(home: Path, *more: object, rewards: str = REWARDS, rows: Callable[[list[Any]], list[Any]] = list) -> list[str]:
    """Return the command of a round with this rewards.yaml and with the scored rows changed so."""
    Path("rewards.yaml").write_text(rewards)
    write(Path("scored.jsonl"), rows(read(home / "scored.jsonl")))
    given = ["rounds", "scored.jsonl", "-r", "rewards.yaml", "--model", home / "policy", *ROUND, "-o", "out", *more]
    return [str(one) for one in given]


def run(home: Path, *more: object, **changed: Any) -> Outcome:
    return call(*line(home, *more, **changed))


def of(split: str, count: int = 99) -> Callable[[list[Any]], list[Any]]:
    """Return what keeps so many rows of a split, and all others."""

    def kept(rows: list[Any]) -> list[Any]:
        mine = [row for row in rows if row["split"] == split]
        return [*mine[:count], *(row for row in rows if row["split"] != split)]

    return kept


OTHER_COLUMN = REWARDS.replace('scorer: "regex: [aeiou]"', "column: colour")


@pytest.mark.parametrize(
    ("changed", "more", "said"),
    [
        (
            {"rewards": REWARDS.replace("varied", "other")},
            (),
            "the policy has the rewards short (lower), varied (higher); use",
        ),
        (
            {"rewards": REWARDS.replace("lower", "higher")},
            (),
            "the policy has the rewards short (lower), varied (higher); use",
        ),
        ({"rewards": OTHER_COLUMN}, (), "varied: new samples have no column colour"),
        ({"rewards": REWARDS + "gold: {short: {column: colour}}"}, (), "short: new samples have no column colour"),
        ({"rewards": REWARDS.replace("length", "lenght")}, (), "unknown scorer 'lenght'; did you mean 'length'?"),
        ({"rows": of("validation", 0)}, (), "scored.jsonl: no prompts of the validation split"),
        ({"rows": of("train", 0)}, (), "scored.jsonl: no rows of the training split with one of the rewards"),
        ({}, ("-o", "-"), "the output of rounds is a folder and cannot go to stdout"),
        ({}, ("-o", "no/such"), "no: the folder of the output does not exist"),
        ({}, ("-o", "rewards.yaml"), "rewards.yaml is both the output and the rewards"),
        (
            {},
            ("-o", "theirs"),
            "theirs holds files that are not from rounds; choose another output, or move the folder",
        ),
        ({}, ("--yes",), "--yes needs hosted training"),
    ],
)
def test_what_cannot_end_well_is_refused_before_anything_is_drawn(
    changed: dict[str, Any], more: tuple[str, ...], said: str, home: Path
) -> None:
    Path("theirs").mkdir()
    Path("theirs/precious").touch()
    done = run(home, *more, **changed)
    assert done.code in (1, 2)
    assert (done.err.count("\n"), done.out) == (1, ""), done.err
    assert said in done.err
    assert names(Path.cwd()) == {"rewards.yaml", "scored.jsonl", "theirs"}
    assert names(Path("theirs")) == {"precious"}


def test_samples_that_a_scorer_fails_on_are_counted_and_said(home: Path) -> None:
    Path("moody.py").write_text(MOODY)
    done = run(home, rewards=REWARDS.replace('"regex: [aeiou]"', '"moody:some"'))
    assert done.code == 0, done.err
    aside = len(read(Path("out/round-1/scored.jsonl.rejected.jsonl")))
    figures = json.loads(Path("out/round-1/round.json").read_text())
    assert figures["without reward"] == aside > 0
    assert figures["scorer calls"] == 8 - aside
    assert f"{aside} of the samples in out/round-1/samples.jsonl could not be scored and are skipped" in done.err


def test_a_scorer_that_fails_on_every_sample_is_one_line(home: Path) -> None:
    Path("moody.py").write_text(MOODY)
    done = run(home, "-q", rewards=REWARDS.replace('"regex: [aeiou]"', '"moody:none"'))
    errors = [line for line in done.err.splitlines() if not line.startswith("warning: this policy ignores")]
    assert (done.code, len(errors)) == (1, 1), done.err
    assert (
        "no sample could be scored: it never works; fix the scorer, then delete out/round-0/watched-data.jsonl"
        in done.err
    )


def test_of_few_prompts_all_are_asked_and_no_more_is_learnt_than_from_their_samples(home: Path) -> None:
    done = run(home, "--prompts", 99, rows=of("train", 3))
    assert done.code == 0, done.err
    assert "scored.jsonl: 3 training prompts, fewer than --prompts 99; every round samples all of them" in done.err
    assert len(read(Path("out/round-1/samples.jsonl"))) == 6
    learnt = json.loads(Path("out/round-1/round.json").read_text())["training"]
    assert learnt["epochs"] * learnt["completion tokens"] < 500


def test_a_round_trains_with_every_setting_that_was_given(home: Path) -> None:
    given = {"batch": 8, "context": 96, "drop": 0.2, "drop_all": 0.05, "accumulate": 2}
    done = run(home, *(part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", value)))
    assert done.code == 0, done.err
    used = json.loads(Path("out/round-1/policy/policy.json").read_text())["training"]["settings"]
    of_the_round = {"rewards": "rewards.yaml", "like": str(home / "policy"), "seed": 1}
    chosen = {"epochs", "learning_rate", "precision"}
    expected = {**asdict(FinetuneSettings()), **given, **of_the_round}
    assert {name: used[name] for name in used.keys() - chosen} == {
        name: expected[name] for name in expected.keys() - chosen
    }


SUM, ZSCORE = REWARDS + "combine: sum\n", REWARDS.replace("weight: 2", "weight: 2, scale: {kind: zscore}")
KINDS = [
    ("high", SUM, "reward-end"),
    pytest.param("past", REWARDS, "at-least", marks=pytest.mark.slow),
    pytest.param("high", ZSCORE, "reward-system", marks=pytest.mark.slow),
    pytest.param("past", SUM, "reward-end", marks=pytest.mark.slow),
    pytest.param("high", REWARDS, "at-least", marks=pytest.mark.slow),
    pytest.param("past", ZSCORE, "reward-system", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("ask", "rewards", "template"), KINDS)
def test_every_kind_of_policy_goes_on(ask: str, rewards: str, template: str, home: Path) -> None:
    trained(Path(), "mine", home / "scored.jsonl", rewards, "--template", template)
    more = ("--model", "mine", "--request", ask, "--rounds", 2, "--keep", "distinct,front")
    done = run(home, *more, rewards=rewards)
    assert done.code == 0, done.err
    assert json.loads(Path("out/rounds.json").read_text())["rounds"][2]["reward"]


def test_conversations_with_a_system_turn_go_on(home: Path) -> None:
    before = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    before.append({"role": "assistant", "content": "Hello."})

    def spoken(rows: list[Any]) -> list[Any]:
        return [{**row, "prompt": [*before, {"role": "user", "content": row["prompt"]}]} for row in rows]

    done = run(home, rows=spoken)
    assert done.code == 0, done.err
    assert [one["role"] for one in read(Path("out/round-1/samples.jsonl"))[0]["prompt"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]


def test_rounds_that_are_not_done_refuse_other_settings_by_name(home: Path) -> None:
    assert run(home).code == 0
    Path("out/rounds.json").unlink()
    shutil.rmtree("out/round-1")
    done = run(home, "--prompts", 5)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "out/rounds.json belongs to a different run: prompts was 4 and is 5" in done.err
    assert "delete out to start over" in done.err
    assert run(home, "--json").code == 0
    assert json.loads(run(home, "--json").out) == {"output": "out", "finished": True, "already_finished": True}


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_with_room_it_goes_on(home: Path) -> None:
    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # less than the weights take

    command = line(home, "-q")
    full = process(*command, preexec_fn=small_disk)
    told = [one for one in full.stderr.decode().splitlines() if not one.startswith("warning")]
    assert (full.returncode, len(told)) == (4, 1), full.stderr
    assert "out/round-1/policy.partial: cannot be written" in told[0]
    assert "policy" not in names(Path("out/round-1"))
    assert call(*command).code == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_is_stopped_says_so_in_one_line_and_goes_on(number: int, code: int, home: Path) -> None:
    command = line(home, "-q")
    with subprocess.Popen([*IRLHF, *command], stderr=subprocess.PIPE) as one:
        wait_until(lambda: one.poll() is not None or Path("out/round-1/policy.partial").exists())
        one.send_signal(number)
        _, said = one.communicate()
    assert one.returncode == code
    told = [one for one in said.decode().splitlines() if not one.startswith("warning")]
    assert told == ["irlhf: stopped; the same command resumes"]
    assert call(*command).code == 0
    assert names(Path("out")) == {"round-0", "round-1", "policy", "watch.jsonl", "rounds.json", "rounds.json.run.json"}
