"""The figures of eval, each against an independent library, brute force or a case solved by hand."""

import random
from collections.abc import Sequence
from typing import Any

import moocore
import numpy as np
import pytest
from sacrebleu.metrics.helpers import extract_all_word_ngrams
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error

from irlhf.core import statistics
from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import Example
from irlhf.evaluation.arms import Pair
from irlhf.evaluation.costs import BUDGET, UNIQUE_OF, distinct, diversity
from irlhf.evaluation.curve import curve, levels_of
from irlhf.evaluation.entropy import NOT_AVAILABLE
from irlhf.evaluation.fronts import REFERENCE, dominated_share, hypervolume, undominated
from irlhf.evaluation.gold import over_optimisation
from irlhf.evaluation.tracking import own_figures, tracking

QUICK = Bootstrap(100, 0)
TOLERANCE = 0.1


def pair(prompt: str, asked: float, actual: float, **fields: Any) -> Pair:
    return Pair(prompt, asked, actual, asked, Example(id=f"{prompt}/{asked}/{actual}", prompt="p", **fields))


def noisy(prompts: int, each: int, noise: float, seed: int = 0, digits: int = 9) -> list[Pair]:
    rng = random.Random(seed)
    pairs = []
    for prompt in range(prompts):
        ease = rng.uniform(-0.2, 0.2)
        for _ in range(each):
            asked = rng.random()
            actual = asked + ease + rng.gauss(0, noise)
            pairs.append(pair(f"p{prompt}", round(asked, digits), round(actual, digits)))
    return pairs


def columns(pairs: Sequence[Pair]) -> tuple[Floats, Floats]:
    return np.array([one.target for one in pairs]), np.array([one.actual for one in pairs])


def ordered_by_hand() -> list[Pair]:
    """Three prompts: obeyed, turned round, and the first two swapped."""
    answers = {"a": (1.0, 2.0, 3.0), "b": (3.0, 2.0, 1.0), "c": (2.0, 1.0, 3.0)}
    return [
        pair(prompt, asked, actual)
        for prompt, given in answers.items()
        for asked, actual in zip((0.1, 0.5, 0.9), given, strict=True)
    ]


@pytest.mark.parametrize("digits", [9, 1])
def test_pooled_figures_are_those_of_scipy_and_scikit_learn(digits: int) -> None:
    pairs = noisy(40, 4, 0.3, digits=digits)
    asked, actual = columns(pairs)
    found = tracking(pairs, TOLERANCE, QUICK)
    wanted = {
        "pearson": stats.pearsonr(asked, actual).statistic,
        "spearman": stats.spearmanr(asked, actual).statistic,
        "slope": stats.linregress(asked, actual).slope,
    }
    assert {name: one["value"] for name, one in found["pooled"].items()} == pytest.approx(wanted)
    assert found["error"]["mean_absolute"]["value"] == pytest.approx(mean_absolute_error(asked, actual))


@pytest.mark.parametrize("digits", [9, 1])
def test_figures_of_a_draw_are_those_of_its_rows_written_out(digits: int) -> None:
    pairs = noisy(12, 4, 0.3, digits=digits)
    asked, actual = columns(pairs)
    clusters = np.repeat(np.arange(12), 4)
    copies = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=5).astype(float)
    for number, one in enumerate(copies):
        rows = np.repeat(np.arange(48), one[clusters].astype(int))
        times = copies[number : number + 1, clusters]
        x, y = asked[rows], actual[rows]
        assert statistics.spearman(times, asked, actual)[0] == pytest.approx(stats.spearmanr(x, y).statistic)
        assert statistics.slope(times, asked, actual)[0] == pytest.approx(stats.linregress(x, y).slope)


def test_within_prompts_is_solved_by_hand() -> None:
    found = tracking(ordered_by_hand(), TOLERANCE, QUICK)["within"]
    assert found["prompts"] == 3
    assert found["spearman"]["value"] == pytest.approx((1 - 1 + 0.5) / 3)
    assert found["violations"]["value"] == pytest.approx((0 + 3 + 1) / 9)


