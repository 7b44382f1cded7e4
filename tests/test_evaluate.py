"""eval: figures held against scipy, against brute force and against cases solved by hand."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from toolbox import Bench, Row, call, write

from irlhf.evaluate import EvalSettings, evaluate
from irlhf.evaluate.intervals import clustered
from irlhf.evaluate.tracking import correlation, tracking
from irlhf.policy import read_policy

Pair = tuple[str, float, float]


def noisy(prompts: int, each: int, noise: float, seed: int = 0) -> list[Pair]:
    rng = random.Random(seed)
    pairs = []
    for prompt in range(prompts):
        ease = rng.uniform(-0.2, 0.2)
        for _ in range(each):
            asked = rng.random()
            pairs.append((f"p{prompt}", asked, asked + ease + rng.gauss(0, noise)))
    return pairs


def columns(pairs: Sequence[Pair]) -> tuple[list[float], list[float]]:
    return [asked for _, asked, _ in pairs], [actual for _, _, actual in pairs]


def test_correlations_are_scipys() -> None:
    pairs = noisy(40, 4, 0.3)
    found = tracking(pairs, 100, 0)["pooled"]
    assert found["spearman"]["value"] == pytest.approx(stats.spearmanr(*columns(pairs)).statistic)
    assert found["pearson"]["value"] == pytest.approx(stats.pearsonr(*columns(pairs)).statistic)


def test_ties_are_ranked_as_scipy_ranks_them() -> None:
    pairs = [(f"p{i}", round(a, 1), round(b, 1)) for i, (_, a, b) in enumerate(noisy(60, 1, 0.2))]
    found = tracking(pairs, 100, 0)["pooled"]["spearman"]
    assert found["value"] == pytest.approx(stats.spearmanr(*columns(pairs)).statistic)


def test_within_prompts_is_solved_by_hand() -> None:
    perfect = [("a", 0.1, 1.0), ("a", 0.5, 2.0), ("a", 0.9, 3.0)]
    reversed_ = [("b", 0.1, 3.0), ("b", 0.5, 2.0), ("b", 0.9, 1.0)]
    swapped = [("c", 0.1, 2.0), ("c", 0.5, 1.0), ("c", 0.9, 3.0)]
    found = tracking(perfect + reversed_ + swapped, 100, 0)["within"]
    assert found["spearman"]["value"] == pytest.approx((1 - 1 + 0.5) / 3)
    assert found["prompts"] == 3


def test_a_prompt_whose_answers_are_all_alike_counts_nothing() -> None:
    perfect = [("a", 0.1, 1.0), ("a", 0.5, 2.0), ("a", 0.9, 3.0)]
    constant = [("b", 0.1, 2.0), ("b", 0.5, 2.0), ("b", 0.9, 2.0)]
    assert tracking(perfect + constant, 100, 0)["within"]["pearson"]["value"] == pytest.approx(0.5, abs=0.02)
    assert tracking(perfect + constant, 100, 0)["within"]["spearman"]["value"] == pytest.approx(0.5)
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0])) == 0


def test_a_prompt_with_two_targets_has_no_correlation_of_its_own() -> None:
    found = tracking([("a", 0.1, 1.0), ("a", 0.9, 2.0), ("a", 0.9, 3.0)], 100, 0)
    assert found["within"] == {"prompts": 0}


def test_easy_and_hard_prompts_cannot_make_up_the_figure_within() -> None:
    pairs = [(f"p{p}", p / 10 + t / 100, float(p)) for p in range(10) for t in range(4)]
    found = tracking(pairs, 100, 0)
    assert found["pooled"]["spearman"]["value"] > 0.95
    assert found["within"]["spearman"]["value"] == 0


def test_floors_are_those_of_brute_force() -> None:
    pairs = noisy(30, 3, 0.3)
    asked, actual = (np.array(one) for one in columns(pairs))
    error = tracking(pairs, 100, 0)["error"]
    assert error["mean_absolute"]["value"] == pytest.approx(np.abs(asked - actual).mean())
    assert error["floor_permuted"] == pytest.approx(np.abs(asked[:, None] - actual[None]).mean())
    best = min(np.abs(asked - constant).mean() for constant in np.linspace(-1, 2, 3001))
    assert error["floor_constant"] == pytest.approx(best, abs=1e-3)
    assert error["floor_constant"] <= best + 1e-12


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(40):
        found = tracking(noisy(40, 3, 0.3, seed), 100, seed)["pooled"]["pearson"]
        assert found["low"] <= found["value"] <= found["high"]
        held += found["low"] <= 0.66 <= found["high"]
    assert held >= 32


def test_many_samples_of_few_prompts_are_little_evidence() -> None:
    rng = np.random.default_rng(0)
    ease = rng.normal(size=10)
    values = np.repeat(ease, 50) + 0.01 * rng.normal(size=500)
    few = clustered([f"p{i // 50}" for i in range(500)], lambda rows: {"mean": values[rows].mean()}, 300, 0)["mean"]
    many = clustered([f"p{i}" for i in range(500)], lambda rows: {"mean": values[rows].mean()}, 300, 0)["mean"]
    assert few["high"] - few["low"] > 4 * (many["high"] - many["low"])


def test_the_same_seed_gives_the_same_intervals() -> None:
    pairs = noisy(20, 3, 0.3)
    assert tracking(pairs, 100, 5) == tracking(pairs, 100, 5)
    assert tracking(pairs, 100, 5)["pooled"] != tracking(pairs, 100, 6)["pooled"]


def samples(bench: Bench, count: int = 40, **fields: Any) -> list[Row]:
    """Scored samples of the bench's policy that obey: shorter where shorter is asked for."""
    digest = read_policy(bench.policy).digest
    rows = []
    for i in range(count):
        for k, asked in enumerate((0.1, 0.4, 0.6, 0.9)):
            row = {"id": f"g{i}/{digest}/0/{k}", "prompt": "p", "completion": "c", "group": f"g{i}", "policy": digest}
            row |= {"asked": {"short": asked}, "target": {"short": str(asked)}, "tokens": 10, "entropy": 1.5}
            rows.append({**row, "rewards": {"short": 25 - 18 * asked}, "finish": "stop", **fields})
    return rows


