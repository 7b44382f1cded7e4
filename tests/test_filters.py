"""score --keep RULES: each rule keeps what it says, in = out + rejected, and the guards keep as much as they can."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from helpers import Outcome, Row, call, names, process, read, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irlhf.policy.policy_file import Policy, PolicyReward, read_policy, write_policy
from irlhf.policy.scales import Scale
from irlhf.policy.templates import find_template
from irlhf.scoring.filters import select
from irlhf.scoring.settings import SelectSettings

# Weighted, a row is worth (2 · (10 − short) / 2 + colour) / 3.
NAMES = ("short", "colour")
SHORT = PolicyReward("short", 2.0, Scale("zscore", "lower", (10.0, 2.0), ()), 10.0, 2.0, {})
COLOUR = PolicyReward("colour", 1.0, Scale("zscore", "higher", (0.0, 1.0), ()), 0.0, 1.0, {})


@pytest.fixture
def policy() -> Policy:
    return made("policy")


def made(folder: str, cards: Sequence[PolicyReward] = (SHORT, COLOUR), **fields: Any) -> Policy:
    Path(folder).mkdir()
    usual = Policy("tiny", find_template("reward-end"), tuple(cards), (), context=64)
    write_policy(Path(folder), replace(usual, **fields))
    return read_policy(Path(folder))


def samples(policy: Policy, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return scored samples: `of` is the prompt, `short` and `colour` the rewards, all else stands as it is."""
    return [
        {
            "id": f"s{number}",
            "prompt": "How?",
            "completion": row.get("completion", f"So {number}."),
            "group": row.get("of", "p"),
            "policy": policy.digest,
            **({"rewards": rewards} if (rewards := {name: row[name] for name in NAMES if name in row}) else {}),
            **{name: value for name, value in row.items() if name not in ("of", "completion", *NAMES)},
        }
        for number, row in enumerate(rows)
    ]


def run(rows: Sequence[Row], rules: str, *more: object) -> Outcome:
    write(Path("in.jsonl"), rows)
    return call("score", "in.jsonl", "--keep", rules, "-o", "out.jsonl", *more)


def kept(rows: Sequence[Row], rules: str, *more: object) -> list[int]:
    """Return the numbers of the rows that are kept, all others being in the rejected file with their rule."""
    outcome = run(rows, rules, *more)
    assert outcome.code == 0, outcome.err
    return [number for number, row in enumerate(rows) if row in read(Path("out.jsonl"))]


def each(name: str, *numbers: float) -> list[dict[str, float]]:
    return [{name: number} for number in numbers]


def pairs(*numbers: tuple[float, float]) -> list[dict[str, float]]:
    return [{"short": short, "colour": colour} for short, colour in numbers]


def nats(*distances: float) -> list[dict[str, float]]:
    return [{"logprob": -1.0, "reference": -1.0 - one} for one in distances]


P, Q = {"of": "p", "short": 1}, {"of": "q", "short": 1}