def test_each_prompts_own_figures_are_scipys() -> None:
    pairs = noisy(5, 6, 0.3, digits=1)
    for prompt, own in own_figures(pairs).items():
        asked, actual = columns([one for one in pairs if one.prompt == prompt])
        assert own["spearman"] == pytest.approx(stats.spearmanr(asked, actual).statistic)
        assert own["pearson"] == pytest.approx(stats.pearsonr(asked, actual).statistic)


def test_a_prompt_whose_answers_are_all_alike_counts_nothing() -> None:
    same = [pair("z", asked, 2.0) for asked in (0.1, 0.5, 0.9)]
    obeyed = ordered_by_hand()[:3]
    within = tracking(obeyed + same, TOLERANCE, QUICK)["within"]
    assert [within[name]["value"] for name in ("spearman", "violations")] == pytest.approx([0.5, 0])


def test_a_prompt_with_two_targets_has_no_correlation_of_its_own() -> None:
    pairs = [pair("a", 0.1, 1.0), pair("a", 0.9, 2.0), pair("a", 0.9, 3.0)]
    assert tracking(pairs, TOLERANCE, QUICK)["within"] == {"prompts": 0}


def test_easy_and_hard_prompts_cannot_make_up_the_figure_within() -> None:
    pairs = [pair(f"p{p}", p / 10 + t / 100, float(p)) for p in range(10) for t in range(4)]
    found = tracking(pairs, TOLERANCE, QUICK)
    assert found["pooled"]["spearman"]["value"] > 0.95
    assert found["within"]["spearman"]["value"] == 0


def test_floors_are_those_of_brute_force() -> None:
    pairs = noisy(30, 3, 0.3, digits=2)
    asked, actual = columns(pairs)
    found = tracking(pairs, TOLERANCE, QUICK)
    apart = np.abs(asked[:, None] - actual[None])
    constants = np.linspace(-1, 2, 3001)
    error, success, least = found["error"], found["success"], found["at_least"]
    assert error["floor_permuted"] == pytest.approx(apart.mean())
    best = min(np.abs(asked - constant).mean() for constant in constants)
    assert best - 1e-3 <= error["floor_constant"] <= best + 1e-12
    # Both sides are hundredths, and a distance of just a tenth is rounding's to decide.
    assert success["share"]["value"] == pytest.approx((np.abs(asked - actual) <= TOLERANCE).mean())
    assert success["floor_permuted"] == pytest.approx((apart <= TOLERANCE).mean(), abs=0.02)
    held = max((np.abs(asked - constant) <= TOLERANCE + 1e-9).mean() for constant in constants)
    assert success["floor_constant"] == pytest.approx(held, abs=0.02)
    assert least["share"]["value"] == pytest.approx((actual >= asked).mean())
    assert least["floor_permuted"] == pytest.approx((actual[None] >= asked[:, None]).mean())


def test_a_range_is_kept_from_both_sides() -> None:
    ranges = [(-np.inf, 0.4), (0.2, 0.7), (0.6, np.inf), (0.9, 0.95)] * 30
    ranged = zip(noisy(30, 4, 0.3), ranges, strict=True)
    pairs = [one._replace(least=low, most=high) for one, (low, high) in ranged]
    _, actual = columns(pairs)
    bounds = [(one.least, one.most) for one in pairs]
    found = tracking(pairs, TOLERANCE, QUICK)["at_least"]
    kept = [low <= value <= high for value, (low, high) in zip(actual, bounds, strict=True)]
    assert found["share"]["value"] == pytest.approx(np.mean(kept))
    anew = [low <= value <= high for value in actual for low, high in bounds]
    assert found["floor_permuted"] == pytest.approx(np.mean(anew))


def test_one_target_for_all_leaves_nothing_to_correlate() -> None:
    found = tracking([pair(f"p{i}", 0.9, i / 10) for i in range(8)], TOLERANCE, QUICK)
    assert found["pooled"] == {}
    assert found["within"] == {"prompts": 0}


def test_answers_that_are_all_alike_follow_nothing() -> None:
    found = tracking([pair(f"p{i}", i / 10, 0.5) for i in range(8)], TOLERANCE, QUICK)["pooled"]
    assert {name: one["value"] for name, one in found.items()} == {"pearson": 0, "spearman": 0, "slope": 0}


