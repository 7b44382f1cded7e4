"""What eval.json says of entropy and KL when little is known of them, and how it is shown."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from evaluations import NONE, Shape, evaluation, interval
from helpers import call

from irlhf.core.bootstrap import Bootstrap
from irlhf.core.example import Example
from irlhf.evaluation.arms import costs
from irlhf.evaluation.entropy import entropy_and_kl

WAY = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 16, "guidance": 1.0}
SERVED: dict[str, Any] = {"entropy": None, "entropy_low": 1.2, "entropy_high": 2.9, "logprob": -20.0}


def rows(count: int = 12, **fields: Any) -> list[Example]:
    known = {"tokens": 10, "entropy": 1.5, "logprob": -20.0, "decoding": WAY, **fields}
    return [Example(id=f"g{i}/0", group=f"g{i}", prompt="p", **known) for i in range(count)]


def measured(samples: list[Example]) -> dict[str, Any]:
    return entropy_and_kl(samples, Bootstrap(200))


def test_entropy_of_a_served_policy_has_bounds() -> None:
    found = measured(rows(**SERVED))
    assert (found["entropy"], found["censored"]) == (NONE, 0)
    ends = found["entropy_between"]
    assert (ends["low"]["value"], ends["high"]["value"], ends["tokens"]) == pytest.approx((1.2, 2.9, 120))
    assert found["why"]["entropy"] == "no sample has full distributions; servers return only the top tokens"
    assert "entropy_between" not in found["why"]


def test_no_upper_bound_without_the_vocabulary_size() -> None:
    samples = rows(4, **SERVED) + rows(2, **{**SERVED, "entropy_high": None})
    found = measured(samples)
    assert found["entropy_between"]["low"]["value"] == pytest.approx(1.2)
    assert found["entropy_between"]["high"] == NONE
    assert found["why"]["entropy_between.high"] == "the size of the vocabulary is unknown"
    assert costs(samples) == {"entropy": None, "entropy_low": pytest.approx(1.2), "entropy_high": None, "kl": None}


def test_sampled_entropy_weighs_tokens_equally() -> None:
    found = measured(rows(6, tokens=2, logprob=-8.0) + rows(6, tokens=8, logprob=-8.0))
    assert found["entropy_sampled"]["value"] == pytest.approx(96 / 60)
    assert found["entropy_sampled"]["tokens"] == 60
    assert found["why"]["entropy_between"] == "the entropy itself is known"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kept": "best", "candidates": 4}, "samples kept by `score --keep` are not samples of the policy"),
        ({"decoding": {**WAY, "temperature": 0.5}}, "tokens were drawn with a temperature or top-p other than 1, or"),
        ({"decoding": {**WAY, "top_p": 0.9}}, "tokens were drawn with a temperature or top-p other than 1, or"),
        ({"decoding": {}}, "tokens were drawn with a temperature or top-p other than 1, or the settings are unknown"),
        ({"logprob": None, "censored": 2}, "every sample has a token without a logprob from the server"),
        ({"logprob": None}, "no sample has logprobs"),
    ],
)
def test_missing_values_have_a_reason(fields: dict[str, Any], reason: str) -> None:
    found = measured(rows(**fields))
    assert found["entropy_sampled"] == NONE
    assert found["why"]["entropy_sampled"].startswith(reason)


def test_censored_tokens_are_counted_and_in_no_mean() -> None:
    found = measured(rows(6) + rows(6, logprob=None, censored=3))
    assert (found["censored"], found["entropy_sampled"]["value"]) == (18, pytest.approx(2.0))


def test_both_kl_estimates_are_reported() -> None:
    found = measured(rows(reference=-23.5, k3=3.25))
    assert (found["kl"]["value"], found["kl_k3"]["value"]) == pytest.approx((3.5, 3.25))
    assert {"kl", "kl_k3"}.isdisjoint(found["why"])
    older = measured(rows(reference=-23.5))
    assert (older["kl"]["value"], older["kl_k3"]) == (3.5, NONE)
    assert older["why"]["kl_k3"] == "the samples have no values per token; sample again"
    alone = measured(rows())
    assert alone["why"]["kl"] == alone["why"]["kl_k3"]
    assert alone["why"]["kl"].startswith("no sample has a reference logprob (use `irlhf sample --reference`")
    kept = measured(rows(reference=-23.5, k3=3.25, kept="best"))
    assert (kept["kl"], kept["kl_k3"]) == (NONE, NONE)


def served(high: bool) -> dict[str, Any]:
    """An evaluation whose first policy a server held."""
    found = evaluation(Shape(prompts=6))
    policy = next(iter(found["policies"].values()))
    above = interval(2.9) if high else NONE
    why = {"entropy": "no sample has full distributions", "kl": 'no <b>"reference"'}
    policy |= {"entropy": NONE, "kl": NONE, "entropy_between": {"low": interval(1.2), "high": above, "tokens": 900}}
    policy |= {"entropy_sampled": {**interval(2.02), "tokens": 900}, "censored": 1234, "why": why}
    bounds = {"entropy": None, "kl": None, "entropy_low": 1.2, "entropy_high": 2.9 if high else None}
    for reward in policy["rewards"].values():
        reward["curve"] = [{**level, **bounds} for level in reward["curve"]]
    for mix in found["tradeoff"]:
        mix["arms"][0] |= bounds
    return found


@pytest.mark.parametrize(("high", "told"), [(True, "1.20 to 2.90"), (False, "1.20 or more")])
@pytest.mark.slow
def test_entropy_bounds_are_drawn_and_in_the_report(high: bool, told: str) -> None:
    Path("eval.json").write_text(json.dumps(served(high)))
    outcome = call("plot", "eval.json", "-o", "plots", "--format", "svg")
    assert outcome.code == 0, outcome.err
    page = Path("plots/report.html").read_text()
    assert f"{told} <small>from samples 2.02</small> <small>1,234 censored</small>" in page
    assert '<small title="no &lt;b&gt;&#34;reference&#34;">not available</small>' in page
    assert Path("plots/price.svg").exists()


def test_bars_span_the_entropy_bounds() -> None:
    from irlhf.plotting.costs import _draw_bars
    from irlhf.plotting.style import looks, panels

    look = next(iter(looks(served(True)["policies"]).values()))
    _, (axis,) = panels(1)
    _draw_bars(axis, look, [(0.3, 1.2, 2.9), (0.6, 1.1, None)], {})
    ends = [tuple(map(float, line.get_ydata())) for line in axis.lines]
    assert ends == [(1.2, 2.9), (1.1, 1.1)]
    assert not any(math.isnan(one) for both in ends for one in both)