def evaluated(bench: Bench, *files: list[Row]) -> dict[str, Any]:
    paths = [write(Path(f"samples-{i}.jsonl"), rows) for i, rows in enumerate(files)]
    return evaluate(paths, "eval.json", EvalSettings((str(bench.policy),), resamples=100))


def test_eval_json_is_what_is_returned(bench: Bench) -> None:
    result = evaluated(bench, samples(bench))
    assert json.loads(Path("eval.json").read_text()) == json.loads(json.dumps(result))


def test_an_obedient_policy_tracks_in_the_direction_that_is_better(bench: Bench) -> None:
    (policy,) = evaluated(bench, samples(bench))["policies"].values()
    found = policy["rewards"]["short"]
    assert (found["n"], found["prompts"], policy["samples"]) == (160, 40, 160)
    assert found["within"]["spearman"]["value"] == pytest.approx(1)
    scale = read_policy(bench.policy).reward("short").scale
    assert found["actual"]["value"] == pytest.approx(np.mean([scale(25 - 18 * a) for a in (0.1, 0.4, 0.6, 0.9)]))
    assert (policy["tokens"], policy["entropy"], policy["unfinished"]) == (10, 1.5, 0)


def test_several_files_of_a_policy_are_one_evaluation(bench: Bench) -> None:
    rows = samples(bench)
    (policy,) = evaluated(bench, rows[:100], rows[100:])["policies"].values()
    assert policy["rewards"]["short"]["n"] == 160


def test_an_entropy_that_nobody_measured_is_not_available(bench: Bench) -> None:
    (policy,) = evaluated(bench, samples(bench, entropy=None, finish="length"))["policies"].values()
    assert policy["entropy"] == "not available"
    assert policy["unfinished"] == 160


def test_unscored_samples_are_refused(bench: Bench) -> None:
    write(Path("samples.jsonl"), samples(bench, rewards={}))
    outcome = call("eval", "samples.jsonl", "--policy", bench.policy)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "score the samples first" in outcome.err


def test_the_same_file_twice_does_not_double_the_evidence(bench: Bench) -> None:
    write(Path("samples.jsonl"), samples(bench))
    assert call("eval", "samples.jsonl", "./samples.jsonl", "--policy", bench.policy).code == 2


def test_few_prompts_are_warned_of(bench: Bench) -> None:
    write(Path("samples.jsonl"), samples(bench, count=5))
    assert "5 prompts; intervals from fewer than 30" in call("eval", "samples.jsonl", "--policy", bench.policy).err


def test_policies_beside_the_samples_are_found(bench: Bench) -> None:
    Path("policy").symlink_to(bench.policy)
    write(Path("samples.jsonl"), samples(bench))
    outcome = call("eval", "samples.jsonl")
    assert outcome.code == 0
    assert "policy short: Spearman within prompts 1.00" in outcome.err


def test_one_target_for_all_leaves_nothing_to_correlate() -> None:
    found = tracking([(f"p{i}", 0.9, i / 10) for i in range(8)], 100, 0)
    assert found["pooled"] == {}
    assert "spearman" not in found["within"]
