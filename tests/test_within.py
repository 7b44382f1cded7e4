"""Scale `within`: the number in the prompt is the rank among the completions of the same prompt."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import Row, call, read, write
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from irlhf.core.errors import DataError
from irlhf.core.example import from_json
from irlhf.evaluation.arms import Arm
from irlhf.policy.policy_file import Policy, read_policy, write_policy
from irlhf.policy.scales import within_ranks
from irlhf.sampling.target_resolution import TargetSpec, read_targets
from irlhf.training.settings import FinetuneSettings
from irlhf.training.training_set import TrainingSet, read_training

YAML = """
rewards:
  helpful: {column: helpful, scale: {kind: within}}
  short: {column: short, direction: lower, scale: {kind: within}}
"""
SETTINGS = FinetuneSettings(template="reward-end", drop=0.0)
EACH = 5  # completions of a prompt; their ranks are 0.1, 0.3, 0.5, 0.7, 0.9


def rows(prompts: int = 40) -> list[Row]:
    """Five completions of each prompt; nearly all variance of both rewards lies between prompts."""
    return [
        {
            "id": f"e{number}-{i}",
            "prompt": f"Question {number}?",
            "completion": f"Answer {'so ' * i}{number}.",
            "group": f"g{number}",
            "split": "validation" if number % 5 == 0 else "train",
            "rewards": {"helpful": 100.0 * number + (i * (number % 4 + 1)) % EACH, "short": -70.0 * number + i},
        }
        for number in range(prompts)
        for i in range(EACH)
    ]


def files(given: list[Row], yaml: str = YAML) -> tuple[Path, Path]:
    Path("rewards.yaml").write_text(yaml)
    return write(Path("scored.jsonl"), given), Path("rewards.yaml")


def training() -> TrainingSet:
    scored, rewards = files(rows())
    return read_training(scored, FinetuneSettings(rewards=str(rewards), template="reward-end"))


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return training().policy("", SETTINGS)


def requested(policy: Policy, *targets: str, **fields: Any) -> list[dict[str, Any]]:
    return [
        one.prompt_values for one in TargetSpec(policy, read_targets(targets, policy), **fields).requests(100, "seed")
    ]


@given(
    given=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([-1.0, 0.0, 0.5, 2.0])), min_size=1),
    direction=st.sampled_from(["higher", "lower"]),
)
def test_a_number_is_the_mid_rank_that_scipy_gives_within_the_prompt(
    given: list[tuple[str, float]], direction: str
) -> None:
    found = within_ranks([reward for _, reward in given], [prompt for prompt, _ in given], direction)
    for prompt in {prompt for prompt, _ in given}:
        members = [i for i, (one, _) in enumerate(given) if one == prompt]
        oriented = [given[i][1] * (-1 if direction == "lower" else 1) for i in members]
        ranks = (stats.rankdata(oriented) - 0.5) / len(members)
        assert [found[i] for i in members] == (pytest.approx(list(ranks)) if len(members) > 1 else [None])


def test_training_rows_request_their_rank_among_the_completions_of_their_prompt() -> None:
    scored, rewards = files(rows())
    outcome = call("finetune", scored, "-r", rewards, "--render-only", "--drop", 0, "-o", "train.jsonl")
    assert outcome.code == 0, outcome.err
    first = [row["messages"][0]["content"] for row in read(Path("train.jsonl"))[:EACH]]
    assert [text.splitlines()[-2:] for text in first] == [
        [f"helpful: {helpful:.2f}", f"short: {short:.2f}"]
        for helpful, short in zip((0.1, 0.5, 0.9, 0.3, 0.7), (0.9, 0.7, 0.5, 0.3, 0.1), strict=True)
    ]


def test_validation_rows_are_ranked_within_their_own_prompts(policy: Policy) -> None:
    held_out = training()
    actual = held_out.actual(policy)
    assert {actual[row.id]["helpful"] for row in held_out.validation} == {0.1, 0.3, 0.5, 0.7, 0.9}


def test_mean_deviation_and_percentiles_are_of_the_raw_rewards(policy: Policy) -> None:
    raw = [row["rewards"]["helpful"] for row in rows() if row["split"] == "train"]
    assert policy.reward("helpful").mean == pytest.approx(sum(raw) / len(raw))
    assert policy.reward("helpful").percentiles["p99"] > 1000


def test_a_row_without_siblings_is_left_out_and_counted() -> None:
    alone = [{**row, "id": f"alone{i}", "group": f"alone{i}"} for i, row in enumerate(rows()[-3:])]
    outcome = call(
        "finetune", *files([*rows(), *alone])[:1], "-r", "rewards.yaml", "--render-only", "-o", "train.jsonl"
    )
    assert outcome.code == 0, outcome.err
    assert "warning: 3 training rows skipped: scale within needs another completion of the same prompt" in outcome.err
    assert len(read(Path("train.jsonl"))) == 32 * EACH


def test_a_row_that_is_alone_keeps_the_lines_of_its_other_rewards() -> None:
    alone = {**rows()[-1], "id": "alone", "group": "alone"}
    scored, rewards = files([*rows(), alone], YAML.replace("lower, scale: {kind: within}", "lower"))
    made = read_training(scored, FinetuneSettings(rewards=str(rewards), template="reward-end"))
    assert set(made.actual(made.policy("", SETTINGS))["alone"]) == {"short"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": {"helpful": 1.0, "short": 1.0}}, "in all 160 training rows, so it cannot be steered"),
    ],
)
def test_data_that_no_rank_can_be_read_from_is_one_line(change: Row, message: str) -> None:
    scored, rewards = files([{**row, **change} for row in rows()])
    outcome = call("finetune", scored, "-r", rewards, "--render-only", "-o", "train.jsonl")
    assert outcome.code == 1
    assert message in outcome.err.splitlines()[-1]


def test_rewards_that_differ_between_prompts_alone_steer_nothing() -> None:
    scored, rewards = files(
        [{**row, "rewards": {"helpful": len(row["prompt"]), "short": row["rewards"]["short"]}} for row in rows()]
    )
    with pytest.raises(DataError, match="'helpful' is equal in all completions of each prompt"):
        read_training(scored, FinetuneSettings(rewards=str(rewards), template="reward-end")).policy("", SETTINGS)


def test_a_number_stands_in_the_prompt_as_it_was_requested(policy: Policy) -> None:
    assert requested(policy, "helpful=0.9", "short=0.3")[0] == {"helpful": 0.9, "short": 0.3}
    assert requested(policy, "helpful=0.8", raw=True)[0] == {"helpful": 0.8}
    assert requested(policy, "helpful=0.8")[0]["helpful"] in (0.7, 0.9)  # the nearest that a training row has


def test_drawn_targets_are_joint_ranks_of_training_rows(policy: Policy) -> None:
    joint = {(own["helpful"], own["short"]) for own in policy.scaled_rows(training().train)}
    drawn = {(one["helpful"], one["short"]) for one in requested(policy, "helpful=data", "short=data")}
    assert drawn <= joint
    assert len(drawn) > 5
    assert {one["helpful"] for one in requested(policy, "helpful=0.6..")} == {0.7, 0.9}
    assert {round(one["helpful"], 2) for one in requested(policy, "helpful=uniform")} == {0.1, 0.3, 0.5, 0.7, 0.9}
    assert {one["helpful"] for one in requested(policy, "helpful=p90")} == {0.9}


def test_weights_request_the_best_ranks_not_the_best_prompt(policy: Policy) -> None:
    joint = [policy.numbers(vector) for vector in policy.reservoir]
    for helpful, short in ((1, 3), (3, 1)):
        best = max(helpful * own["helpful"] + short * own["short"] for own in joint)
        (found, *_) = requested(policy, weights={"helpful": helpful, "short": short})
        assert helpful * found["helpful"] + short * found["short"] == pytest.approx(best)


def test_a_policy_keeps_its_ranks_on_the_disk(policy: Policy) -> None:
    Path("policy").mkdir()
    write_policy(Path("policy"), policy)
    assert replace(read_policy(Path("policy")), digest="") == policy
    assert read_policy(Path("policy")).known("helpful") == [0.1, 0.3, 0.5, 0.7, 0.9]
    tree = json.loads(Path("policy/policy.json").read_text())
    tree["reservoir"][0][0] = 117.0
    Path("policy/policy.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"policy\.json: damaged \(a rank outside \[0, 1\]"):
        read_policy(Path("policy"))


def test_a_sum_of_rewards_is_ranked_within_prompts() -> None:
    scored, rewards = files(rows(), YAML + "combine: sum\n")
    made = read_training(scored, FinetuneSettings(rewards=str(rewards), template="reward-end"))
    actual = made.actual(made.policy("", SETTINGS))
    assert sorted(actual[f"e1-{i}"]["reward"] for i in range(EACH)) == [0.1, 0.3, 0.5, 0.7, 0.9]


def samples(policy: Policy, targets: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)) -> list[Row]:
    """Scored samples that follow `helpful` but for a swap, of prompts with rewards of very different height."""
    return [
        {
            "id": f"g{number}/{policy.digest}/0/{i}",
            "prompt": f"Question {number}?",
            "completion": f"So {i}.",
            "group": f"g{number}",
            "split": "test",
            "policy": policy.digest,
            "target": {"helpful": str(target)},
            "asked": {"helpful": target},
            "rewards": {"helpful": 100.0 * number + (i if i > 1 else 1 - i) ** 3, "short": float(i)},
        }
        for number in range(25)
        for i, target in enumerate(targets)
    ]


@pytest.fixture
def trained(policy: Policy) -> Policy:
    Path("policy").mkdir()
    write_policy(Path("policy"), policy)
    return read_policy(Path("policy"))


def test_eval_ranks_the_samples_of_a_prompt(trained: Policy) -> None:
    outcome = call("eval", write(Path("samples.jsonl"), samples(trained)), "-o", "eval.json")
    assert outcome.code == 0, outcome.err
    (found,) = json.loads(Path("eval.json").read_text())["policies"].values()
    helpful = found["rewards"]["helpful"]
    spearman = stats.spearmanr([0, 1, 2, 3, 4], [1, 0, 2, 3, 4]).statistic
    assert helpful["within"]["spearman"]["value"] == pytest.approx(spearman)
    assert helpful["error"]["mean_absolute"]["value"] == pytest.approx(0.4 / 5)
    assert helpful["error"]["floor_ordered"] == pytest.approx(0)
    assert found["crosstalk"]["slopes"][0][0]["value"] == pytest.approx(0.9)


@pytest.mark.parametrize("targets", [(0.9,), (0.9, 0.9, 0.9)])
def test_eval_leaves_out_samples_whose_rank_says_nothing_of_their_target(
    targets: tuple[float, ...], trained: Policy
) -> None:
    mixed = [*samples(trained)[: 20 * EACH], *samples(trained, targets)[20 * len(targets) :]]
    outcome = call("eval", write(Path("samples.jsonl"), mixed), "-o", "eval.json")
    assert outcome.code == 0, outcome.err
    assert f"{5 * len(targets)} samples are left out of the metrics of helpful" in outcome.err
    (found,) = json.loads(Path("eval.json").read_text())["policies"].values()
    assert found["rewards"]["helpful"]["n"] == 20 * EACH


def test_bounds_have_no_rank_to_be_held_to(trained: Policy) -> None:
    given = [{**row, "target": {"helpful": "0.1.."}} for row in samples(trained)]
    arm = Arm("a", "a", trained, [from_json(row, None) for row in given])  # type: ignore[arg-type]
    assert len(arm.requested("helpful")) == len(given)
    assert arm.pairs("helpful") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "samples.jsonl", "--calibrate", "policy", "-o", "eval.json"], "cannot be calibrated"),
        (["score", "samples.jsonl", "--keep", "nearest", "-o", "kept.jsonl"], "use --keep best"),
        (
            ["rounds", "scored.jsonl", "-r", "rewards.yaml", "--model", "policy", "--rounds", "1"],
            "rounds cannot be compared",
        ),
    ],
)
def test_figures_that_a_rank_cannot_give_are_refused_in_one_line(
    arguments: list[str], message: str, trained: Policy
) -> None:
    write(
        Path("samples.jsonl"),
        [{**row, "asked": {"helpful": 0.5}} if "keep" in str(arguments) else row for row in samples(trained)],
    )
    outcome = call(*arguments)
    assert outcome.code == 2
    assert "scale within" in outcome.err
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_the_contrast_is_over_ranks_and_the_policy_samples_and_serves_them() -> None:
    scored, rewards = files(rows(20))
    options = ["--objective", "contrast", "--epochs", "0.3", "--context", "64"]
    outcome = call("finetune", scored, "-r", rewards, *options, "-o", "policy")
    assert outcome.code == 0, outcome.err
    assert "steering information" in outcome.err
    assert "`within`: 0.9 is better than 90% of the completions" in Path("policy/README.md").read_text()
    drawn = [
        "sample",
        "policy",
        scored,
        "-t",
        "helpful=0.9",
        "--split",
        "validation",
        "--max-tokens",
        "3",
        "-o",
        "s.jsonl",
    ]
    outcome = call(*drawn)
    assert outcome.code == 0, outcome.err
    assert {row["asked"]["helpful"] for row in read(Path("s.jsonl"))} == {0.9}
