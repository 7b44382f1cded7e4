"""The short report at the end of score: what can be asked for, measured on the numbers themselves."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import call, example, write
from scipy.stats import spearmanr

from irlhf.core.example import Example
from irlhf.scoring import diagnostics
from irlhf.scoring.diagnostics import WORDS, RewardStatistics


def survey(rows: list[tuple[str, dict[str, float]]], **report: Any) -> dict[str, Any]:
    made = RewardStatistics()
    for number, (prompt, rewards) in enumerate(rows):
        made.add(Example(id=str(number), prompt="?", completion="word " * number, group=prompt, rewards=rewards))
    return made.report(["a", "b"])


def test_spread_and_ties_are_those_of_the_numbers() -> None:
    found = survey([(str(n), {"a": value}) for n, value in enumerate([1, 1, 2, 5.0])])["a"]
    assert (found["mean"], found["sd"]) == pytest.approx((2.25, np.std([1, 1, 2, 5])))
    assert found["ties"] == pytest.approx(1 / 6)
    assert found["rows"] == 4


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_the_share_within_prompts_is_the_one_that_was_drawn(share: float) -> None:
    rng = random.Random(0)
    rows = []
    for prompt in range(800):
        middle = rng.gauss(0, (1 - share) ** 0.5)
        rows += [(str(prompt), {"a": middle + rng.gauss(0, share**0.5)}) for _ in range(rng.choice([2, 3, 6]))]
    assert survey(rows)["a"]["within_prompts"] == pytest.approx(share, abs=0.04)


def test_rows_without_a_group_belong_to_their_prompt() -> None:
    made = RewardStatistics()
    for number in range(60):
        made.add(Example(id=str(number), prompt=f"What of {number % 20}?", completion="", rewards={"a": number % 20}))
    found = made.report(["a"])["a"]
    assert (found["prompts"], found["within_prompts"]) == (20, 0)


def test_prompts_with_one_completion_say_nothing_of_what_lies_within() -> None:
    found = survey([(str(n), {"a": n}) for n in range(50)])["a"]
    assert (found["within_prompts"], found["prompts"]) == (None, 0)


def test_correlations_are_spearmans_over_the_rows_that_have_both() -> None:
    rng = random.Random(0)
    numbers = [(rng.gauss(0, 1), rng.randrange(4)) for _ in range(60)]
    rows = [(str(n), {"a": a, "b": float(b)} if n % 3 else {"a": a}) for n, (a, b) in enumerate(numbers)]
    found = survey(rows)["a"]["correlations"]
    both = [pair for n, pair in enumerate(numbers) if n % 3]
    assert found["b"] == pytest.approx(spearmanr(*zip(*both, strict=True)).statistic)
    assert found[WORDS] == pytest.approx(spearmanr([a for a, _ in numbers], range(60)).statistic)


WARNED = {
    "constant": ([(str(n // 2), {"a": 3.0}) for n in range(60)], "every row has 3"),
    "mostly ties": ([(str(n // 2), {"a": float(n % 20 == 0)}) for n in range(60)], "90% of all pairs of rows tie"),
    "the prompt": ([(str(n // 2), {"a": float(n // 2)}) for n in range(60)], "the prompt determines it: only 0%"),
    "the same": ([(str(n % 30), {"b": float(n), "a": -n * 2.0}) for n in range(60)], "a: it is almost equal to b"),
}


@pytest.mark.parametrize("kind", WARNED)
def test_what_cannot_be_steered_is_warned_of(kind: str) -> None:
    rows, reason = WARNED[kind]
    told = [f"{name}: {one}" for name, found in survey(rows).items() for one in found["warnings"]]
    assert len(told) == 1, told
    assert reason in told[0]


def test_a_reward_that_can_be_steered_is_not_warned_of() -> None:
    rng = random.Random(1)
    rows = [(str(n // 2), {"a": rng.gauss(0, 1), "b": float(rng.random() < 0.3)}) for n in range(200)]
    assert all(not one["warnings"] for one in survey(rows).values())


def test_of_many_rows_whole_prompts_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "_MOST", 500)
    made = RewardStatistics()
    for number in range(4000):
        made.add(Example(id=str(number), prompt="?", group=str(number % 2000), rewards={"a": number % 2000}))
    kept = made.report(["a"])["a"]
    assert 250 <= kept["rows"] <= 500
    assert kept["prompts"] == kept["rows"] / 2
    assert kept["mean"] == pytest.approx(1000, abs=100)


def test_score_ends_with_the_report_and_json_holds_it() -> None:
    write(Path("in.jsonl"), [example(n, completion="word " * (n % 7), group=str(n // 3)) for n in range(90)])
    Path("rewards.yaml").write_text("rewards: {short: {scorer: length, direction: lower}}")
    outcome = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "--json")
    found = json.loads(outcome.out)["steerable"]["short"]
    assert found["rows"] == 90
    assert outcome.err.startswith("short  2.97 ± 1.99 (5 to 95%: 0 to 6)  ties 13%")


def test_a_run_that_goes_on_reports_on_all_rows() -> None:
    Path("stumbling.py").write_text(
        "import os\n"
        "def words(examples):\n"
        "    if any(one.id == 'e400' for one in examples) and not os.path.exists('on'): raise KeyError('no')\n"
        "    return [len(one.completion) for one in examples]\n"
    )
    write(Path("in.jsonl"), [example(n, completion="x" * n) for n in range(600)])
    Path("rewards.yaml").write_text("rewards: {a: {scorer: 'stumbling:words'}}")
    arguments = ("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "--json")
    assert call(*arguments).code == 3
    Path("on").touch()
    assert json.loads(call(*arguments).out)["steerable"]["a"]["mean"] == pytest.approx(299.5)
