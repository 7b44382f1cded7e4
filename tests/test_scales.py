"""Scales: from raw rewards to the numbers in prompts and back, held against scipy."""

from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy import percentile as numpy_percentile
from scipy import stats

from irlhf.core.errors import ConfigError, DataError
from irlhf.policy.rewards_file import Reward
from irlhf.policy.scales import KNOTS, Scale, fit, percentile, rounding, within_ranks

TIED = [3.0, 1.0, 1.0, 2.0, 1.0, 5.0, 3.0, -4.0]


def spec(kind: str = "quantile", direction: str = "higher", **ends: float) -> Reward:
    return Reward.model_validate({"scorer": "x", "direction": direction, "scale": {"kind": kind, **ends}})


def test_a_quantile_is_the_mid_rank_that_scipy_gives() -> None:
    scale = fit("a", spec(), TIED)
    ranks = (stats.rankdata(TIED) - 0.5) / len(TIED)
    assert [scale(x) for x in TIED] == pytest.approx(list(ranks))
    assert [scale(x) for x in TIED] == pytest.approx([stats.percentileofscore(TIED, x, "mean") / 100 for x in TIED])


@pytest.mark.parametrize(("x", "number"), [(-5.0, 0.0), (5.1, 1.0), (4.0, (0.75 + 0.9375) / 2)])
def test_a_quantile_between_and_beyond_the_data(x: float, number: float) -> None:
    assert fit("a", spec(), TIED)(x) == pytest.approx(number)


def test_lower_is_better_turns_the_order_round() -> None:
    up, down = fit("a", spec(), TIED), fit("a", spec(direction="lower"), TIED)
    assert [down(x) for x in TIED] == pytest.approx([1 - up(x) for x in TIED])


def test_a_large_data_set_is_thinned_and_keeps_its_ranks() -> None:
    data = [float(i * i) for i in range(5000)]
    scale = fit("a", spec(), data)
    assert len(scale.xs) == KNOTS
    assert max(abs(scale(x) - (i + 0.5) / 5000) for i, x in enumerate(data)) < 2e-3


def test_a_zscore_is_scipys() -> None:
    scale = fit("a", spec("zscore"), TIED)
    assert [scale(x) for x in TIED] == pytest.approx(list(stats.zscore(TIED)))


@pytest.mark.parametrize(
    ("direction", "x", "number"),
    [("higher", 100, 0.25), ("higher", -5, 0), ("higher", 500, 1), ("lower", 100, 0.75), ("lower", 500, 0)],
)
def test_a_linear_scale_with_given_ends(direction: str, x: float, number: float) -> None:
    assert fit("a", spec("linear", direction, low=0, high=400), TIED)(x) == number


def test_a_linear_scale_without_ends_takes_the_first_and_last_per_cent() -> None:
    data = [float(i) for i in range(1000)]
    low, high = numpy_percentile(data, [1, 99])
    scale = fit("a", spec("linear"), data)
    assert scale.xs == pytest.approx((low, high))


def test_no_scale_passes_the_oriented_number_on() -> None:
    assert fit("a", spec("none"), TIED)(2.5) == 2.5
    assert fit("a", spec("none", "lower"), TIED)(2.5) == -2.5


@pytest.mark.parametrize("kind", ["quantile", "zscore", "linear", "none"])
def test_a_constant_reward_is_refused(kind: str) -> None:
    with pytest.raises(DataError, match=r"reward 'a' is 2\.0 in all 3 training rows, so it cannot be steered"):
        fit("a", spec(kind), [2.0] * 3)


def test_a_reward_that_no_row_has_is_refused() -> None:
    with pytest.raises(DataError, match="no training row has the reward 'a'"):
        fit("a", spec(), [])


def test_linear_ends_that_coincide_are_asked_for() -> None:
    with pytest.raises(ConfigError, match="p1 and p99 are equal"):
        fit("a", spec("linear"), [0.0] * 500 + [1.0])


@pytest.mark.parametrize("per_cent", [0, 1, 33.3, 50, 99, 100])
def test_a_percentile_is_numpys(per_cent: float) -> None:
    assert percentile(sorted(TIED), per_cent) == pytest.approx(numpy_percentile(TIED, per_cent))


def test_a_scale_survives_policy_json() -> None:
    scale = fit("a", spec(direction="lower"), TIED)
    tree = scale.to_json()
    assert Scale(tree["kind"], tree["direction"], tuple(tree["xs"]), tuple(tree["ys"])) == scale


data = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)
kinds = st.sampled_from(["quantile", "zscore", "linear", "none"])
directions = st.sampled_from(["higher", "lower"])


def fitted(kind: str, direction: str, rewards: list[float]) -> Scale:
    assume(max(rewards) - min(rewards) > 1e-6)
    try:
        return fit("a", spec(kind, direction), rewards)
    except ConfigError:
        assume(False)
        raise


@given(kinds, directions, data, st.floats(-2e6, 2e6), st.floats(-2e6, 2e6))
@settings(max_examples=200, deadline=None)
def test_better_is_never_less(kind: str, direction: str, rewards: list[float], a: float, b: float) -> None:
    scale = fitted(kind, direction, rewards)
    better, worse = (min(a, b), max(a, b)) if direction == "lower" else (max(a, b), min(a, b))
    assert scale(better) >= scale(worse) - 1e-12


@given(kinds, directions, data)
@settings(max_examples=200, deadline=None)
def test_the_inverse_leads_back_to_the_reward(kind: str, direction: str, rewards: list[float]) -> None:
    scale = fitted(kind, direction, rewards)
    held = [x for x in rewards if kind != "linear" or 0 < scale(x) < 1]
    tolerance = max(1e-6, 1.01 * rounding(sorted(rewards)))  # ties of rounding have one inverse
    assert [scale.inverse(scale(x)) for x in held] == pytest.approx(held, rel=1e-6, abs=tolerance)


@given(directions, data, st.floats(-0.5, 1.5))
@settings(max_examples=100, deadline=None)
def test_the_inverse_of_a_quantile_stays_within_the_data(direction: str, rewards: list[float], number: float) -> None:
    scale = fitted("quantile", direction, rewards)
    assert min(rewards) <= scale.inverse(number) <= max(rewards)


def test_rewards_that_differ_by_rounding_are_ties() -> None:
    random = Random(0)
    rewards = [1 - random.random() * 1e-6 if i % 10 else random.random() * 1e-6 for i in range(400)]
    scale = fit("judge", Reward(scorer="length"), rewards)
    assert {round(scale(x), 3) for x in [*rewards, 1.0, 0.0, 1.0000001, 0.9999999]} == {0.05, 0.55}
    assert set(within_ranks([0.9999999, 1.0, 0.2], ["p"] * 3, "higher")) == {2 / 3, 1 / 6}
    assert scale(2.0) == 1


def test_whole_numbers_are_never_ties_of_rounding() -> None:
    scale = fit("votes", Reward(scorer="length"), [0, 1, 2, 10_000_000])
    assert [scale(x) for x in (0, 1, 2)] == [0.125, 0.375, 0.625]


def test_a_reward_that_is_constant_but_for_rounding_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be steered"):
        fit("a", Reward(scorer="length"), [1.0, 0.9999999, 1.0, 1.0])
