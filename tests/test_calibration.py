"""What a policy can reach and how to ask it: measured by eval --calibrate, kept in policy.json."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Bench, Outcome, Row, call, slow_after, write
from scipy.optimize import minimize
from transformers import AutoTokenizer

from irlhf.core.bootstrap import Bootstrap
from irlhf.core.errors import DataError
from irlhf.core.example import Example
from irlhf.evaluation.arms import Pair
from irlhf.evaluation.calibration import LEAST_PROMPTS
from irlhf.evaluation.target_range import Reached, find_reach, shape_of
from irlhf.policy.policy_file import Achieved, Calibration, Policy, Reach, read_policy, write_calibration
from irlhf.policy.scales import nearest

MEASURED = Calibration(
    reach={"short": Reach(0.1, 0.8, (0.1, 0.4, 0.8), (0.2, 0.5, 0.7)), "colour": Reach(0, 1)},
    achieved=(Achieved({"short": 0.5}, {"short": 16.2, "colour": 3.0}, 40),),
    decoding={"temperature": 1.0},
    samples=400,
    prompts=40,
    splits={"validation": 400},
)

SWEEP = tuple(round(i / 10, 1) for i in range(11))
NOISE, PROMPTS_APART = 0.15, 0.08  # standard deviations, of a sample and of a prompt

Answer = Callable[[float], float]  # the mean actual of a number asked


def copied(bench: Bench) -> Path:
    """A folder with the bench's policy.json alone, which may be written to."""
    folder = Path("policy")
    folder.mkdir()
    (folder / "policy.json").write_bytes((bench.policy / "policy.json").read_bytes())
    return folder


def changed(folder: Path, change: dict[str, Any]) -> Policy:
    """Put keys into a policy.json as another hand would, and read it."""
    card = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps({**card, **change}))
    return read_policy(folder)


def test_a_reach_holds_what_is_wanted() -> None:
    assert [Reach(0.1, 0.8)(wanted) for wanted in (-1, 0.1, 0.5, 0.9)] == [0.1, 0.1, 0.5, 0.8]


def test_a_map_is_asked_backwards() -> None:
    reach = Reach(0.1, 0.8, (0.1, 0.4, 0.9), (0.2, 0.5, 0.7))
    assert [reach(wanted) for wanted in (0, 0.2, 0.35, 0.5, 0.6, 1)] == pytest.approx([0.1, 0.1, 0.25, 0.4, 0.65, 0.8])


def test_what_was_measured_comes_back_as_it_was(bench: Bench) -> None:
    folder = copied(bench)
    assert read_policy(folder).calibration is None
    write_calibration(folder, MEASURED)
    policy = read_policy(folder)
    assert policy.calibration == MEASURED
    assert policy.to_json()["calibration"] == MEASURED.to_json()


def test_measuring_a_policy_makes_no_other_of_it(bench: Bench) -> None:
    folder = copied(bench)
    before = changed(folder, {"from": "a later version"})
    write_calibration(folder, MEASURED)
    assert read_policy(folder).digest == before.digest
    card = json.loads((folder / "policy.json").read_text())
    assert card.pop("calibration")
    assert card == {**json.loads((bench.policy / "policy.json").read_text()), "from": "a later version"}
    assert before.digest != read_policy(bench.policy).digest


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("reach",), [], "reach: Input should be a valid dictionary"),
        (("reach", "short", "high"), 0.1, "a reach from 0.1 to 0.1"),
        (("reach", "short", "low"), "0", "'0' is not a number"),
        (("reach", "short", "xs"), [0.1, 0.4], "is not increasing"),
        (("reach", "short", "xs"), [0.1, 0.1, 0.4], "is not increasing"),
        (("reach", "short", "ys"), [0.2, 0.5, 0.4], "is not increasing"),
        (("reach", "shirt"), {"low": 0, "high": 1, "xs": [], "ys": []}, "unknown reward 'shirt'"),
        (("achieved", 0, "asked"), {"shirt": 1}, "unknown reward"),
        (("achieved", 0, "rewards"), {}, "without rewards"),
        (("achieved", 0, "n"), True, "True is not a count"),
        (("decoding",), {"temperature": None}, "None is not a number"),
        (("splits",), {"validation": -1}, "-1 is not a count"),
        (("prompts",), 0.5, "0.5 is not a count"),
    ],
)
def test_a_damaged_calibration_says_what_to_do(
    path: tuple[str | int, ...], value: object, told: str, bench: Bench
) -> None:
    tree: Any = json.loads(json.dumps(MEASURED.to_json()))
    inner = tree
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(DataError, match=r"delete the key and run eval --calibrate again") as raised:
        changed(copied(bench), {"calibration": tree})
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def obeys(asked: float) -> float:
    return asked