CASES: dict[str, tuple[str, list[dict[str, Any]], list[int]]] = {
    "equal answers to one prompt": (
        "distinct",
        [{**P, "completion": "a"}, {**P, "completion": "b"}, {**P, "completion": "a"}, {**Q, "completion": "a"}],
        [0, 1, 3],
    ),
    "words that differ in a space": ("distinct", [{"completion": "a b"}, {"completion": "a  b"}], [0, 1]),
    "answers all equal": ("distinct", [{"completion": "a"}] * 3, [0]),
    # Of short less is better: 2 is beaten by 0 in both, 3 by 1; 0 and 1 trade one for the other.
    "a front": ("front", pairs((10, 5), (8, 1), (12, 3), (8, 0)), [0, 1]),
    "a front of each prompt": ("front", [{**P, "colour": 9}, {**Q, "colour": 0}, {**P, "colour": 8}], [0, 1]),
    "a front of one row": ("front", pairs((10, 5)), [0]),
    "a front of equal rows": ("front", pairs((10, 5), (10, 5), (10, 4)), [0, 1]),
    # Worth 2, 1, 3, 0 thirds.
    "the best half": ("top=0.5", pairs((8, 0), (10, 1), (7, 0), (11, 1)), [0, 2]),
    "the best half of three, rounded upwards": ("top=0.5", pairs((8, 0), (10, 1), (7, 0)), [0, 2]),
    "the best half of one": ("top=0.5", pairs((8, 0)), [0]),
    "the best half of equals is the first": ("top=0.5", pairs(*[(8, 0)] * 4), [0, 1]),
    "the best of all prompts together": (
        "top=0.5",
        [{**P, "colour": 1}, {**P, "colour": 2}, {**Q, "colour": 3}, {**Q, "colour": 4}],
        [2, 3],
    ),
    "the whole": ("top=1", pairs((8, 0), (9, 0)), [0, 1]),
    "nothing of it is the one best": ("top=0", pairs((8, 0), (7, 0), (9, 0)), [1]),
    # Sums of the highest: 4, 7, 9, 10; means 4, 3.5, 3, 2.5.
    "entropy to a mean": ("entropy=3", each("entropy", 1, 2, 3, 4), [1, 2, 3]),
    "entropy just above it": ("entropy=3.0001", each("entropy", 1, 2, 3, 4), [2, 3]),
    "entropy that all have": ("entropy=2.5", each("entropy", 4, 1, 3, 2), [0, 1, 2, 3]),
    "entropy of equals, of which the later go": ("entropy=3", each("entropy", 2, 4, 2, 2), [0, 1]),
    "entropy that is just everybody's": ("entropy=0.1", each("entropy", *[0.1] * 10), list(range(10))),
    "entropy of one row": ("entropy=1", each("entropy", 2), [0]),
    "entropy that nothing reaches": ("entropy=5", each("entropy", 1, 4, 3), [1]),
    "a floor": ("entropy-floor=2", each("entropy", 1, 2, 3), [1, 2]),
    "a floor below all": ("entropy-floor=0", each("entropy", 0, 2), [0, 1]),
    "a share of the least sure": ("entropy-share=0.25", each("entropy", 3, 1, 2, 4), [0, 2, 3]),
    "a share of equals": ("entropy-share=0.5", each("entropy", 1, 1, 1, 1), [0, 1]),
    "no share": ("entropy-share=0", each("entropy", 3, 1), [0, 1]),
    "the whole share leaves the surest of none": ("entropy-share=1", each("entropy", 3, 1, 4), [2]),
    # Means of the nearest: 1, 1.5, 2.
    "a distance": ("kl=1.5", nats(3, 1, 2), [1, 2]),
    "a distance that all keep": ("kl=2", nats(3, 1, 2), [0, 1, 2]),
    "a distance below 0": ("kl=0", nats(-1, 1, 2), [0, 1]),
    "a distance that nothing keeps": ("kl=0.5", nats(3, 1, 2), [1]),
    "no lot": ("random=0", pairs((8, 0), (9, 0)), [0, 1]),
    # Without the sure ones 1 and 3 are left, of which 3 is worth more; the other way round 0 and 3, then 3.
    "one rule behind the other": (
        "entropy-floor=2,top=0.5",
        [
            {"colour": 9, "short": 9, "entropy": 1},
            {"colour": 1, "short": 9, "entropy": 2},
            {"colour": 8, "short": 9, "entropy": 1},
            {"colour": 2, "short": 9, "entropy": 3},
        ],
        [3],
    ),
    "the same rules the other way round": (
        "top=0.5,entropy-floor=2",
        [
            {"colour": 9, "short": 9, "entropy": 1},
            {"colour": 1, "short": 9, "entropy": 2},
            {"colour": 0, "short": 9, "entropy": 1},
            {"colour": 2, "short": 9, "entropy": 3},
        ],
        [3],
    ),
    "a share of what is left": ("distinct, top=0.5", [{**P, "colour": 3, "completion": "a"}] * 3, [0]),
}
for rule, rows, _ in CASES.values():
    if "top" in rule or "front" in rule:
        for row in rows:
            row.setdefault("short", 10)
            row.setdefault("colour", 0)


@pytest.mark.parametrize("case", CASES, ids=CASES.keys())
def test_a_rule_keeps_what_it_says(case: str, policy: Policy) -> None:
    rules, given, wanted = CASES[case]
    rows = samples(policy, given)
    assert kept(rows, rules) == wanted
    dropped = read(Path("out.jsonl.rejected.jsonl")) if len(wanted) < len(rows) else []
    assert sorted([row["id"] for row in read(Path("out.jsonl"))] + [one["where"] for one in dropped]) == sorted(
        row["id"] for row in rows
    )
    assert all(one["row"] in rows and one["reason"] in rules for one in dropped)


@pytest.mark.parametrize("case", ["entropy that nothing reaches", "a distance that nothing keeps"])
def test_a_mean_that_nothing_has_is_told(case: str, policy: Policy) -> None:
    rules, given, _ = CASES[case]
    outcome = run(samples(policy, given), rules, "-q")
    assert f"{rules.partition('=')[2]}; only the nearest sample is kept" in outcome.err


