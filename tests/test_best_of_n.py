"""score --keep: of samples asked for the same one is kept, and it says what it was kept from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import Bench, Outcome, Row, call, names, process, read, write

from irlhf.policy.policy_file import Policy, read_policy

Numbers = Sequence[tuple[float, float]]  # short (lower is better) and colour of each sample


@pytest.fixture
def policy(bench: Bench) -> Policy:
    return read_policy(bench.policy)


def group(policy: Policy, numbers: Numbers, prompt: str = "p", **fields: Any) -> list[Row]:
    """Return the scored samples of one prompt, asked for the same."""
    usual = {"target": {"short": "0.5"}, "asked": {"short": 0.5}, "tokens": 10, **fields}
    return [
        {
            "id": f"{prompt}/{policy.digest}/0/{i}",
            "prompt": "How?",
            "completion": f"So {i}.",
            "group": prompt,
            "policy": policy.digest,
            "rewards": {"short": short, "colour": colour},
            **usual,
        }
        for i, (short, colour) in enumerate(numbers)
    ]


def keep(bench: Bench, rows: Sequence[Row], how: str, *arguments: str) -> Outcome:
    write(Path("in.jsonl"), rows)
    return call("score", "in.jsonl", "--keep", how, "--policy", bench.policy, "-o", "out.jsonl", *arguments)


def kept(bench: Bench, rows: Sequence[Row], how: str, *arguments: str) -> list[Row]:
    outcome = keep(bench, rows, how, *arguments)
    assert outcome.code == 0, outcome.err
    return read(Path("out.jsonl"))


SHORT, COLOURFUL, NEITHER = (5.0, 0.0), (20.0, 10.0), (15.0, 2.0)


@pytest.mark.parametrize(
    ("arguments", "target", "best"),
    [
        (["--weights", "short"], {"short": "0.5"}, 1),
        (["--weights", "0*short+colour"], {"short": "0.5"}, 2),
        ([], {"short": "1*", "colour": "0*"}, 1),
        ([], {"short": "0*", "colour": "3*"}, 2),
        (["--weights", "colour"], {"short": "1*", "colour": "0*"}, 2),
    ],
)
def test_the_best_is_the_highest_by_the_weights_given_or_asked(
    arguments: list[str], target: dict[str, str], best: int, bench: Bench, policy: Policy
) -> None:
    rows = group(policy, [NEITHER, SHORT, COLOURFUL], target=target)
    (row,) = kept(bench, rows, "best", *arguments)
    assert row == {**rows[best], "kept": "best", "candidates": 3, "spent": 30}


def test_without_other_weights_those_of_the_policy_decide(bench: Bench, policy: Policy) -> None:
    rows = group(policy, [(float(5 + i), float((i * 7) % 11)) for i in range(11)])
    own = {card.name: card.weight for card in policy.rewards}
    values = [policy.weighted(row["rewards"], own) for row in rows]
    assert kept(bench, rows, "best")[0]["id"] == rows[values.index(max(values))]["id"]


def test_the_nearest_lies_nearest_in_the_units_of_the_prompt(bench: Bench, policy: Policy) -> None:
    rows = group(policy, [(float(5 + i), float(i)) for i in range(11)], asked={"short": 0.3, "colour": 0.6})
    scaled = [policy.scaled(row["rewards"]) for row in rows]
    distances = [abs(one["short"] - 0.3) + abs(one["colour"] - 0.6) for one in scaled]
    assert kept(bench, rows, "nearest")[0]["id"] == rows[distances.index(min(distances))]["id"]


def test_what_was_not_asked_for_is_no_distance(bench: Bench, policy: Policy) -> None:
    middle = policy.reward("short").scale.inverse(0.5)
    rows = group(policy, [(5.0, 5.0), (middle, 0.0)])
    assert kept(bench, rows, "nearest")[0]["id"] == rows[1]["id"]


@pytest.mark.parametrize("how", ["best", "nearest"])
def test_of_equals_the_first_is_kept(how: str, bench: Bench, policy: Policy) -> None:
    rows = group(policy, [COLOURFUL, SHORT, SHORT, SHORT])[1:]
    assert kept(bench, rows, how)[0]["id"] == rows[0]["id"]


def test_each_prompt_target_and_number_asked_is_a_group_of_its_own(bench: Bench, policy: Policy) -> None:
    two = [NEITHER, SHORT]
    groups = [
        group(policy, two, "p"),
        group(policy, two, "q"),
        group(policy, two, "p", asked={"short": 0.6}),
        group(policy, two, "p", target={"short": "0.5.."}),
    ]
    rows = [{**row, "id": str(n)} for n, row in enumerate(row for one in groups for row in one)]
    assert [row["id"] for row in kept(bench, rows, "best", "--weights", "short")] == ["1", "3", "5", "7"]


def test_asked_by_weights_the_numbers_shown_may_differ(bench: Bench, policy: Policy) -> None:
    rows = group(policy, [NEITHER, SHORT], target={"short": "1*"})
    rows[1]["asked"] = {"short": 0.97}
    assert [row["id"] for row in kept(bench, rows, "best")] == [rows[1]["id"]]


def test_kept_rows_stand_in_the_order_of_the_file(bench: Bench, policy: Policy) -> None:
    first, second = group(policy, [SHORT, NEITHER], "p"), group(policy, [SHORT, NEITHER], "q")
    rows = [first[1], second[0], first[0], second[1]]
    found = kept(bench, rows, "best", "--weights", "short")
    assert [row["id"] for row in found] == [second[0]["id"], first[0]["id"]]


def test_what_was_spent_is_not_known_where_one_sample_does_not_know_its_tokens(bench: Bench, policy: Policy) -> None:
    rows = group(policy, [SHORT, NEITHER])
    del rows[1]["tokens"]
    (row,) = kept(bench, rows, "best")
    assert row["candidates"] == 2
    assert "spent" not in row


def test_groups_of_unequal_size_are_told_with_their_numbers(bench: Bench, policy: Policy) -> None:
    rows = group(policy, [SHORT] * 3, "p") + group(policy, [SHORT] * 3, "q") + group(policy, [SHORT], "r")
    outcome = keep(bench, rows, "best", "--json")
    assert "groups of unequal size (2 of 3, 1 of 1 samples)" in outcome.err
    summary = json.loads(outcome.out)
    assert (summary["written"], summary["candidates"]) == (3, 7)


def changed(rows: list[Row], **fields: Any) -> list[Row]:
    """Change the second row; a field that becomes None goes."""
    mixed = {**rows[1], **fields}
    return [rows[0], {name: value for name, value in mixed.items() if value is not None}, *rows[2:]]


@pytest.mark.parametrize(
    ("how", "fields", "code", "reason"),
    [
        ("best", {"rewards": {"colour": 1.0}}, 1, "p/POLICY/0/1: no reward 'short'"),
        ("nearest", {"rewards": {"colour": 1.0}}, 1, "p/POLICY/0/1: no reward 'short'"),
        ("best", {"kept": "best", "candidates": 4}, 1, "p/POLICY/0/1 was already kept from 4 samples"),
        ("best", {"policy": None}, 1, "p/POLICY/0/1 has no 'policy'"),
        ("best", {"policy": "abcdef"}, 2, "no folder of the policy abcdef of these samples was found"),
        (
            "nearest",
            {"target": {"short": "2*"}},
            1,
            "p/POLICY/0/1 has weights instead of targets, so no sample is nearest",
        ),
        ("nearest", {"asked": None, "target": None}, 1, "p/POLICY/0/1 has no target"),
        ("best", {"target": {"shrot": "2*"}}, 2, "no reward 'shrot'; did you mean 'short'?"),
        ("bset", {}, 2, "--keep bset: unknown rule 'bset'; did you mean 'best'?"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named(
    how: str, fields: dict[str, Any], code: int, reason: str, bench: Bench
) -> None:
    policy = read_policy(bench.policy)
    rows = changed(group(policy, [SHORT, NEITHER, SHORT]), **fields)
    outcome = keep(bench, rows, how, "-q")
    assert (outcome.code, outcome.err.count("\n")) == (code, 1), outcome.err
    assert reason.replace("POLICY", policy.digest) in outcome.err
    assert names(Path.cwd()) == {"in.jsonl"}


def test_a_file_without_a_choice_is_refused(bench: Bench, policy: Policy) -> None:
    outcome = keep(bench, group(policy, [SHORT], "p") + group(policy, [SHORT], "q"), "best")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "nothing to choose from" in outcome.err
    assert "sample with -n 4" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "pass a rewards.yaml with -r"),
        (["--keep", "best", "-r", "rewards.yaml"], "-r asks a scorer, and --keep asks none; leave it out"),
        (["--keep", "best", "--gold"], "--gold asks a scorer"),
        (["--keep", "best", "--on-bad-row", "skip"], "--on-bad-row skip asks a scorer"),
        (["--keep", "nearest", "--weights", "short"], "--weights does not apply to --keep nearest"),
        (["-r", "rewards.yaml", "--weights", "short"], "--weights belongs to --keep"),
        (["-r", "rewards.yaml", "--policy", "policy"], "--policy belongs to --keep"),
    ],
)
def test_options_that_do_not_go_together_are_told(arguments: list[str], reason: str, bench: Bench) -> None:
    outcome = call("score", bench.scored, *arguments, "-o", "out.jsonl")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert reason in outcome.err


def test_weights_of_a_changed_file_are_another_question(bench: Bench, policy: Policy) -> None:
    rows = group(policy, [NEITHER, SHORT, COLOURFUL])
    Path("mix.yaml").write_text("rewards: {short: {scorer: length}, colour: {scorer: length, weight: 0}}")
    assert kept(bench, rows, "best", "--weights", "mix.yaml")[0]["id"] == rows[1]["id"]
    assert "complete already" in keep(bench, rows, "best", "--weights", "mix.yaml").err
    Path("mix.yaml").write_text("rewards: {colour: {scorer: length}}")
    assert "the weights (mix.yaml) has changed" in keep(bench, rows, "best", "--weights", "mix.yaml").err


def test_the_policy_is_found_beside_the_samples(bench: Bench, policy: Policy) -> None:
    source = write(bench.folder / "best-of-two.jsonl", group(policy, [NEITHER, SHORT]))
    outcome = call("score", source, "--keep", "nearest")
    assert outcome.code == 0, outcome.err
    assert "wrote 1 of 2 samples to kept.jsonl; next: irlhf eval kept.jsonl" in outcome.err


def test_kept_samples_walk_from_stdin_to_stdout(bench: Bench, policy: Policy) -> None:
    given = b"".join(json.dumps(row).encode() + b"\n" for row in group(policy, [NEITHER, SHORT]))
    done = process("score", "-", "--keep", "best", "--weights", "short", "--policy", bench.policy, given=given)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["completion"] for line in done.stdout.splitlines()] == ["So 1."]
    assert names(Path.cwd()) == set()


def test_best_of_two_walks_the_line(bench: Bench) -> None:
    ask = ["-t", "short=0.9", "--limit", "3", "--max-tokens", "8"]
    Path("short.yaml").write_text("rewards:\n  short: {scorer: length, direction: lower}\n")
    for command in (
        ["sample", bench.policy, bench.examples, *ask, "-n", "2", "-o", "samples.jsonl"],
        ["score", "samples.jsonl", "-r", "short.yaml", "-o", "scored.jsonl"],
        ["score", "scored.jsonl", "--keep", "best", "--weights", "short", "--policy", bench.policy],
    ):
        outcome = call(*command)
        assert outcome.code == 0, outcome.err
    scored = {row["id"]: row for row in read(Path("scored.jsonl"))}
    found = read(Path("kept.jsonl"))
    assert [row["candidates"] for row in found] == [2, 2, 2]
    for row in found:
        rivals = [one for one in scored.values() if one["group"] == row["group"]]
        assert row["rewards"]["short"] == min(one["rewards"]["short"] for one in rivals)
        assert row["spent"] == sum(one["tokens"] for one in rivals)
