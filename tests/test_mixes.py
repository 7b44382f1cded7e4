"""Mixes: how weights are read, what they ask for, what asking brought, and what it is held against."""

import random
from pathlib import Path

import pytest
from helpers import Bench, call, read

from irlhf.core.bootstrap import Bootstrap
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example
from irlhf.evaluation.arms import Arm
from irlhf.evaluation.tradeoff import tradeoff
from irlhf.policy.policy_file import Policy, read_policy, read_weights
from irlhf.policy.targets import parse_weights, weight_text, weights_of
from irlhf.sampling.target_resolution import TargetSpec
from irlhf.training.baselines import baseline_rows


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("short", {"short": 1}),
        ("2*short+3*colour", {"short": 2, "colour": 3}),
        (" 0.5 * short + colour ", {"short": 0.5, "colour": 1}),
        ("0*short+colour", {"short": 0, "colour": 1}),
        ("1e-1*short", {"short": 0.1}),
    ],
)
def test_weights_are_read(text: str, weights: dict[str, float]) -> None:
    assert parse_weights(text) == weights


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2*", "'2*' is invalid"),
        ("short+", "'' is invalid"),
        ("short*2", "'short*2' is invalid"),
        ("short - colour", "is invalid"),
        ("-1*short", "a weight is negative"),
        ("short+short", "short occurs twice"),
        ("0*short", "at least one weight must be above 0"),
        ("1e999*short", "a weight exceeds 1e+100"),
    ],
)
def test_a_slip_in_the_weights_is_named(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_weights(text)
    assert reason in str(caught.value)


def test_a_sample_remembers_its_weights() -> None:
    weights = {"short": 2.5, "colour": 0.0}
    assert weights_of({name: weight_text(weight) for name, weight in weights.items()}) == weights
    assert weights_of({"short": "0.5"}) == {}
    assert weights_of({}) == {}


@pytest.fixture
def policy(bench: Bench) -> Policy:
    return read_policy(bench.policy)


def test_weights_from_a_file_of_zeros_are_refused(policy: Policy) -> None:
    Path("rewards.yaml").write_text("rewards: {short: {scorer: length, weight: 0}}")
    with pytest.raises(ConfigError):
        list(TargetSpec(policy, {}, read_weights("rewards.yaml", policy)).requests(1, "seed"))


def test_a_mix_asks_for_one_of_the_best_rows_there_are(policy: Policy) -> None:
    weights = {"short": 2.0, "colour": 1.0}
    rows = [dict(zip(policy.names, row, strict=True)) for row in policy.reservoir]
    best = sorted((policy.weighted(row, weights) for row in rows), reverse=True)[:10]
    kept = [row for row in rows if policy.weighted(row, weights) >= best[-1]]
    possible = [policy.scaled(row) for row in kept]
    assert all(one.prompt_values in possible for one in TargetSpec(policy, {}, weights, "best").requests(50, "seed"))


def test_what_weighs_nothing_is_not_asked_for(policy: Policy) -> None:
    (one,) = TargetSpec(policy, {}, {"short": 0.0, "colour": 1.0}).requests(1, "seed")
    assert set(one.prompt_values) == {"colour"}


def test_an_unknown_reward_in_the_weights_is_named(policy: Policy) -> None:
    with pytest.raises(ConfigError, match="no reward 'shrot'; did you mean 'short'"):
        read_weights("2*shrot", policy)


def test_a_target_and_a_weight_for_one_reward_are_refused(bench: Bench) -> None:
    command = ["sample", bench.policy, bench.examples, "-t", "short=1", "--weights", "short", "-o", "out.jsonl"]
    outcome = call(*command)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)


def test_the_training_data_itself_weighs_nothing_on_average(bench: Bench, policy: Policy) -> None:
    rows = [
        Example(id=row["id"], prompt="", rewards=row["rewards"])
        for row in read(bench.scored)
        if row["split"] == "train"
    ]
    weighted = [policy.weighted(row.rewards, {"short": 2, "colour": 3}) for row in rows]
    assert sum(weighted) / len(weighted) == pytest.approx(0, abs=1e-9)


def test_the_weighted_reward_is_solved_by_hand(policy: Policy) -> None:
    short, colour = policy.rewards
    rewards = {"short": short.mean - 2 * short.deviation, "colour": colour.mean + colour.deviation}
    target = {"short": "1*", "colour": "3*"}
    rows = [
        Example(id=str(i), prompt="", group=f"g{i % 4}", rewards=rewards, target=target, policy=policy.digest)
        for i in range(8)
    ]
    (mix,) = tradeoff([Arm("policy", "policy", policy, rows)], Bootstrap(100, 0))
    (arm,) = mix["arms"]
    assert mix["weights"] == {"short": 1, "colour": 3}
    assert arm["weighted"]["value"] == pytest.approx((1 * 2 + 3 * 1) / 4)
    assert arm["rewards"]["short"]["value"] == pytest.approx(2)
    assert arm["n"] == 8


def rows_of(count: int, **fields: str) -> list[Example]:
    rng = random.Random(0)
    return [
        Example(
            id=str(i),
            prompt="p",
            completion="word " * rng.randint(2, 30),
            rewards={"short": rng.uniform(5, 20), "colour": rng.uniform(0, 10)},
            **fields,
        )
        for i in range(count)
    ]


def words(rows: list[Example]) -> int:
    return sum(len(str(row.completion).split()) + 1 for row in rows)


def test_the_plain_baseline_learns_every_row(policy: Policy) -> None:
    rows = rows_of(50)
    assert baseline_rows("plain", rows, policy, 0) == rows


@pytest.mark.parametrize("kind", ["chosen", "top"])
def test_a_baseline_of_better_rows_learns_as_many_words(kind: str, policy: Policy) -> None:
    rows = rows_of(200)
    dealt = baseline_rows(kind, rows, policy, 0)
    assert words(dealt) == pytest.approx(words(rows), abs=31)


def test_the_top_baseline_learns_the_best_tenth(policy: Policy) -> None:
    rows = rows_of(200)
    weights = {card.name: card.weight for card in policy.rewards}
    best = sorted(rows, key=lambda row: policy.weighted(row.rewards, weights), reverse=True)[:20]
    assert {row.id for row in baseline_rows("top", rows, policy, 0)} == {row.id for row in best}


def test_the_chosen_baseline_learns_what_was_chosen(policy: Policy) -> None:
    rows = [
        *rows_of(30, label="rejected"),
        *(Example(id=f"c{i}", prompt="p", completion="yes", label="chosen") for i in range(30)),
    ]
    assert {row.label for row in baseline_rows("chosen", rows, policy, 0)} == {"chosen"}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["plain", "top"])
def test_a_single_row_is_learnt(kind: str, policy: Policy) -> None:
    assert len(baseline_rows(kind, rows_of(1), policy, 0)) == 1


@pytest.mark.timeout(10)
def test_a_single_row_without_labels_is_no_choice(policy: Policy) -> None:
    with pytest.raises(DataError):
        baseline_rows("chosen", rows_of(1), policy, 0)