def saturates(asked: float) -> float:
    return min(asked, 0.6)


def collapses(asked: float) -> float:
    return asked if asked <= 0.8 else 0.36


def dips(asked: float) -> float:
    return asked if asked > 0.15 else 0.45


def squeezes(asked: float) -> float:
    return 0.25 + asked / 2


def opposes(asked: float) -> float:
    return 1 - asked


def ignores(asked: float) -> float:
    return 0.5


def answered(answer: Answer, seed: int, prompts: int = 60, drawn: bool = False) -> list[Pair]:
    """What a policy gives to a sweep, or to numbers drawn anew for each prompt: some prompts are easier."""
    rng = np.random.default_rng(seed)
    pairs = []
    for p in range(prompts):
        shift = rng.normal(0, PROMPTS_APART)
        for asked in rng.random(10) if drawn else SWEEP:
            actual = answer(float(asked)) + shift + rng.normal(0, NOISE)
            pairs.append(Pair(f"p{p}", float(asked), float(actual), float(asked), Example(id="x", prompt="p")))
    return pairs


def reached(answer: Answer, times: int = 30, drawn: bool = False) -> list[Reached]:
    return [find_reach(answered(answer, seed, drawn=drawn), Bootstrap(200, seed)) for seed in range(times)]


def reaches(found: list[Reached]) -> list[tuple[float, float]]:
    return [(one.reach.low, one.reach.high) for one in found if one.reach]


@pytest.mark.parametrize("drawn", [False, True])
def test_a_policy_that_obeys_everywhere_loses_nothing(drawn: bool) -> None:
    ends = reaches(reached(obeys, drawn=drawn))
    assert len(ends) == 30
    assert sum(low < 0.03 and high > 0.97 for low, high in ends) >= 29


@pytest.mark.parametrize("drawn", [False, True])
def test_asking_beyond_a_collapse_is_held_before_it(drawn: bool) -> None:
    ends = reaches(reached(collapses, drawn=drawn))
    assert len(ends) == 30
    assert all(high <= 0.81 for _, high in ends)
    assert sum(high >= 0.7 and low < 0.03 for low, high in ends) >= 28


def test_asking_for_less_than_the_least_is_held_too() -> None:
    assert all(low in (0.1, 0.2) and high == 1 for low, high in reaches(reached(dips)))


@pytest.mark.parametrize("answer", slow_after(3, [collapses, saturates, obeys, dips, squeezes]))
def test_the_most_never_gives_less_than_a_little_less(answer: Answer) -> None:
    for _, high in reaches(reached(answer)):
        assert answer(high) >= max(answer(asked) for asked in SWEEP if asked <= high) - 1e-9


@pytest.mark.parametrize("answer", [obeys, saturates, collapses, dips, squeezes])
def test_the_samples_themselves_rise_to_the_top_but_for_noise(answer: Answer) -> None:
    pairs = answered(answer, 0, prompts=200)
    reach = find_reach(pairs, Bootstrap(200, 0)).reach
    assert reach
    means = {level: np.mean([one.actual for one in pairs if one.target == level]) for level in SWEEP}
    error = (NOISE**2 + PROMPTS_APART**2) ** 0.5 * (2 / 200) ** 0.5
    assert all(means[reach.high] >= means[level] - 3 * error for level in SWEEP if level <= reach.high)


@pytest.mark.parametrize("drawn", [False, True])
def test_noise_has_no_reach_and_no_map(drawn: bool) -> None:
    assert len(reaches(reached(ignores, 60, drawn))) <= 4


def test_a_policy_that_does_the_opposite_has_no_reach() -> None:
    assert reaches(reached(opposes)) == []


@pytest.mark.parametrize("answer", slow_after(1, [saturates, obeys]))
def test_a_map_that_would_not_help_is_rarely_stored(answer: Answer) -> None:
    found = reached(answer, 100)
    assert sum(bool(one.reach and one.reach.xs) for one in found) <= 4


def test_what_a_map_gains_is_what_new_samples_gain() -> None:
    found = reached(squeezes, 20)
    assert sum(bool(one.reach and one.reach.xs) for one in found) >= 17
    rng = np.random.default_rng(1)
    wanted = rng.choice(SWEEP, 20_000)
    noise = rng.normal(0, (NOISE**2 + PROMPTS_APART**2) ** 0.5, len(wanted))
    gains = []
    for one in found:
        assert one.reach
        asked = {number: one.reach(number) for number in SWEEP}
        plain, mapped = (np.array([squeezes(ask(w)) for w in wanted]) + noise for ask in (obeys, asked.__getitem__))
        gains.append(float(np.abs(plain - wanted).mean() - np.abs(mapped - wanted).mean()))
    assert np.mean([one.gain["value"] for one in found if one.gain]) == pytest.approx(np.mean(gains), abs=0.005)
    assert np.mean(gains) > 0.01