def test_every_rule_says_how_many_it_saw_and_dropped(policy: Policy) -> None:
    rows = samples(policy, [{"completion": "ab"[i // 6], "colour": i, "short": 10} for i in range(8)])
    rows[7]["completion"] = "c"
    outcome = run(rows, "distinct,top=0.3", "--json")
    assert json.loads(outcome.out) == {
        "output": "out.jsonl",
        "finished": True,
        "resumed": 0,
        "candidates": 8,
        "seen by distinct": 8,
        "dropped by distinct": 5,
        "seen by top": 3,
        "dropped by top": 2,
        "rejected": 7,
        "written": 1,
    }
    reasons = {one["where"]: one["reason"] for one in read(Path("out.jsonl.rejected.jsonl"))}
    assert reasons == {f"s{i}": "distinct" for i in range(1, 6)} | {"s0": "top=0.3", "s6": "top=0.3"}
    assert json.loads(Path("out.jsonl.run.json").read_text())["counts"]["dropped by top"] == 2


@pytest.mark.parametrize(
    ("weights", "wanted"), [("short", [1]), ("0*short+colour", [0]), ("colour", [0]), ("mix.yaml", [1])]
)
def test_given_weights_say_what_is_best(weights: str, wanted: list[int], policy: Policy) -> None:
    Path("mix.yaml").write_text("rewards: {short: {scorer: length}, colour: {scorer: length, weight: 0}}")
    assert kept(samples(policy, pairs((9, 9), (8, 1))), "top=0.5", "--weights", weights) == wanted


def test_what_has_no_weight_need_not_be_scored(policy: Policy) -> None:
    assert kept(samples(policy, each("colour", 1, 2)), "top=0.5", "--weights", "0*short+colour") == [1]


WHOLE = {"short": 1, "colour": 1, "entropy": 1.0, "logprob": -3.0, "reference": -4.0}


@pytest.mark.parametrize(
    ("rules", "changed", "code", "said"),
    [
        (
            "front",
            {"short": None},
            1,
            "s1: no reward 'short', so the samples cannot be compared; score all of them first",
        ),
        ("top=0.5", {"colour": None}, 1, "s1: no reward 'colour'"),
        ("entropy=1", {"entropy": None}, 1, "s1: no entropy, which the guard needs; servers do not return it"),
        ("entropy-floor=1", {"entropy": None}, 1, "s1: no entropy"),
        ("entropy-share=0.5", {"entropy": None}, 1, "s1: no entropy"),
        ("kl=1", {"reference": None}, 1, "s1: no reference, which the guard needs; sample with --reference"),
        ("kl=1", {"logprob": None}, 1, "s1: no logprob"),
        ("distinct", {"policy": ""}, 1, "in.jsonl: s1 has no 'policy'"),
        ("distinct", {"policy": "abcdef"}, 2, "no folder of the policy abcdef of these samples was found; pass it"),
        ("distinct", {"id": "s0"}, 1, "in.jsonl:2: the sample 's0' occurs twice"),
        ("entropy-floor=2", {}, 1, "in.jsonl: no sample is left after entropy-floor=2; use a weaker rule"),
        ("entropy-floor=2,front", {}, 1, "no sample is left after entropy-floor=2; use a weaker rule"),
        ("frnt", {}, 2, "--keep frnt: unknown rule 'frnt'; did you mean 'front'?"),
        ("bst", {}, 2, "unknown rule 'bst'; did you mean 'best'?"),
        ("distinct,", {}, 2, "--keep distinct,: unknown rule ''"),
        ("best,front", {}, 2, "--keep best,front: best keeps one sample"),
        ("front=1", {}, 2, "--keep front=1: front has no number; write front"),
        ("top", {}, 2, "--keep top: write top= with a number from 0 to 1"),
        ("top=1.1", {}, 2, "write top= with a number from 0 to 1"),
        ("kl=nan", {}, 2, "write kl= with a number from 0 to 1000"),
        ("entropy=1,distinct,entropy=2", {}, 2, "entropy occurs twice; write each rule once"),
    ],
)
def test_what_cannot_be_chosen_is_told_in_one_line(
    rules: str, changed: dict[str, Any], code: int, said: str, policy: Policy
) -> None:
    second = {name: value for name, value in {**WHOLE, **changed}.items() if value is not None}
    outcome = run(samples(policy, [WHOLE, second, WHOLE]), rules, "-q")
    assert (outcome.code, outcome.err.count("\n")) == (code, 1), outcome.err
    assert said in outcome.err
    assert names(Path.cwd()) == {"in.jsonl", "policy"}


def test_samples_of_two_policies_that_measure_alike_are_chosen_together(policy: Policy) -> None:
    later = made("later", context=65)
    rows = samples(policy, pairs((9, 1), (9, 2), (9, 3), (9, 4)))
    rows[1]["policy"] = rows[3]["policy"] = later.digest
    assert kept(rows, "front,top=0.5") == [3]


@pytest.mark.parametrize("card", [replace(SHORT, mean=11.0), replace(SHORT, name="long")])
@pytest.mark.parametrize(("rules", "code"), [("front", 2), ("distinct,top=0.5", 2), ("distinct,random=0.5", 0)])
def test_samples_of_policies_that_measure_otherwise_are_not_compared(
    rules: str, code: int, card: PolicyReward, policy: Policy
) -> None:
    other = made("other", (card, COLOUR))
    rows = samples(policy, pairs((9, 1), (9, 2)))
    rows[1]["policy"] = other.digest
    outcome = run(rows, rules)
    assert outcome.code == code, outcome.err
    assert ("so they cannot be compared" in outcome.err) == (code == 2)


def test_messages_and_text_that_say_the_same_are_equal(policy: Policy) -> None:
    said = [{"role": "assistant", "content": "a"}]
    assert kept(samples(policy, [{"completion": "a"}, {"completion": said}]), "distinct") == [0]


def test_rows_walk_from_stdin_to_stdout(policy: Policy) -> None:
    rows = samples(policy, each("entropy", 1, 3, 2))
    given = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    done = process("score", "-", "--keep", "entropy-floor=2", given=given)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [rows[1], rows[2]]
    assert b"wrote 2 of 3 samples to -, set 1 aside" in done.stderr
    assert names(Path.cwd()) == {"policy"}


def test_packed_in_packed_out(policy: Policy) -> None:
    rows = samples(policy, each("entropy", 1, 3, 2))
    Path("in.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    outcome = call("score", "in.jsonl.gz", "--keep", "entropy-floor=2", "-o", "out.jsonl.gz")
    assert outcome.code == 0, outcome.err
    unpacked = gzip.decompress(Path("out.jsonl.gz").read_bytes())
    assert [json.loads(line) for line in unpacked.splitlines()] == [rows[1], rows[2]]
    assert names(Path.cwd()) == {
        "in.jsonl.gz",
        "policy",
        "out.jsonl.gz",
        "out.jsonl.gz.run.json",
        "out.jsonl.gz.rejected.jsonl",
    }


def test_the_same_choice_again_has_nothing_to_do_and_another_is_refused(policy: Policy) -> None:
    rows = samples(policy, each("entropy", 1, 3, 2))
    kept(rows, "entropy-floor=2")
    before = Path("out.jsonl").stat().st_mtime_ns
    assert "wrote 2 of 3" not in (again := run(rows, "entropy-floor=2")).err
    assert "out.jsonl is complete already: nothing to do" in again.err
    assert Path("out.jsonl").stat().st_mtime_ns == before
    outcome = run(rows, "entropy-floor=3")
    assert outcome.code == 2
    assert "rules was entropy-floor=2 and is entropy-floor=3" in outcome.err
    outcome = run(rows[:2], "entropy-floor=2")
    assert "the samples (in.jsonl) has changed" in outcome.err


def test_only_the_first_rows_are_looked_at_where_so_many_are_wanted(policy: Policy) -> None:
    assert kept(samples(policy, each("entropy", 1, 3, 2, 9)), "entropy=2.5", "--limit", "3") == [1, 2]


# ── whatever the numbers ───────────────────────────────────────────────────────────────────────────────────────────

number = st.floats(-50, 50) | st.integers(0, 4).map(float)
sample = st.fixed_dictionaries(
    {
        "of": st.sampled_from("pqr"),
        "completion": st.sampled_from("abcd"),
        "short": number,
        "colour": number,
        "entropy": st.floats(0, 12) | st.sampled_from([0.1, 0.7, 1.0, 2.0]),
        "logprob": number,
        "reference": number,
    }
)
share = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
rule = st.one_of(
    st.sampled_from(["distinct", "front"]),
    st.builds("{}={}".format, st.sampled_from(["top", "entropy-share", "random"]), share),
    st.builds("entropy={}".format, st.floats(0, 12)),
    st.builds("kl={}".format, st.floats(0, 90)),
)
anything = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def chosen(policy: Policy, given: Sequence[Mapping[str, Any]], rules: str) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the rows, those that are kept, and those that are set aside."""
    for old in Path.cwd().glob("out.jsonl*"):
        old.unlink()
    rows = samples(policy, given)
    write(Path("in.jsonl"), rows)
    select("in.jsonl", "out.jsonl", SelectSettings(rules))
    aside = Path("out.jsonl.rejected.jsonl")
    return rows, read(Path("out.jsonl")), read(aside) if aside.exists() else []


@given(given=st.lists(sample, min_size=1, max_size=30), rules=st.lists(rule, min_size=1, max_size=4))
@anything
def test_what_comes_in_goes_out_or_aside_and_in_order(
    given: list[dict[str, Any]], rules: list[str], policy: Policy
) -> None:
    different = {one.partition("=")[0]: one for one in rules}.values()
    rows, out, aside = chosen(policy, given, ",".join(different))
    places = {row["id"]: number for number, row in enumerate(rows)}
    assert sorted([places[row["id"]] for row in out] + [places[one["where"]] for one in aside]) == list(
        range(len(rows))
    )
    assert [places[row["id"]] for row in out] == sorted(places[row["id"]] for row in out)
    assert all(row == rows[places[row["id"]]] for row in out)


def mean(numbers: Sequence[float]) -> Fraction:
    return sum(map(Fraction, numbers), Fraction()) / len(numbers)


def assert_largest(values: Sequence[tuple[str, float]], out: set[str], target: float) -> None:
    """No more could be kept: the mean of the rest reaches the target, and with the best that went it would not."""
    stayed = [value for name, value in values if name in out]
    went = [value for name, value in values if name not in out]
    assert not went or min(stayed) >= max(went)
    if max(value for _, value in values) >= target:
        assert mean(stayed) >= Fraction(target)
    else:
        assert len(stayed) == 1
    if went:
        assert mean([*stayed, max(went)]) < Fraction(target)


@given(given=st.lists(sample, min_size=1, max_size=30), target=st.floats(0, 12) | st.sampled_from([0.1, 0.7, 1.0]))
@anything
def test_the_entropy_guard_keeps_the_largest_set_of_that_mean(
    given: list[dict[str, Any]], target: float, policy: Policy
) -> None:
    rows, out, _ = chosen(policy, given, f"entropy={target}")
    assert_largest([(row["id"], row["entropy"]) for row in rows], {row["id"] for row in out}, target)


@given(given=st.lists(sample, min_size=1, max_size=30), limit=st.floats(0, 90))
@anything
def test_the_kl_guard_keeps_the_largest_set_of_that_distance(
    given: list[dict[str, Any]], limit: float, policy: Policy
) -> None:
    rows, out, _ = chosen(policy, given, f"kl={limit}")
    near = [(row["id"], row["reference"] - row["logprob"]) for row in rows]
    assert_largest(near, {row["id"] for row in out}, -limit)


@given(given=st.lists(sample, min_size=1, max_size=30), part=share)
@anything
def test_a_share_by_lot_is_exact_and_the_same_again(given: list[dict[str, Any]], part: float, policy: Policy) -> None:
    rows, out, aside = chosen(policy, given, f"random={part}")
    wanted = part * len(rows)
    assert len(aside) == min(len(rows) - 1, int(wanted + 0.5))
    assert chosen(policy, given, f"random={part}")[1] == out
    # A lot is the row's own: who else is there, and where it stands, changes none.
    for old in Path.cwd().glob("out.jsonl*"):
        old.unlink()
    write(Path("in.jsonl"), rows[::-1])
    select("in.jsonl", "out.jsonl", SelectSettings(f"random={part}"))
    assert read(Path("out.jsonl"))[::-1] == out


@given(given=st.lists(sample, min_size=1, max_size=20))
@anything
def test_a_front_is_what_nobody_exceeds(given: list[dict[str, Any]], policy: Policy) -> None:
    rows, out, _ = chosen(policy, given, "front")

    def exceeds(one: Row, other: Row) -> bool:
        a, b = ((SHORT.zscore(row["rewards"]["short"]), row["rewards"]["colour"]) for row in (one, other))
        return one["group"] == other["group"] and a != b and all(x >= y for x, y in zip(a, b, strict=True))

    assert [row["id"] for row in out] == [row["id"] for row in rows if not any(exceeds(one, row) for one in rows)]
