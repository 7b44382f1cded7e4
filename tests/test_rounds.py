"""Rounds: what is asked, chosen and trained on, and what is watched."""

import json
import shutil
from collections import Counter
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
from helpers import call, examples, names, read, slow_after, write

from irlhf.models.loading import counter
from irlhf.policy.policy_file import read_policy

REWARDS = """
rewards:
  short: {scorer: length, direction: lower, weight: 2}
  varied: {scorer: "regex: [aeiou]"}
gold:
  short: {scorer: length, direction: lower}
  varied: {scorer: "regex: [aeiou]"}
"""
LINE = ("--rounds", 2, "--prompts", 6, "--samples", 4, "--eval-prompts", 5, "--max-tokens", 12)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scored rows, a policy, and rounds."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "rewards.yaml").write_text(REWARDS)
    write(folder / "examples.jsonl", examples(120))
    for line in (
        ("score", folder / "examples.jsonl", "-r", folder / "rewards.yaml", "-o", folder / "scored.jsonl"),
        ("finetune", folder / "scored.jsonl", "-r", folder / "rewards.yaml", "--epochs", 4, "-o", folder / "policy"),
        rounds(folder, *guarded(folder)),
    ):
        done = call(*line)
        assert done.code == 0, done.err
    return folder


def rounds(folder: Path, *more: object) -> tuple[object, ...]:
    scored, rewards = folder / "scored.jsonl", folder / "rewards.yaml"
    return ("rounds", scored, "-r", rewards, "--model", folder / "policy", *LINE, *more)


def guarded(folder: Path) -> tuple[object, ...]:
    return ("-o", folder / "out", "--keep", "distinct,entropy-share=0.25")


def told(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "out" / "rounds.json").read_text())
    return found


def test_every_round_is_a_folder_of_plain_files(home: Path) -> None:
    made = {"prompts", "samples", "scored", "kept", "train", "watch-data", "watch-mix", "gold-mix"}
    assert {f"{name}.jsonl" for name in made} | {"policy", "eval.json", "round.json"} <= names(home / "out" / "round-2")
    (home / "again").mkdir()
    assert (
        call(
            "eval",
            home / "out/round-1/gold-mix.jsonl",
            "--policy",
            home / "out/round-1/policy",
            "-o",
            home / "again/eval.json",
        ).code
        == 0
    )


def test_a_round_trains_on_from_the_one_before_and_keeps_its_scales(home: Path) -> None:
    first = read_policy(home / "policy")
    one, two = (read_policy(home / "out" / f"round-{number}" / "policy") for number in (1, 2))
    assert (one.rewards, two.rewards, two.reservoir) == (first.rewards, first.rewards, first.reservoir)
    assert two.base.endswith("round-1/policy")
    assert {row["policy"] for row in read(home / "out/round-1/samples.jsonl")} == {first.digest}
    assert {row["policy"] for row in read(home / "out/round-2/samples.jsonl")} == {one.digest}


def test_only_training_prompts_are_asked_and_none_twice_before_all(home: Path) -> None:
    asked = [row for number in (1, 2) for row in read(home / "out" / f"round-{number}" / "prompts.jsonl")]
    assert {row["split"] for row in asked} == {"train"}
    assert len({row["id"] for row in asked}) == len(asked) == 12
    watched = read(home / "out/watch.jsonl")
    assert [row["split"] for row in watched] == ["validation"] * 5


def test_samples_are_trained_on_with_the_rewards_that_they_got(home: Path) -> None:
    train = {row["id"]: row for row in read(home / "out/round-1/train.jsonl")}
    kept = read(home / "out/round-1/kept.jsonl")
    assert all(train[row["id"]]["rewards"] == row["rewards"] for row in kept)
    assert all(row["rewards"]["short"] == len(row["completion"].split()) for row in kept)
    offline = [row for row in train.values() if not row.get("policy")]
    count = counter(str(home / "policy"))
    sizes = [sum(count(row["completion"]) + 1 for row in rows) for rows in (kept, offline)]
    assert 0.8 < sizes[1] / sizes[0] < 1.3


def test_what_is_watched_is_asked_the_same_of_every_policy(home: Path) -> None:
    asked = [
        [
            (row["group"], row["asked"], row["seed"])
            for row in read(home / "out" / f"round-{number}" / "watch-mix.jsonl")
        ]
        for number in (0, 1, 2)
    ]
    assert asked[0] == asked[1] == asked[2]
    assert Counter(group for group, _, _ in asked[0]) == {group: 4 for group, _, _ in asked[0]}


def test_the_figures_are_those_of_the_files(home: Path) -> None:
    last = told(home)["rounds"][2]
    rows = read(home / "out/round-2/gold-mix.jsonl")
    card = read_policy(home / "policy")
    weighted = [
        (
            2 * card.reward("short").zscore(row["rewards"]["short"])
            + card.reward("varied").zscore(row["rewards"]["varied"])
        )
        / 3
        for row in rows
    ]
    assert last["reward"]["value"] == pytest.approx(sum(weighted) / len(weighted))
    gold = 0.0
    for name, weight in (("short", -2 / 3), ("varied", 1 / 3)):
        base = [row["gold"][name] for row in read(home / "out/round-0/gold-data.jsonl")]
        gold += weight * fmean((row["gold"][name] - fmean(base)) / pstdev(base) for row in rows)
    assert last["gold"]["value"] == pytest.approx(gold)
    assert last["reward"]["low"] <= last["reward"]["value"] <= last["reward"]["high"]
    assert json.loads((home / "out/round-2/round.json").read_text())["gold"] == last["gold"]