def test_many_samples_of_few_prompts_are_little_evidence() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=10), 50) + 0.01 * rng.normal(size=500)

    def width(clusters: list[str]) -> float:
        found = clustered(clusters, lambda times: {"mean": statistics.mean(times, values)}, Bootstrap(300, 0))["mean"]
        return found["high"] - found["low"]

    assert width([f"p{i // 50}" for i in range(500)]) > 4 * width([f"p{i}" for i in range(500)])


def test_the_interval_of_a_mean_is_that_of_scipys_bootstrap() -> None:
    values = np.random.default_rng(1).exponential(size=80)
    mine = clustered(
        [str(i) for i in range(80)], lambda times: {"mean": statistics.mean(times, values)}, Bootstrap(20_000, 0)
    )["mean"]
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=np.random.default_rng(0)
    ).confidence_interval
    assert (mine["low"], mine["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_memory_does_not_grow_with_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = noisy(20, 3, 0.3)
    whole = tracking(pairs, TOLERANCE, Bootstrap(50, 3))
    monkeypatch.setattr("irlhf.core.bootstrap._CELLS", 200)  # three draws at a time
    parts = tracking(pairs, TOLERANCE, Bootstrap(50, 3))
    assert parts["pooled"]["spearman"] == pytest.approx(whole["pooled"]["spearman"])


def test_the_same_seed_gives_the_same_intervals() -> None:
    pairs = noisy(20, 3, 0.3)
    assert tracking(pairs, TOLERANCE, Bootstrap(100, 5)) == tracking(pairs, TOLERANCE, Bootstrap(100, 5))
    assert tracking(pairs, TOLERANCE, QUICK)["pooled"] != tracking(pairs, TOLERANCE, Bootstrap(100, 6))["pooled"]


def test_a_curve_has_a_level_for_each_target_of_a_sweep() -> None:
    pairs = [pair(f"p{p}", asked, asked / 2 + p / 100) for p in range(11) for asked in (0.0, 0.5, 1.0)]
    found = curve(pairs, QUICK)
    assert [level["asked"] for level in found] == [0.0, 0.5, 1.0]
    assert [level["actual"]["value"] for level in found] == pytest.approx([0.05, 0.3, 0.55])
    assert [level["p10"] for level in found] == pytest.approx([0.01, 0.26, 0.51])
    assert [level["p90"] for level in found] == pytest.approx([0.09, 0.34, 0.59])
    assert [level["at_least"]["value"] for level in found] == pytest.approx([1, 0, 0])
    assert found[0]["kl"] is None


def test_levels_are_tenths_and_equal_targets_share_one() -> None:
    asked = np.random.default_rng(0).random(1000)
    assert np.bincount(levels_of(asked)).tolist() == [100] * 10
    many = np.round(np.concatenate([np.zeros(500), asked[:500]]), 2)
    assert all(len(set(levels_of(many)[many == one])) == 1 for one in set(many))


def gold_of(fall: float, noise: float, seed: int = 0) -> dict[str, Any]:
    """Gold rises to the target 0.7 and falls by `fall` until 1.0."""
    rng = random.Random(seed)
    pairs = []
    for p in range(60):
        for asked in (0.1, 0.4, 0.7, 1.0):
            gold = min(asked, 0.7) - (fall if asked == 1.0 else 0) + rng.gauss(0, noise)
            pairs.append(pair(f"p{p}", asked, asked)._replace(gold=gold))
    return over_optimisation(pairs, QUICK)


def test_gold_that_falls_again_is_over_optimised() -> None:
    found = gold_of(0.4, 0.05)
    assert [found["peak"], found["top"]] == pytest.approx([0.7, 1.0])
    assert found["fall"]["value"] == pytest.approx(0.4, abs=0.03)
    assert found["fall"]["low"] > 0.3


def test_luck_in_finding_the_peak_is_no_over_optimisation() -> None:
    falls = [gold_of(0.0, 0.5, seed)["fall"]["value"] for seed in range(40)]
    assert np.mean(falls) == pytest.approx(0, abs=0.06)


def test_hypervolume_is_solved_by_hand() -> None:
    # Above (-1, -1) the points (1, 0) and (0, 2) cover 2 x 1 + 1 x 3 - 1 x 1.
    assert REFERENCE == -1.0
    assert hypervolume(np.array([[1.0, 0.0], [0.0, 2.0]])) == pytest.approx(4.0)
    assert hypervolume(np.array([[1.0, 0.0], [0.0, 2.0], [-0.5, -0.5], [-3.0, 5.0]])) == pytest.approx(4.0)
    assert hypervolume(np.array([[0.0, 0.0, 1.0]])) == pytest.approx(2.0)


def test_hypervolume_is_that_of_throwing_points() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((6, 3))
    thrown = rng.uniform(-1, 1, (200_000, 3))
    share = (thrown[:, None] <= points[None]).all(2).any(1).mean()
    assert hypervolume(points) == pytest.approx(8 * share, rel=0.01)


def test_undominated_points_are_those_that_nobody_exceeds() -> None:
    points = np.random.default_rng(1).random((40, 3))
    brute = [not any((other >= one).all() and (other > one).any() for other in points) for one in points]
    assert list(undominated(points)) == brute
    assert list(moocore.is_nondominated(-points)) == brute


def test_a_dominated_share_is_solved_by_hand() -> None:
    mine = np.array([[1.0, 1.0], [3.0, 0.0]])
    theirs = np.array([[0.0, 0.5], [1.0, 1.0], [2.0, 0.0], [4.0, 4.0]])
    assert dominated_share(theirs, by=mine) == 0.5


def test_distinct_n_is_that_of_sacrebleus_ngrams() -> None:
    text = "a b a b c a b c d a a"
    for n in (1, 2):
        grams, _ = extract_all_word_ngrams(text, n, n)
        assert distinct([text.split()], n) == len(grams) / sum(grams.values())


def test_ngrams_do_not_run_from_one_completion_into_the_next() -> None:
    assert distinct([["a", "b"], ["a", "b"]], 2) == 0.5


def test_diversity_does_not_depend_on_how_much_was_sampled() -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(2000)]
    texts = [" ".join(rng.choices(words, k=20)) for _ in range(1000)]
    few, many = diversity(texts[:100], 0), diversity(texts, 0)
    assert few["chunks"] == 2
    assert many["chunks"] == 20
    assert few["distinct_1"]["value"] == pytest.approx(many["distinct_1"]["value"], abs=0.03)


def test_a_share_of_unique_completions_is_counted_in_hundreds() -> None:
    texts = [f"answer {i % 50}" for i in range(2 * UNIQUE_OF)]
    found = diversity(texts, 0)["unique"]
    assert 0.25 <= found["value"] <= 0.5
    assert diversity(["one and the same"] * UNIQUE_OF, 0)["unique"]["value"] == 1 / UNIQUE_OF


def test_too_few_completions_have_no_diversity_to_speak_of() -> None:
    found = diversity(["a b c"] * 20, 0)
    assert BUDGET > 60
    assert (found["unique"], found["distinct_1"], found["chunks"]) == (NOT_AVAILABLE, NOT_AVAILABLE, 0)


def test_cross_talk_is_scikit_learns_regression_within_prompts() -> None:
    rng = np.random.default_rng(0)
    asked = rng.random((40, 5, 2))
    given = asked @ np.array([[0.8, -0.3], [0.1, 0.6]]) + rng.normal(0, 1, (40, 1, 2)) + rng.normal(0, 0.1, (40, 5, 2))
    flat = (asked - asked.mean(1, keepdims=True)).reshape(-1, 2), (given - given.mean(1, keepdims=True)).reshape(-1, 2)
    wanted = LinearRegression(fit_intercept=False).fit(*flat).coef_.T
    from irlhf.evaluation.crosstalk import slopes

    prompts = [f"p{i // 5}" for i in range(200)]
    found = slopes(prompts, asked.reshape(-1, 2), given.reshape(-1, 2), QUICK)
    assert [[one["value"] for one in row] for row in found] == [pytest.approx(row) for row in wanted]
    assert [[round(one["value"], 1) for one in row] for row in found] == [[0.8, -0.3], [0.1, 0.6]]