def test_the_map_of_a_policy_is_its_inverse() -> None:
    reach = find_reach(answered(squeezes, 0, prompts=400), Bootstrap(200, 0)).reach
    assert reach
    assert [reach(squeezes(asked)) for asked in (0.2, 0.5, 0.8)] == pytest.approx([0.2, 0.5, 0.8], abs=0.06)
    assert (reach(0.1), reach(0.95)) == (0, 1)


def test_a_shape_is_the_nearest_that_falls_rises_and_falls() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        means, counts = rng.random(6), rng.integers(1, 9, 6).astype(float)
        best = min(_brute(means, counts, i, j) for i in range(6) for j in range(i, 6))
        assert counts @ (shape_of(means, counts).curve - means) ** 2 == pytest.approx(best, abs=1e-5)


def _brute(means: Any, counts: Any, start: int, stop: int) -> float:
    """The squared distance of the nearest curve that falls to one level, rises to another and falls."""
    signs = np.array([-1 if i < start or i >= stop else 1 for i in range(len(means) - 1)])
    limits = {"type": "ineq", "fun": lambda curve: signs * np.diff(curve)}
    found = minimize(lambda curve: counts @ (curve - means) ** 2, np.full(len(means), 0.5), constraints=limits)
    return float(found.fun)


def test_a_number_that_hardly_anybody_was_asked_for_says_nothing() -> None:
    pairs = answered(obeys, 0)
    odd = [one._replace(target=1.5, actual=3.0) for one in pairs[:5]]
    assert reaches([find_reach([*pairs, *odd], Bootstrap(200, 0))]) == [(0, 1)]


def test_one_number_alone_has_no_reach() -> None:
    pairs = [one for one in answered(obeys, 0) if one.target == 0.5]
    assert find_reach(pairs, Bootstrap(200, 0)) == Reached(None, None, None, None, None)


def samples(policy: Path, split: str = "validation", prompts: int = 30, **fields: Any) -> list[Row]:
    """Scored samples of a grid of requests: short is obeyed up to 0.7, colour not at all."""
    card = read_policy(policy)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(prompts):
        for k, (short, colour) in enumerate((x, y) for x in (0.1, 0.4, 0.7, 1.0) for y in (0.2, 0.8)):
            reward = card.reward("short").scale.inverse(short if short <= 0.7 else 0.2)
            row = {"id": f"g{i}/{card.digest}/0/{k}", "prompt": "p", "completion": "c", "group": f"g{i}", "tokens": 3}
            row |= {"asked": {"short": short, "colour": colour}, "target": {"short": "0.1:1:0.3", "colour": "data"}}
            row |= {"rewards": {"short": reward + i % 3, "colour": rng.integers(0, 11)}, "policy": card.digest}
            rows.append({**row, "rewards": {k: float(v) for k, v in row["rewards"].items()}, "split": split, **fields})
    return rows


def calibrated(bench: Bench, *rows: Row, folder: Path | None = None) -> Outcome:
    write(Path("samples.jsonl"), list(rows))
    return call("eval", "samples.jsonl", "--calibrate", folder or copied(bench), "--resamples", "200")


def test_eval_stores_what_a_policy_reaches(bench: Bench) -> None:
    folder = copied(bench)
    outcome = calibrated(bench, *samples(folder, decoding={"temperature": 1.0}), folder=folder)
    assert outcome.code == 0, outcome.err
    stored = read_policy(folder).calibration
    assert stored
    assert set(stored.reach) == {"short"}
    assert (stored.reach["short"].low, stored.reach["short"].high) == (0.1, 0.7)
    assert (stored.samples, stored.prompts, stored.splits) == (240, 30, {"validation": 240})
    assert stored.decoding == {"temperature": 1.0}
    assert read_policy(folder).digest == read_policy(bench.policy).digest
    assert "policy short: reach 0.1 to 0.7 (rise " in outcome.err
    assert "policy colour: no reach: asking for more was not shown to bring more" in outcome.err
    assert "240 samples of 30 prompts (validation 240); remembers what 8 requests brought" in outcome.err
    (found,) = json.loads(Path("eval.json").read_text())["policies"].values()
    assert found["calibration"]["rewards"]["short"]["reach"] == [0.1, 0.7]
    assert found["calibration"]["rewards"]["short"]["fall"]["low"] > 0
    assert found["calibration"]["requests"] == 8


