"""The grammar of targets: each form read, each slip told where it is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlhf.core.errors import ConfigError
from irlhf.policy.targets import Target, parse_target, parse_targets


@pytest.mark.parametrize(
    ("text", "kind", "low", "high", "step"),
    [
        ("h=0.8", "exact", 0.8, None, None),
        ("h=1", "exact", 1, None, None),
        ("h=-1.5", "exact", -1.5, None, None),
        ("h=.5", "exact", 0.5, None, None),
        ("h=1.", "exact", 1, None, None),
        ("h=1e-2", "exact", 0.01, None, None),
        (" h = 0.8 ", "exact", 0.8, None, None),
        ("h=0.6..", "at-least", 0.6, None, None),
        ("h=0..", "at-least", 0, None, None),
        ("h>=0.6", "at-least", 0.6, None, None),
        ("h=..0.4", "at-most", None, 0.4, None),
        ("h<=0.4", "at-most", None, 0.4, None),
        ("h=0.2..0.9", "between", 0.2, 0.9, None),
        ("h=0..0", "between", 0, 0, None),
        ("h=-2..-1", "between", -2, -1, None),
        ("h=~0.6..", "draw", 0.6, None, None),
        ("h=~..0.6", "draw", None, 0.6, None),
        ("h=~0.2..0.6", "draw", 0.2, 0.6, None),
        ("h=p90", "percentile", 90, None, None),
        ("h=p99.5", "percentile", 99.5, None, None),
        ("h=p0", "percentile", 0, None, None),
        ("h=0:1:0.1", "sweep", 0, 1, 0.1),
        ("h=-1:1:1", "sweep", -1, 1, 1),
        ("h=uniform", "uniform", None, None, None),
        ("h=data", "data", None, None, None),
        ("h=raw:4", "exact", 4, None, None),
        ("h=raw:-1.5..", "at-least", -1.5, None, None),
    ],
)
def test_each_form_is_read(text: str, kind: str, low: float, high: float, step: float) -> None:
    target = parse_target(text)
    assert (target.name, target.kind, target.low, target.high, target.step) == ("h", kind, low, high, step)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("h", "write NAME=VALUE"),
        ("", "write NAME=VALUE"),
        ("=0.5", "write NAME=VALUE"),
        ("h>0.5", "write NAME=VALUE"),
        ("h=", "column 3"),
        ("h=high", "column 3"),
        ("h=0.8x", "column 6"),
        ("h=0.2..0.9..", "column 11"),
        ("h=0:1", "column 6"),
        ("h=0:1:", "column 7"),
        ("h=0:1:0.1:2", "column 10"),
        ("helpful=0.8,0.9", "column 12"),
        ("h==0.5", "column 3"),
        ("h=~0.6", "column 7"),
        ("h=~", "column 4"),
        ("h=nan", "column 3"),
        ("h=inf", "column 3"),
        ("h=0x1", "column 4"),
        ("h=p", "column 3"),
        ("h=p101", "from p0 to p100"),
        ("h=..", "a range needs a number on one side"),
        ("h=~..", "a range needs a number on one side"),
        ("h=0.9..0.2", "write 0.2..0.9"),
        ("h=1:0:0.1", "LOW:HIGH:STEP"),
        ("h=raw:1:5:1", "raw: takes a number or a range, as in raw:4 or raw:4.."),
        ("h=raw:p90", "raw: takes a number or a range"),
        ("h=0:1:0", "STEP > 0"),
        ("h=0:1:-0.1", "STEP > 0"),
        ("h=0:1:0.0001", "over 1000 points"),
        ("h=1e999", "too large"),
        ("h=0..1e999", "too large"),
        ("h=1e300", "too large"),
        ("h=1e999:1e999:1", "too large"),
        ("h=0:1:1e999", "too large"),
        ("h=" + "1" * 100_000 + "x", "too large"),
    ],
)
def test_each_slip_is_told_where_it_is(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(text)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("h=0.3", [0.3]),
        ("h=0:1:0.25", [0, 0.25, 0.5, 0.75, 1]),
        ("h=0:1:0.1", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ("h=0:1:0.3", [0, 0.3, 0.6, 0.9]),
        ("h=0.5:0.5:0.1", [0.5]),
        ("h=-1:1:1", [-1, 0, 1]),
        ("h=data", []),
    ],
)
def test_the_points_of_a_target(text: str, points: list[float]) -> None:
    assert parse_target(text).points() == points


def test_a_reward_asked_for_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="h has two targets"):
        parse_targets(["h=0.1", "k=0.2", "h=0.3"])


def test_targets_keep_the_words_of_the_user() -> None:
    assert {name: one.text for name, one in parse_targets(["a>=0.60", "b=0:1:.5"]).items()} == {
        "a": "0.60..",
        "b": "0:1:.5",
    }


fragments = st.sampled_from(
    ["h", "=", ">=", "..", "~", "p", ":", "0.5", "1", "-", "+", "e", ".", " ", "9" * 30, "data"]
)


@given(st.text(max_size=20) | st.lists(fragments, max_size=8).map("".join))
@settings(max_examples=500, deadline=None)
def test_no_text_does_worse_than_a_config_error(text: str) -> None:
    try:
        target = parse_target(text)
    except ConfigError:
        return
    assert isinstance(target, Target)
    assert len(target.points()) <= 1000


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
@settings(max_examples=100, deadline=None)
def test_a_range_written_is_the_range_read(a: float, b: float) -> None:
    low, high = sorted((a, b))
    target = parse_target(f"h={low!r}..{high!r}")
    assert (target.kind, target.low, target.high) == ("between", low, high)