@pytest.mark.slow
def test_several_runs_of_rounds_are_drawn_side_by_side(home: Path) -> None:
    Path("old.json").write_text(json.dumps(as_version_1(told(home))))
    done = call("plot", home / "out/rounds.json", "old.json", "--format", "svg")
    assert done.code == 0, done.err
    assert names(Path("plots")) == {"rounds.svg", "rounds-target-actual.svg", "rounds-kept.svg", "report.html"}
    drawn = Path("plots/rounds.svg").read_text()
    assert all(f"<!-- {name} -->" in drawn for name in ("out", "online", "expert"))
    assert "not available: distinct-2, distinct completions" in drawn


def as_version_1(found: dict[str, Any]) -> dict[str, Any]:
    """Return a rounds.json as versions wrote it that ran controls beside the rounds."""
    arms = [{"name": name, "keep": "", "rounds": found["rounds"]} for name in ("online", "expert")]
    return {"version": 1, "names": found["names"], "settings": found["settings"], "arms": arms}


@pytest.mark.slow
def test_one_round_without_gold_is_drawn(home: Path) -> None:
    Path("rewards.yaml").write_text(REWARDS.partition("gold:")[0])
    done = call(*rounds(home, "-r", "rewards.yaml", "--rounds", 1, "-o", "out"))
    assert done.code == 0, done.err
    assert call("plot", "out/rounds.json").code == 0
    assert names(Path("plots")) == {"rounds.png", "rounds-target-actual.png", "report.html"}


def test_the_policy_to_take_is_linked(home: Path) -> None:
    assert read_policy(home / "out/policy").digest == read_policy(Path(str(told(home)["rounds"][-1]["policy"]))).digest


def test_the_same_rounds_again_have_nothing_to_do(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (home / "out").rglob("*.jsonl")}
    done = call(
        *rounds(home, "-o", home / "out"),
        "--keep",
        "distinct,entropy-share=0.25",
    )
    assert done.code == 0
    assert "is complete already: nothing to do" in done.err
    assert {path: path.stat().st_mtime_ns for path in (home / "out").rglob("*.jsonl")} == before
    done = call(*rounds(home, "-o", home / "out", "--replay", "0.3"))
    assert done.code == 2
    assert "belongs to a different run" in done.err


@pytest.mark.parametrize("ask", slow_after(1, ["past", "uniform", "data", "high"]))
def test_every_way_to_ask(ask: str, home: Path) -> None:
    done = call(*rounds(home, "--request", ask, "-o", "out"))
    assert done.code == 0, done.err
    asked = json.loads(Path("out/round-2/round.json").read_text())["asked"]
    assert asked[::2] == ["-t", "-t"]
    assert {one.partition("=")[0] for one in asked[1::2]} == {"short", "varied"}
    rows = read(Path("out/round-2/samples.jsonl"))
    assert len(rows) == 24
    if ask == "past":
        assert len({tuple(row["asked"].values()) for row in rows}) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--model", "tiny"), "--model tiny: rounds start from a policy folder; train one first"),
        (("--request", "hgih"), "unknown --request 'hgih'; did you mean 'high'?"),
        (("--keep", "best"), "this keeps one sample per prompt"),
        (("--keep", "frnt"), "unknown rule 'frnt'; did you mean 'front'?"),
        (("--objective", "contrst"), "unknown objective 'contrst'"),
        (("--max-spend", "3"), "needs hosted training"),
    ],
)
def test_what_rounds_cannot_do_is_refused_before_anything_is_done(more: tuple[str, str], said: str, home: Path) -> None:
    done = call(*rounds(home, "-o", "new"), *more)
    assert done.code in (1, 2)
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not Path("new").exists()


def test_it_stops_where_gold_falls_and_the_rewards_rise(home: Path) -> None:
    Path("other.py").write_text("def longer(rows): return [-len(row.completion.split()) for row in rows]")
    short = "short: {scorer: length, direction: lower}"
    Path("rewards.yaml").write_text(f"rewards: {{{short}}}\ngold: {{{short.replace('length', 'other:longer')}}}\n")
    shutil.copytree(home / "policy", "policy")
    card = json.loads(Path("policy/policy.json").read_text())
    alone = {"rewards": card["rewards"][:1], "reservoir": [one[:1] for one in card["reservoir"]]}
    Path("policy/policy.json").write_text(json.dumps({**card, **alone}))
    size = ("--rounds", 4, "--prompts", 12, "--samples", 8, "--eval-prompts", 11)
    more = (*size, "--keep", "top=0.25", "--replay", 0, "--learning-rate", 0.01, "--epochs", 4, "-o", "out")
    done = call(*rounds(home, "-r", "rewards.yaml", "--model", "policy", *more))
    assert done.code == 0, done.err
    rows = json.loads(Path("out/rounds.json").read_text())["rounds"]
    last, before = rows[-1], rows[-2]
    assert "gold fell" in last
    assert last["gold"]["value"] < before["gold"]["value"]
    assert last["reward"]["value"] > before["reward"]["value"]
    assert Path("out/policy").resolve() == Path(before["policy"]).resolve()
    assert f"stopped, use {before['policy']}" in done.err
