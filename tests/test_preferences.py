"""eval of preference pairs, from the shell to eval.json. The figures themselves are held in test_pairs.py."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import Bench, Row, call, example, process, write

from irlhf.policy.policy_file import read_policy

HIGHER, LOWER = "r: {scorer: length}", "r: {scorer: length, direction: lower}"


def pairs(count: int = 60, **fields: Any) -> list[Row]:
    """Scored pairs of which three of four prefer the chosen side; chosen completions are a word longer."""
    rows = []
    for i in range(count):
        chosen, rejected = (0.0, 1.0) if i % 4 == 0 else (1.0, 0.0)
        known = {"prompt": "p", "group": f"g{i}", "split": "test"}
        sides: Mapping[str, Row] = {
            "chosen": {"completion": "two words", "rewards": {"r": chosen}},
            "rejected": {"completion": "word", "rewards": {"r": rejected}},
        }
        rows += [{"id": f"{i}{side}", "label": side, **known, **mine, **fields} for side, mine in sides.items()]
    return rows


def evaluated(rows: Sequence[Row], rewards: str = "") -> dict[str, Any]:
    """Return what eval finds in the pairs, by the program."""
    write(Path("scored.jsonl"), rows)
    Path("rewards.yaml").write_text(f"rewards:\n  {rewards}\n")
    outcome = call("eval", "scored.jsonl", *(("-r", "rewards.yaml") if rewards else ()), "--resamples", 100)
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(Path("eval.json").read_text())["pairs"]
    return found


def test_accuracy_of_each_reward_on_the_chosen_completions() -> None:
    found = evaluated(pairs())
    reward = found["rewards"]["r"]
    assert (reward["n"], reward["prompts"], reward["accuracy"]["value"]) == (60, 60, 0.75)
    assert (reward["longer"]["value"], reward["above_rule"]["value"]) == (1, -0.25)
    assert 0.5 < reward["accuracy"]["low"] < 0.75 < reward["accuracy"]["high"] < 1
    assert found["counts"] == {"rows": 120, "pairs": 60, "unlabelled": 0, "ungrouped": 0, "alone": 0, "equal": 0}
    assert (found["splits"], found["gold"]) == ({"test": 60}, {})


def test_the_summary_agrees_with_the_file() -> None:
    write(Path("scored.jsonl"), pairs())
    outcome = call("eval", "scored.jsonl", "--resamples", 100, "--json")
    summary = json.loads(outcome.out)
    low, high = (100 * summary["pairs"]["rewards"]["r"]["accuracy"][side] for side in ("low", "high"))
    line = f"r: 75.0% [{low:.1f}, {high:.1f}] of 60 pairs; always the longer 100.0%, always the shorter 0.0%\n"
    assert line in outcome.err
    assert "r taken as higher is better" in outcome.err
    assert {**summary, "output": None} == {**json.loads(Path("eval.json").read_text()), "output": None}


def test_rewards_yaml_sets_the_direction() -> None:
    found = evaluated(pairs(gold={"r": 1.0}), LOWER)["rewards"]["r"]
    assert (found["direction"], found["accuracy"]["value"]) == ("lower", 0.25)


@pytest.mark.parametrize(("rewards", "accuracy"), [("", 1), (HIGHER, 1), (LOWER, 0)])
def test_gold_has_the_direction_of_its_reward(rewards: str, accuracy: float) -> None:
    rows = [{**row, "gold": {"r": 5.0 if row["label"] == "chosen" else 2.0}} for row in pairs()]
    assert evaluated(rows, rewards)["gold"]["r"]["accuracy"]["value"] == accuracy


@pytest.mark.parametrize(
    ("rewards", "calibrated"),
    [
        ('r: {scorer: "hf:somebody/rm"}', True),
        ("r: {scorer: ./rm}", True),
        ("r: {scorer: ./rm, read: probability}", False),
        ('r: {scorer: "hf:somebody/classifier", label: polite}', False),
        (HIGHER, False),
        ("r: {column: r}", False),
        ("", False),
    ],
)
def test_only_logits_of_a_reward_model_are_calibrated(rewards: str, calibrated: bool) -> None:
    assert ("calibration" in evaluated(pairs(), rewards)["rewards"]["r"]) == calibrated


def test_a_reward_has_the_pairs_that_have_it_on_both_sides() -> None:
    rows = pairs()
    for row in rows[:20]:
        row["rewards"]["half"] = 1.0
    del rows[0]["rewards"]["half"]
    found = evaluated(rows)["rewards"]
    assert (found["r"]["n"], found["half"]["n"], found["half"]["ties"]["value"]) == (60, 9, 1)


def test_pairs_of_several_files_are_evaluated_together() -> None:
    rows = pairs()
    write(Path("a.jsonl"), rows[:33])  # the file ends within a pair
    write(Path("b.jsonl"), rows[33:])
    assert call("eval", "a.jsonl", "b.jsonl").code == 0
    found = json.loads(Path("eval.json").read_text())
    assert found["pairs"]["counts"]["pairs"] == 60
    assert [one["rows"] for one in found["provenance"]["inputs"]] == [33, 87]


def test_pairs_come_from_a_pipe() -> None:
    made = process("eval", "-", "-o", "-", given=write(Path("scored.jsonl"), pairs()).read_bytes())
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["pairs"]["rewards"]["r"]["n"] == 60


def test_rows_that_make_no_pair_are_reported() -> None:
    alone = [example(i, label="chosen", group=f"x{i}", rewards={"r": 1.0}) for i in range(3)]
    write(Path("scored.jsonl"), [*pairs(), *alone, example(3, label="rejected", rewards={"r": 1.0})])
    told = "124 rows make 60 pairs; left out: 1 rows without a group, 3 rows without a counterpart\n"
    assert told in call("eval", "scored.jsonl").err


def test_training_pairs_and_few_prompts_are_warned_of() -> None:
    write(Path("scored.jsonl"), pairs(20, split="train"))
    told = call("eval", "scored.jsonl", "-q").err
    assert "20 pairs are of the train split, which a reward model may have memorised" in told
    assert "intervals from fewer than 50 prompts are too narrow: pairs (20)" in told


def test_rows_of_both_kinds_are_refused(bench: Bench) -> None:
    sample = example(policy=read_policy(bench.policy).digest, target={"short": "0.5"}, asked={"short": 0.5})
    for rows in ([*pairs(2), sample], [sample, *pairs(2)]):
        write(Path("scored.jsonl"), rows)
        outcome = call("eval", "scored.jsonl", "--policy", bench.policy)
        assert (outcome.code, outcome.err.count("\n")) == (1, 1)
        assert "is of another kind than the rows before it" in outcome.err


@pytest.mark.parametrize("label", ["", "better"])
def test_a_row_of_no_kind_is_an_error_that_says_what_eval_reads(label: str) -> None:
    write(Path("scored.jsonl"), [*pairs(2), example(7, label=label, rewards={"r": 1.0})])
    outcome = call("eval", "scored.jsonl")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "e7 has neither a 'policy' nor a label chosen or rejected" in outcome.err
    assert "samples, which have a 'policy', or preference pairs" in outcome.err


@pytest.mark.parametrize(
    ("rows", "options", "code", "told"),
    [
        (pairs(5, rewards={}), (), 1, "scored.jsonl: none of 5 pairs has a reward on both sides; score the rows first"),
        (pairs(5, group=""), (), 1, "scored.jsonl: no pairs in 10 rows (10 rows without a group)"),
        (pairs(5)[::2], (), 1, "no pairs in 5 rows (5 rows without a counterpart)"),
        (pairs(5, completion="c"), (), 1, "no pairs in 10 rows (5 pairs of equal completions)"),
        (pairs(5), ("--policy", "policy"), 2, "--policy: does not apply to preference pairs"),
        (pairs(5), ("--calibrate", "policy"), 2, "--calibrate: does not apply to preference pairs"),
        (pairs(5), ("-r", "nowhere.yaml"), 2, "nowhere.yaml"),
        (pairs(5), ("./scored.jsonl",), 2, "named twice"),
        (pairs(5), ("copy.jsonl",), 1, "id '0chosen' occurs in two files"),
        (pairs(5), ("empty.jsonl",), 1, "empty.jsonl: the file has no rows"),
    ],
)
def test_pairs_that_cannot_be_evaluated_are_a_one_line_error(
    rows: list[Row], options: tuple[str, ...], code: int, told: str
) -> None:
    for name in ("scored.jsonl", "copy.jsonl"):
        write(Path(name), rows)
    Path("empty.jsonl").touch()
    outcome = call("eval", "scored.jsonl", *options)
    assert (outcome.code, outcome.err.count("\n")) == (code, 1)
    assert told in outcome.err
    assert not Path("eval.json").exists()


def test_samples_need_no_rewards_yaml(bench: Bench) -> None:
    digest = read_policy(bench.policy).digest
    asked = {"target": {"short": "0.5"}, "asked": {"short": 0.5}, "rewards": {"short": 9.0}}
    write(Path("samples.jsonl"), [example(i, policy=digest, **asked) for i in range(3)])
    outcome = call("eval", "samples.jsonl", "--policy", bench.policy, "-r", bench.rewards)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "-r applies to preference pairs" in outcome.err


def test_rewards_in_units_of_ratings_have_no_log_loss() -> None:
    write(Path("scored.jsonl"), pairs())
    Path("rm").mkdir()
    Path("rewards.yaml").write_text("rewards: {r: {scorer: ./rm}}")
    found = {}
    for rated in ("", "clarity"):
        described = {"version": 1, "base": "tiny", "settings": {"reward": rated}, "data": {}}
        Path("rm/reward.json").write_text(json.dumps(described))
        done = call("eval", "scored.jsonl", "-r", "rewards.yaml", "--resamples", 100, "--json")
        found[rated] = json.loads(done.out)["pairs"]["rewards"]["r"]
    assert "calibration" in found[""]
    assert "calibration" not in found["clarity"]