def test_whoever_serves_the_policy_asks_for_what_was_measured_too(bench: Bench) -> None:
    folder = Path(shutil.copytree(bench.policy, "policy"))
    outcome = calibrated(bench, *samples(folder, decoding={"temperature": 1.0}), folder=folder)
    assert outcome.code == 0, outcome.err
    messages = [{"role": "user", "content": "How?"}]
    shown = [
        AutoTokenizer.from_pretrained(one).apply_chat_template(messages, short=1.0, tokenize=False)
        for one in (bench.policy, folder)
    ]
    most = read_policy(bench.policy).known("short")
    assert [float(text.split("short: ")[1]) for text in shown] == [
        round(nearest(wanted, most), 2) for wanted in (1.0, 0.7)
    ]


def test_a_request_is_remembered_with_the_mean_rewards_that_it_brought(bench: Bench) -> None:
    folder = copied(bench)
    rows = samples(folder)
    rare = [{**row, "id": f"{row['id']}r", "asked": {"short": 0.3}} for row in rows[: 8 * (LEAST_PROMPTS - 1) : 8]]
    assert calibrated(bench, *rows, *rare, folder=folder).code == 0
    stored = read_policy(folder).calibration
    assert stored
    mine = [row for row in rows if row["asked"] == {"short": 0.4, "colour": 0.8}]
    (found,) = (one for one in stored.achieved if one.prompt_numbers == {"short": 0.4, "colour": 0.8})
    assert found.rewards["short"] == pytest.approx(np.mean([row["rewards"]["short"] for row in mine]))
    assert (found.n, len(stored.achieved)) == (30, 8)


def test_bounds_and_mixes_teach_nothing(bench: Bench) -> None:
    folder = copied(bench)
    rows = samples(folder)
    other = [{**row, "id": f"{row['id']}b", "rewards": {"short": 0.0, "colour": 0.0}} for row in rows]
    bounds = [{**row, "target": {"short": "0.1..", "colour": "..0.9"}} for row in other]
    mixes = [{**row, "id": f"{row['id']}m", "target": {"short": "1*", "colour": "2*"}} for row in other]
    assert calibrated(bench, *rows, *bounds, *mixes, folder=folder).code == 0
    with_them = read_policy(folder).calibration
    assert calibrated(bench, *rows, folder=folder).code == 0
    assert read_policy(folder).calibration == with_them


def test_validation_samples_count_before_others(bench: Bench) -> None:
    folder = copied(bench)
    test = [{**row, "id": f"t{row['id']}", "group": f"t{row['group']}"} for row in samples(folder, "test")]
    outcome = calibrated(bench, *samples(folder), *test, folder=folder)
    assert "(validation 240)" in outcome.err
    assert "evaluate it on other prompts" not in outcome.err


def test_test_samples_are_warned_of(bench: Bench) -> None:
    folder = copied(bench)
    outcome = calibrated(bench, *samples(folder, "test"), folder=folder)
    assert outcome.code == 0
    assert "calibrated on 240 samples of the test split; evaluate it on other prompts" in outcome.err


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        ({"split": "train"}, 1, "240 samples are of prompts of the train split"),
        ({"prompts": LEAST_PROMPTS - 1}, 1, "at least 20 prompts are needed; sample with -t short=0:1:0.1"),
        ({"kept": "best", "candidates": 2}, 2, "no samples of it"),
    ],
)
def test_samples_unfit_for_calibration_are_rejected(fields: dict[str, Any], code: int, told: str, bench: Bench) -> None:
    folder = copied(bench)
    outcome = calibrated(bench, *samples(folder, **fields), folder=folder)
    assert outcome.code == code
    assert told in outcome.err.splitlines()[-1]
    assert read_policy(folder).calibration is None
    assert not Path("eval.json").exists()


def test_samples_drawn_in_two_ways_are_refused(bench: Bench) -> None:
    folder = copied(bench)
    cold = [{**row, "id": f"{row['id']}c"} for row in samples(folder, decoding={"temperature": 0.5})]
    outcome = calibrated(bench, *samples(folder, decoding={"temperature": 1.0}), *cold, folder=folder)
    assert outcome.code == 1
    assert "{'temperature': 1.0} and {'temperature': 0.5}" in outcome.err.splitlines()[-1]


def test_a_policy_that_reads_no_rewards_is_not_calibrated(bench: Bench) -> None:
    folder = copied(bench)
    changed(folder, {"baseline": "plain", "template": {"place": "none"}})
    outcome = calibrated(bench, *samples(folder), folder=folder)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "its prompts contain no rewards" in outcome.err
