"""Preference pairs: who stands against whom, and each figure against another library, brute force or by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss, log_loss

from irlhf.core.bootstrap import Bootstrap, Floats
from irlhf.core.example import Content, Example
from irlhf.core.pairs import BINS, Pair, accuracy, pairs_of

QUICK = Bootstrap(100, 0)
RULES = ("accuracy", "ties", "longer", "shorter", "best_rule", "above_rule")


def row(number: int, label: str, group: str = "g", **fields: Any) -> Example:
    known = {"id": f"e{number}", "prompt": "p", "completion": f"c{number}", "group": group, "label": label}
    return Example(**{**known, **fields})


def pair(prompt: int, words: int = 1, other: int = 1) -> Pair:
    """A pair whose completions have so many words, the chosen one's first."""
    chosen = row(2 * prompt, "chosen", f"g{prompt}", completion="a " * words)
    return Pair(chosen, row(2 * prompt + 1, "rejected", f"g{prompt}", completion="b " * other))


def simulated(count: int, seed: int, stretch: float = 1, each: int = 1) -> tuple[list[Pair], Floats]:
    """Pairs of a reward that is right as often as the differences say, before it is stretched.

    Each prompt has `each` pairs, which share their luck.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.2, count)
    chosen_first = np.repeat(rng.random(count // each), each) < 1 / (1 + np.exp(-logits))
    pairs = [pair(i // each, *map(int, rng.integers(1, 9, 2))) for i in range(count)]
    return pairs, stretch * np.where(chosen_first, logits, -logits)


def values(found: dict[str, Any]) -> dict[str, float]:
    return {name: found[name]["value"] for name in RULES}


def test_every_chosen_completion_stands_against_every_rejected_one_of_its_prompt() -> None:
    rows = [row(1, "chosen"), row(2, "rejected"), row(3, "rejected"), row(4, "chosen"), row(5, "chosen", "h")]
    pairs, counts = pairs_of([*rows, row(6, "rejected", "h")])
    ids = [(one.chosen.id, one.rejected.id) for one in pairs]
    assert ids == [("e1", "e2"), ("e1", "e3"), ("e4", "e2"), ("e4", "e3"), ("e5", "e6")]
    assert counts == {"rows": 6, "pairs": 5, "unlabelled": 0, "ungrouped": 0, "alone": 0, "equal": 0}


def test_pairs_of_one_prompt_that_have_names_are_kept_apart() -> None:
    rows = [row(n, label, extra={"pair": n // 2}) for n, label in enumerate(["chosen", "rejected"] * 2)]
    pairs, _ = pairs_of(rows)
    assert [(one.chosen.id, one.rejected.id) for one in pairs] == [("e0", "e1"), ("e2", "e3")]
    assert {one.prompt for one in pairs} == {"g"}


@pytest.mark.parametrize(
    ("rows", "count", "number"),
    [
        ([row(1, "chosen"), row(2, "")], "unlabelled", 1),
        ([row(1, "chosen"), row(2, "worse")], "unlabelled", 1),
        ([row(1, "chosen", ""), row(2, "rejected", "")], "ungrouped", 2),
        ([row(1, "chosen"), row(2, "chosen")], "alone", 2),
        ([row(1, "chosen"), row(2, "rejected", "h")], "alone", 2),
        ([row(1, "chosen"), row(2, "rejected", prompt="another")], "alone", 2),
        ([row(1, "chosen", completion="c"), row(2, "rejected", completion="c")], "equal", 1),
    ],
)
def test_what_makes_no_pair_is_counted(rows: Sequence[Example], count: str, number: int) -> None:
    pairs, counts = pairs_of(rows)
    assert pairs == []
    assert counts[count] == number


@pytest.mark.parametrize("same", ["c", [{"role": "assistant", "content": "c"}]])
def test_text_and_a_message_of_that_text_say_the_same(same: Content) -> None:
    messages: Content = [{"role": "user", "content": "p"}]
    _, counts = pairs_of([row(1, "chosen", completion="c"), row(2, "rejected", prompt=messages, completion=same)])
    assert (counts["equal"], counts["alone"]) == (1, 0)


def test_completions_that_differ_in_their_calls_alone_are_a_pair() -> None:
    calls: list[Content] = [
        [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": name}}]}] for name in "ab"
    ]
    pairs, _ = pairs_of([row(1, "chosen", completion=calls[0]), row(2, "rejected", completion=calls[1])])
    assert len(pairs) == 1


def test_accuracy_and_the_rules_are_counted_by_hand() -> None:
    pairs = [pair(0, 3, 1), pair(1, 1, 2), pair(2, 2, 2), pair(3, 5, 4)]
    found = accuracy(pairs, [2.0, -1.0, 0.0, 3.0], QUICK)
    assert (found["n"], found["prompts"]) == (4, 4)
    assert values(found) == pytest.approx(
        {
            "accuracy": 2.5 / 4,
            "ties": 1 / 4,
            "longer": 2.5 / 4,
            "shorter": 1.5 / 4,
            "best_rule": 2.5 / 4,
            "above_rule": 0,
        }
    )


def test_a_reward_of_length_is_no_better_than_the_rule_in_any_draw() -> None:
    rng = np.random.default_rng(0)
    pairs = [pair(i, 3 + int(rng.integers(4)), int(rng.integers(1, 5))) for i in range(60)]
    words = [len(str(one.chosen.completion).split()) - len(str(one.rejected.completion).split()) for one in pairs]
    found = accuracy(pairs, words, QUICK)
    assert found["above_rule"] == {"value": 0, "low": 0, "high": 0}
    assert found["accuracy"] == found["longer"] == found["best_rule"]
    other = accuracy(pairs, np.negative(words).tolist(), QUICK)
    assert other["accuracy"]["value"] == pytest.approx(1 - found["accuracy"]["value"])
    assert other["above_rule"]["high"] < 0


def test_the_interval_is_scipys_where_each_prompt_has_one_pair() -> None:
    pairs, differences = simulated(60, seed=1)
    mine = accuracy(pairs, differences.tolist(), Bootstrap(20_000, 0))["accuracy"]
    theirs = stats.bootstrap(
        ((differences > 0).astype(float),), np.mean, n_resamples=20_000, method="percentile", rng=0
    ).confidence_interval
    assert (mine["low"], mine["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_pairs_of_one_prompt_are_one_piece_of_evidence() -> None:
    differences = [1.0, -1.0] * 20
    apart = accuracy([pair(i) for i in range(40)], differences, QUICK)["accuracy"]
    together = accuracy([pair(i) for i in range(40) for _ in range(9)], np.repeat(differences, 9).tolist(), QUICK)
    assert together["prompts"] == 40
    assert together["accuracy"] == pytest.approx(apart)


def test_log_loss_and_brier_are_those_of_scikit_learn() -> None:
    pairs, differences = simulated(200, seed=2)
    chosen_first = np.random.default_rng(0).random(200) < 0.5  # which side of a pair is asked about
    predicted = 1 / (1 + np.exp(-np.where(chosen_first, differences, -differences)))
    found = accuracy(pairs, differences.tolist(), QUICK, calibrated=True)["calibration"]
    assert found["log_loss"]["value"] == pytest.approx(log_loss(chosen_first, predicted))
    assert found["brier"]["value"] == pytest.approx(brier_score_loss(chosen_first, predicted))


def test_calibration_error_is_that_of_sorted_tenths() -> None:
    pairs, differences = simulated(200, seed=3, stretch=2)
    found = accuracy(pairs, differences.tolist(), QUICK, calibrated=True)["calibration"]
    tenths = np.array_split(differences[np.argsort(np.abs(differences))], BINS)
    predicted = [float(np.mean(1 / (1 + np.exp(-np.abs(part))))) for part in tenths]
    right = [float(np.mean(part > 0)) for part in tenths]
    assert [one["n"] for one in found["bins"]] == [20] * BINS
    assert [one["predicted"] for one in found["bins"]] == pytest.approx(predicted)
    assert [one["right"]["value"] for one in found["bins"]] == pytest.approx(right)
    assert found["ece"]["value"] == pytest.approx(np.abs(np.subtract(predicted, right)).mean())


def test_equal_differences_share_a_bin() -> None:
    differences = [0.0] * 30 + [2.0] * 45 + [-2.0] * 5
    found = accuracy([pair(i) for i in range(80)], differences, QUICK, calibrated=True)["calibration"]
    assert [one["n"] for one in found["bins"]] == [30, 50]
    assert [one["right"]["value"] for one in found["bins"]] == pytest.approx([0.5, 0.9])
    assert found["ece"]["value"] == pytest.approx((1 / (1 + np.exp(-2)) - 0.9) * -50 / 80)


def test_a_reward_that_never_prefers_is_a_coin() -> None:
    found = accuracy([pair(i) for i in range(8)], [0.0] * 8, QUICK, calibrated=True)
    assert values(found)["accuracy"] == 0.5
    assert values(found)["ties"] == 1
    assert found["calibration"]["log_loss"]["value"] == pytest.approx(np.log(2))
    assert found["calibration"]["brier"]["value"] == pytest.approx(1 / 4)
    assert found["calibration"]["ece"]["value"] == 0


def test_rewards_of_any_size_are_probabilities() -> None:
    found = accuracy([pair(i) for i in range(4)], [2e100, -2e100, 800.0, -800.0], QUICK, calibrated=True)
    assert found["accuracy"]["value"] == 0.5
    assert found["calibration"]["brier"]["value"] == pytest.approx(0.5)
    assert np.isfinite(found["calibration"]["log_loss"]["value"])


def test_what_is_no_logit_has_no_calibration() -> None:
    assert "calibration" not in accuracy([pair(0), pair(1)], [1.0, 2.0], QUICK)


def test_one_pair_has_figures() -> None:
    found = accuracy([pair(0)], [1.0], QUICK, calibrated=True)
    assert found["accuracy"] == {"value": 1, "low": 1, "high": 1}
    assert [one["n"] for one in found["calibration"]["bins"]] == [1]


def test_a_calibrated_reward_errs_by_the_floor_and_a_stretched_one_by_more() -> None:
    calibrated, stretched = (
        [accuracy(*simulated(300, seed, stretch), QUICK, True)["calibration"] for seed in range(40)]
        for stretch in (1, 3)
    )
    floor = np.mean([one["ece_floor"] for one in calibrated])
    assert np.mean([one["ece"]["value"] for one in calibrated]) == pytest.approx(floor, rel=0.1)
    assert np.mean([one["ece"]["low"] == 0 for one in calibrated]) > 0.95
    assert all(one["ece"]["low"] > 0 for one in stretched)


@pytest.mark.parametrize(("stretch", "each"), [(1, 1), (2, 1), (1, 4)])
@pytest.mark.slow  # hundreds of bootstraps
def test_intervals_hold_the_truth_about_as_often_as_they_say(stretch: float, each: int) -> None:
    truth = flat(*simulated(100_000, 99, stretch))
    studies = [flat(*simulated(200, seed, stretch, each)) for seed in range(150)]
    for name, wanted in truth.items():
        held = np.mean([one[name]["low"] - 1e-3 <= wanted["value"] <= one[name]["high"] for one in studies])
        assert held >= 0.88, name  # 95% less four standard errors of a share of 150


def flat(pairs: Sequence[Pair], differences: Floats) -> dict[str, dict[str, float]]:
    found = accuracy(pairs, differences.tolist(), Bootstrap(100 if len(pairs) < 1000 else 1), calibrated=True)
    names = ("log_loss", "brier", "ece")
    return {name: found[name] for name in ("accuracy", "longer")} | {name: found["calibration"][name] for name in names}
