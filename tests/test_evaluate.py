"""eval: from files of samples to eval.json. The figures themselves are held in test_figures.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Bench, Row, call, write

from irlhf.evaluation.evaluate import evaluate
from irlhf.evaluation.settings import EvalSettings
from irlhf.policy.evaluation_file import verdicts
from irlhf.policy.policy_file import read_policy


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


def test_a_perfect_policy_tracks_in_either_direction(bench: Bench) -> None:
    (policy,) = evaluated(bench, samples(bench))["policies"].values()
    found = policy["rewards"]["short"]
    assert not policy["blind"]
    assert (found["n"], found["prompts"], policy["samples"]) == (160, 40, 160)
    assert found["within"]["spearman"]["value"] == pytest.approx(1)
    scale = read_policy(bench.policy).reward("short").scale
    assert found["actual"]["value"] == pytest.approx(np.mean([scale(25 - 18 * a) for a in (0.1, 0.4, 0.6, 0.9)]))
    assert (policy["length"]["tokens"]["value"], policy["entropy"]["value"], policy["unfinished"]) == (10, 1.5, 0)
    assert (policy["kl"], policy["cost"]) == ("not available", {"candidates": 1, "tokens": 10})


def test_several_files_of_a_policy_are_one_evaluation(bench: Bench) -> None:
    rows = samples(bench)
    (policy,) = evaluated(bench, rows[:100], rows[100:])["policies"].values()
    assert policy["rewards"]["short"]["n"] == 160


def test_an_unmeasured_entropy_is_not_available(bench: Bench) -> None:
    (policy,) = evaluated(bench, samples(bench, entropy=None, finish="length"))["policies"].values()
    assert policy["entropy"] == "not available"
    assert policy["unfinished"] == 160


def test_kl_is_the_mean_of_logprob_less_reference(bench: Bench) -> None:
    (policy,) = evaluated(bench, samples(bench, logprob=-20.0, reference=-23.5))["policies"].values()
    assert policy["kl"]["value"] == pytest.approx(3.5)
    assert {level["kl"] for level in policy["rewards"]["short"]["curve"]} == {3.5}


def test_kept_samples_are_an_arm_of_their_own_with_their_cost(bench: Bench) -> None:
    kept = samples(bench, kept="nearest", candidates=4, spent=44, logprob=-20.0, reference=-23.5)
    plain, best = evaluated(bench, samples(bench), kept)["policies"].values()
    assert best["name"] == f"{bench.policy.name}, nearest of 4"
    assert (plain["cost"]["tokens"], best["cost"]) == (10, {"candidates": 4, "tokens": 44})
    assert best["kl"] == "not available"
    assert best["digest"] == plain["digest"]


WAY = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 128, "guidance": 1.0}


@pytest.mark.parametrize(
    ("second", "warned"),
    [
        ({}, False),
        (WAY, False),
        ({**WAY, "max_tokens": 64}, False),
        ({**WAY, "temperature": 0.5}, True),
        ({**WAY, "top_p": 0.9}, True),
        ({**WAY, "guidance": 2}, True),
    ],
)
def test_different_decoding_settings_are_warned_of(
    second: Row, warned: bool, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other = samples(bench, decoding=WAY)[:80], samples(bench, decoding=second)[80:]
    (policy,) = evaluated(bench, first, other)["policies"].values()
    assert policy["decoding"] == ([WAY, second] if second not in ({}, WAY) else [WAY])
    how = f"samples of {bench.policy.name} were drawn with different temperature, top-p or guidance;"
    assert (how in capsys.readouterr().err) == warned


def test_kept_samples_are_checked_for_decoding_separately(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    kept = samples(bench, kept="nearest", candidates=4, spent=44, decoding={**WAY, "guidance": 2})
    plain, best = evaluated(bench, samples(bench, decoding=WAY), kept)["policies"].values()
    assert (plain["decoding"], best["decoding"]) == ([WAY], [{**WAY, "guidance": 2}])
    assert "with different temperature" not in capsys.readouterr().err


def test_samples_without_decoding_settings_are_evaluated(bench: Bench) -> None:
    (policy,) = evaluated(bench, samples(bench))["policies"].values()
    assert policy["decoding"] == []


def test_an_at_least_target_succeeds_above_its_threshold(bench: Bench) -> None:
    rows = samples(bench)
    for row in rows:
        row["target"] = {"short": "0.0.."}
    (policy,) = evaluated(bench, rows)["policies"].values()
    assert policy["rewards"]["short"]["at_least"]["share"]["value"] == 1


@pytest.mark.parametrize(
    ("target", "low", "high"), [("..0.5", 0, 0.5), ("0.2..0.7", 0.2, 0.7), ("~0.5..", 0.5, 1), ("0.5..", 0.5, 1)]
)
def test_a_range_succeeds_between_its_bounds(target: str, low: float, high: float, bench: Bench) -> None:
    (one,) = evaluated(bench, samples(bench, target={"short": target}))["policies"].values()
    scale = read_policy(bench.policy).reward("short").scale
    kept = [low <= scale(25 - 18 * asked) <= high for asked in (0.1, 0.4, 0.6, 0.9)]
    assert 0 < sum(kept) < 4
    assert one["rewards"]["short"]["at_least"]["share"]["value"] == pytest.approx(sum(kept) / 4)


def test_targets_of_a_mix_do_not_count_for_single_rewards(bench: Bench) -> None:
    both = {"asked": {"short": 0.4, "colour": 0.6}, "rewards": {"short": 9, "colour": 4}}
    alone, ranged = {"short": "1*"}, {"short": "1*", "colour": "0.5.."}
    (one,) = evaluated(bench, samples(bench, **both, target=alone))["policies"].values()
    assert one["rewards"] == {}
    (one,) = evaluated(bench, samples(bench, **both, target=ranged))["policies"].values()
    assert list(one["rewards"]) == ["colour"]


def test_cross_talk_needs_only_the_targets_that_move(bench: Bench) -> None:
    rows = samples(bench)
    for row in rows:
        row["asked"]["colour"] = 0.5
        row["rewards"]["colour"] = row["rewards"]["short"] % 11
    (policy,) = evaluated(bench, rows)["policies"].values()
    found = policy["crosstalk"]
    assert (found["targets"], found["rewards"]) == (["short"], ["short", "colour"])
    assert evaluated(bench, samples(bench))["policies"].popitem()[1]["crosstalk"] == {}


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
    assert (
        "intervals from fewer than 50 prompts are too narrow: policy (5)"
        in call("eval", "samples.jsonl", "--policy", bench.policy).err
    )


def test_policies_beside_the_samples_are_found(bench: Bench) -> None:
    Path("policy").symlink_to(bench.policy)
    write(Path("samples.jsonl"), samples(bench))
    outcome = call("eval", "samples.jsonl")
    assert outcome.code == 0
    assert "policy: short follows its target: 1.00" in outcome.err


def mixed(bench: Bench, short: float, colour: float, weights: dict[str, str], **fields: Any) -> list[Row]:
    """Samples asked for a mix, which come out alike but for a little."""
    rows = samples(bench, **fields)
    for i, row in enumerate(rows):
        row["id"] += "".join(weights.values())
        row |= {"target": weights, "asked": {"short": 0.9, "colour": 0.9}}
        row["rewards"] = {"short": short + i % 3, "colour": colour + i % 2}
    return rows


def test_fronts_contain_the_rewards_of_the_mixes(bench: Bench) -> None:
    one = mixed(bench, 6, 2, {"short": "1*", "colour": "0*"})
    other = mixed(bench, 16, 8, {"short": "1*", "colour": "1*"})
    found = evaluated(bench, one, other)["fronts"]
    (arm,) = found["arms"]
    policy = read_policy(bench.policy)
    points = [point["rewards"] for point in arm["points"]]
    assert points[0]["short"] == pytest.approx(
        np.mean([policy.reward("short").zscore(6 + i % 3) for i in range(120)]), abs=0.02
    )
    assert all(point["chosen"] for point in arm["points"])
    assert (found["weightings"], found["prompts"], found["samples"]) == (2, 40, 160)
    assert arm["hypervolume"]["low"] <= arm["hypervolume"]["value"] <= arm["hypervolume"]["high"]


def test_one_weighting_has_no_front(bench: Bench) -> None:
    assert evaluated(bench, mixed(bench, 6, 2, {"short": "1*", "colour": "1*"}))["fronts"] == {}


def test_policies_are_compared_prompt_by_prompt(bench: Bench) -> None:
    worse = samples(bench, kept="best", candidates=2)
    for i, row in enumerate(worse):
        row["rewards"]["short"] += 2 + i // 4 % 2
    (found,) = evaluated(bench, samples(bench), worse)["comparisons"]
    by_kind = {(one["figure"], one["reward"]): one["difference"] for one in found["figures"]}
    assert (found["name"], found["against_name"]) == (bench.policy.name, f"{bench.policy.name}, best of 2")
    assert by_kind["tokens", ""]["value"] == 0
    assert by_kind["error", "short"]["high"] < 0
    assert by_kind["within", "short"]["low"] <= by_kind["within", "short"]["high"]


def test_one_policy_has_no_comparisons(bench: Bench) -> None:
    assert evaluated(bench, samples(bench))["comparisons"] == []


def test_a_policy_without_rewards_in_its_prompts_counts_each_sample_once(bench: Bench) -> None:
    blind = json.loads((bench.policy / "policy.json").read_text())
    blind |= {"baseline": "plain", "template": {"place": "none"}}
    Path("plain").mkdir()
    Path("plain/policy.json").write_text(json.dumps(blind))
    digest = read_policy(Path("plain")).digest
    asked = samples(bench, seed=7, policy=digest)
    mix = [{**row, "target": {"short": "1*"}} for row in asked]
    write(Path("samples.jsonl"), asked)
    write(Path("mix.jsonl"), mix)
    result = evaluate(["samples.jsonl", "mix.jsonl"], "eval.json", EvalSettings(("plain",), resamples=100))
    assert [arm["n"] for arm in result["tradeoff"][0]["arms"]] == [160]
    assert [one["rows"] for one in result["provenance"]["inputs"]] == [160, 160]


def test_the_model_card_gets_the_metrics(bench: Bench) -> None:
    Path("policy").mkdir()
    for name in ("policy.json", "README.md"):
        Path("policy", name).write_bytes((bench.policy / name).read_bytes())
    write(Path("samples.jsonl"), samples(bench))
    assert call("eval", "samples.jsonl").code == 0
    assert "1.000 [1.000, 1.000]" in Path("policy/README.md").read_text()


def test_gold_has_the_direction_of_its_reward(bench: Bench) -> None:
    rows = samples(bench)
    for row in rows:
        row["gold"] = {"short": 4 * row["rewards"]["short"]}  # another count of the same, so less of it is better
    (policy,) = evaluated(bench, rows)["policies"].values()
    gold = policy["rewards"]["short"]["gold"]
    assert gold["within"]["value"] == pytest.approx(1)
    assert gold["over"]["peak"] == gold["over"]["top"]
    curve = [level["gold"]["value"] for level in policy["rewards"]["short"]["curve"]]
    assert curve == sorted(curve)


def test_an_error_equal_to_the_tolerance_is_a_success(bench: Bench) -> None:
    card = json.loads((bench.policy / "policy.json").read_text())
    card["rewards"][0]["scale"] = {"kind": "none", "direction": "higher", "xs": [], "ys": []}
    Path("policy").mkdir()
    Path("policy/policy.json").write_text(json.dumps(card))
    rows = samples(bench, policy=read_policy(Path("policy")).digest)
    for row in rows:
        row["rewards"]["short"] = round(row["asked"]["short"] + 0.1, 6)  # 0.7 - 0.6 is more than 0.1 to a computer
    write(Path("samples.jsonl"), rows)
    (policy,) = evaluate(["samples.jsonl"], "eval.json", EvalSettings(resamples=100))["policies"].values()
    assert policy["rewards"]["short"]["success"]["share"]["value"] == 1


def test_samples_on_training_prompts_are_warned_of(bench: Bench) -> None:
    write(Path("samples.jsonl"), samples(bench, split="train"))
    assert (
        "160 samples are of prompts of the train split" in call("eval", "samples.jsonl", "--policy", bench.policy).err
    )
    assert json.loads(Path("eval.json").read_text())["policies"].popitem()[1]["splits"] == {"train": 160}


def test_policies_of_different_rewards_are_evaluated_side_by_side(bench: Bench) -> None:
    card = json.loads((bench.policy / "policy.json").read_text())
    card["rewards"][1]["name"] = "other"
    card["rewards"][0]["scale"] = {"kind": "zscore", "direction": "lower", "xs": [-10, 3], "ys": []}
    Path("second").mkdir()
    Path("second/policy.json").write_text(json.dumps(card))
    digest = read_policy(Path("second")).digest
    write(Path("one.jsonl"), samples(bench))
    mix = [{**row, "id": row["id"] + "m", "target": {"other": "1*"}} for row in samples(bench, policy=digest)]
    write(Path("two.jsonl"), [*samples(bench, policy=digest), *[{**row, "rewards": {"other": 1.0}} for row in mix]])
    outcome = call("eval", "one.jsonl", "two.jsonl", "--policy", bench.policy, "--policy", "second")
    assert outcome.code == 0, outcome.err
    assert "mixes with other are not compared" in outcome.err
    found = json.loads(Path("eval.json").read_text())
    assert found["tradeoff"] == []
    assert {one["figure"] for one in found["comparisons"][0]["figures"]} == {"within", "tokens"}


@pytest.mark.parametrize(
    ("options", "told"), [(("-o", "folder"), "folder is a folder"), (("--tolerance", "inf"), "inf")]
)
def test_invalid_outputs_and_tolerances_are_rejected_first(options: tuple[str, ...], told: str, bench: Bench) -> None:
    Path("folder").mkdir()
    write(Path("samples.jsonl"), samples(bench, count=5))
    outcome = call("eval", "samples.jsonl", "--policy", bench.policy, *options)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert told in outcome.err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rewards": {"short": 1.7e308}}, "rewards.short is 1.7e+308"),
        ({"gold": {"short": -1e300}}, "gold.short is -1e+300"),
        ({"entropy": 1e308}, "'entropy' is 1e+308"),
        ({"target": {"short": "whatever"}}, "target 'short=whatever': invalid"),
        ({"target": {"short": "1e999*"}}, "the number is too large"),
        ({"target": {"short": "-1*"}}, "invalid from column"),
    ],
)
def test_an_invalid_sample_is_a_one_line_error(change: dict[str, Any], told: str, bench: Bench) -> None:
    write(Path("samples.jsonl"), samples(bench, **change))
    outcome = call("eval", "samples.jsonl", "--policy", bench.policy)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert told in outcome.err
    assert not Path("eval.json").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", None),
        ("deviation", 0),
        ("weight", "much"),
        ("name", ["short"]),
        ("name", "a\nb"),
        ("scale", {"kind": "quantile", "direction": "lower", "xs": [1, "2"], "ys": [0, 1]}),
        ("scale", {"kind": "quantile", "direction": "lower", "xs": [1, 2], "ys": [0]}),
        ("scale", {"kind": "zscore", "direction": "lower", "xs": [1, 0], "ys": []}),
        ("scale", {"kind": "linear", "direction": "up", "xs": [1, 2], "ys": []}),
        ("scale", {"kind": "cubic", "direction": "lower", "xs": [], "ys": []}),
    ],
)
def test_a_damaged_policy_is_a_one_line_error(key: str, value: object, bench: Bench) -> None:
    card = json.loads((bench.policy / "policy.json").read_text())
    card["rewards"][0][key] = value
    Path("policy").mkdir()
    Path("policy/policy.json").write_text(json.dumps(card))
    write(Path("samples.jsonl"), samples(bench))
    outcome = call("eval", "samples.jsonl")
    assert outcome.code in (1, 2)
    assert outcome.err.count("\n") == 1
    assert "policy.json" in outcome.err


def test_a_link_that_leads_to_itself_is_no_file(bench: Bench) -> None:
    Path("loop").symlink_to("loop")
    assert call("eval", "loop", "--policy", bench.policy).code == 2


def bounded(bench: Bench) -> list[Row]:
    """Samples that requested a bound and a mix: three of four of each prompt keep the bound."""
    rows = samples(bench)
    for row in rows:
        row["target"] = {"short": "0.3.."}
        row["asked"] = {"short": 0.3}
    return rows


def test_bounds_and_the_mix_beside_them_are_measured(bench: Bench) -> None:
    result = evaluated(bench, bounded(bench))
    (policy,) = result["policies"].values()
    (entry,) = policy["bounds"]
    scale = read_policy(bench.policy).reward("short").scale
    actual = [scale(25 - 18 * a) for a in (0.1, 0.4, 0.6, 0.9)]
    assert entry["kept"]["value"] == pytest.approx(np.mean([number >= 0.3 for number in actual]))
    assert 0 < entry["kept"]["value"] < 1
    assert entry["rewards"]["short"]["value"] == pytest.approx(np.mean(actual))
    assert (entry["bounds"], entry["weighted"], entry["n"], entry["prompts"]) == (["short"], None, 160, 40)


def test_kept_bounds_are_shown(bench: Bench) -> None:
    write(Path("s.jsonl"), bounded(bench))
    done = call("eval", "s.jsonl", "--policy", bench.policy)
    assert done.code == 0, done.err
    (line,) = (line for line in done.err.splitlines() if "of the samples keep" in line)
    assert "of the samples keep short=0.3..; n = 160 of 40 prompts" in line


def test_the_verdict_comes_first(bench: Bench) -> None:
    write(Path("s.jsonl"), samples(bench))
    lines = call("eval", "s.jsonl", "--policy", bench.policy, "--resamples", 100).err.splitlines()
    verdict = next(i for i, line in enumerate(lines) if "short follows its target: 1.00 [1.00, 1.00]" in line)
    assert "mean error" in lines[verdict + 1]


@pytest.mark.parametrize(
    ("correlation", "blind", "words"),
    [
        ((0.8, 0.7, 0.9), False, "follows its target"),
        ((0.2, 0.1, 0.3), False, "follows its target weakly"),
        ((0.1, -0.1, 0.3), False, "does not follow its target"),
        ((-0.1, -0.2, -0.05), False, "goes against its target weakly"),
        ((-0.8, -0.9, -0.7), False, "goes against its target"),
        ((-0.1, -0.2, -0.05), True, "has no reward line to follow"),
    ],
)
def test_a_correlation_has_its_verdict(correlation: tuple[float, float, float], blind: bool, words: str) -> None:
    figure = dict(zip(("value", "low", "high"), correlation, strict=True))
    policy = {"blind": blind, "rewards": {"short": {"within": {"spearman": figure}, "pooled": {}}}}
    assert list(verdicts(policy)) == [("short", words, figure)]


def test_a_single_target_cannot_show_whether_it_is_followed(bench: Bench) -> None:
    write(Path("s.jsonl"), [{**row, "asked": {"short": 0.5}} for row in samples(bench)])
    lines = call("eval", "s.jsonl", "--policy", bench.policy, "--resamples", 100).err
    assert "short: a single target was requested, which cannot show whether it is followed; sample several" in lines
    assert "without steering" not in lines


def test_a_requested_reward_without_scores_is_reported(bench: Bench) -> None:
    rows = [{**row, "asked": {"short": 0.1, "colour": 0.5}} for row in samples(bench)]
    write(Path("s.jsonl"), rows)
    done = call("eval", "s.jsonl", "--policy", bench.policy)
    assert "160 of 160 samples requested colour and have no reward of this name" in done.err
    (policy,) = json.loads(Path("eval.json").read_text())["policies"].values()
    assert policy["unscored"] == {"colour": 160}


def test_an_evaluation_of_other_samples_is_not_overwritten(bench: Bench) -> None:
    write(Path("s.jsonl"), samples(bench))
    write(Path("other.jsonl"), samples(bench, count=30))
    assert call("eval", "s.jsonl", "--policy", bench.policy).code == 0
    before = Path("eval.json").read_bytes()
    done = call("eval", "other.jsonl", "--policy", bench.policy)
    assert (done.code, Path("eval.json").read_bytes()) == (2, before)
    assert "eval.json evaluates s.jsonl; choose another output with -o, or delete it" in done.err
    Path("s.jsonl").rename("moved.jsonl")
    assert call("eval", "moved.jsonl", "--policy", bench.policy).code == 0  # the same samples
    Path("moved.jsonl").rename("s.jsonl")
    assert call("eval", "s.jsonl", "--policy", bench.policy).code == 0


def test_the_mix_beside_a_bound_is_measured(bench: Bench) -> None:
    rows = samples(bench)
    for i, row in enumerate(rows):
        row["target"], row["asked"] = {"short": "0.3..", "colour": "1*"}, {"short": 0.3, "colour": 0.9}
        row["rewards"] = {**row["rewards"], "colour": float(i % 4)}
    result = evaluated(bench, rows)
    (policy,) = result["policies"].values()
    (entry,) = policy["bounds"]
    colour = read_policy(bench.policy).reward("colour")
    assert (entry["bounds"], entry["weights"], result["tradeoff"]) == (["short"], {"colour": 1.0}, [])
    assert entry["weighted"]["value"] == pytest.approx(np.mean([colour.zscore(i) for i in range(4)]))
    assert entry["rewards"]["colour"]["value"] == pytest.approx(np.mean([colour.scale(i) for i in range(4)]))
