"""Rewards that several scorers give together."""

import json
from pathlib import Path

import pytest
from helpers import call, read, write

from irlhf.policy.rewards_file import Reward
from irlhf.scoring.pooled_scorers import pooled

ROWS = [{"id": f"r{n}", "prompt": "p", "completion": "a b c"[: 2 * n + 1] + "!" * n} for n in range(3)]
MEMBERS = "scorer: [length, 'regex:!', 'distinct:1']"
# length, exclamation marks and share of distinct words of the three completions
LENGTH, MARKS, DISTINCT = (1, 2, 3), (0, 1, 2), (1, 1, 1)


def score(pool: str, more: str = "", rows: Path | None = None, output: str = "out.jsonl") -> list[dict[str, object]]:
    Path("rewards.yaml").write_text(f"rewards: {{a: {{{MEMBERS}, pool: {pool}{more}}}, short: {{scorer: length}}}}")
    done = call("score", rows or write(Path("in.jsonl"), ROWS), "-r", "rewards.yaml", "-o", output)
    assert done.code == 0, done.err
    return read(Path(output))


@pytest.mark.parametrize(
    ("pool", "direction", "values"),
    [
        ("mean", "higher", [2 / 3, 4 / 3, 2]),
        ("min", "higher", [0, 1, 1]),
        ("min", "lower", [1, 2, 3]),
        ("mean-sd", "higher", [2 / 3 - 3**-0.5, 4 / 3 - 3**-0.5, 1]),
        ("mean-sd", "lower", [2 / 3 + 3**-0.5, 4 / 3 + 3**-0.5, 3]),
    ],
)
def test_a_pool_is_the_mean_or_what_is_worst_for_its_direction(pool: str, direction: str, values: list[float]) -> None:
    rows = score(pool, f", direction: {direction}")
    assert [row["rewards"] for row in rows] == [
        {"a": pytest.approx(value), "short": length} for value, length in zip(values, LENGTH, strict=True)
    ]
    assert [row["spread"] for row in rows] == [{"a": pytest.approx(sd)} for sd in (3**-0.5, 3**-0.5, 1)]


def test_the_spread_of_a_reward_that_is_a_pool_no_longer_is_removed() -> None:
    pools = {"a": Reward(scorer=["x", "y"], pool="mean")}
    assert pooled({"a[0]": 1.0, "a[1]": 3.0}, pools) == ({"a": 2.0}, {"a": pytest.approx(2**0.5)})
    score("mean")
    Path("rewards.yaml").write_text("rewards: {a: {scorer: length}}")
    assert call("score", "out.jsonl", "-r", "rewards.yaml", "-o", "again.jsonl").code == 0
    assert [(row["rewards"]["a"], "spread" in row) for row in read(Path("again.jsonl"))] == [(n, False) for n in LENGTH]


def test_one_scorer_of_several_rewards_runs_once() -> None:
    Path("own.py").write_text(
        "def words(examples):\n    with open('calls', 'a') as calls:\n        print(len(examples), file=calls)\n"
        "    return [len(e.completion.split()) for e in examples]\n"
    )
    text = "rewards: {a: {scorer: ['own:words', length], pool: mean}, b: {scorer: 'own:words'}}"
    Path("rewards.yaml").write_text(text)
    assert call("score", write(Path("in.jsonl"), ROWS), "-r", "rewards.yaml", "-o", "out.jsonl").code == 0
    assert Path("calls").read_text() == "3\n"


def test_another_pool_is_another_scorer_to_a_scale() -> None:
    identities = set()
    for number, (pool, more) in enumerate([("mean", ""), ("min", ""), ("min", ", direction: lower")]):
        score(pool, more, output=f"{number}.jsonl")
        recorded = json.loads(Path(f"{number}.jsonl.run.json").read_text())["recorded"]
        identities.add(recorded["scorers"]["a"])
    assert len(identities) == 3
    assert {one.rpartition("@")[0] for one in identities} == {
        "mean of length, regex:!, distinct:1",
        "min of length, regex:!, distinct:1",
    }


def test_a_member_that_fails_on_a_row_rejects_the_row() -> None:
    rows = write(Path("in.jsonl"), [*ROWS, {"id": "none", "prompt": "p", "completion": ""}])
    Path("rewards.yaml").write_text("rewards: {a: {scorer: [length, 'distinct:1'], pool: min}}")
    stopped = call("score", rows, "-r", "rewards.yaml", "-o", "out.jsonl")
    assert (stopped.code, stopped.err.startswith("irlhf: none: ")) == (1, True), stopped.err
    done = call("score", rows, "-r", "rewards.yaml", "-o", "others.jsonl", "--on-bad-row", "skip")
    assert (done.code, len(read(Path("others.jsonl")))) == (0, 3)


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("{scorer: [length, sentiment]}", "several scorers and `pool:` belong together; add `pool: mean`, min or"),
        ("{scorer: length, pool: mean}", "several scorers and `pool:` belong together; list the scorers, as in"),
        ("{scorer: [length], pool: mean}", "a: a pool needs two different scorers or more"),
        ("{scorer: [length, length], pool: mean}", "a: a pool needs two different scorers or more"),
        ("{scorer: [], pool: mean}", "a needs either `scorer:` or `column:`"),
        ("{scorer: [length, lenght], pool: mean}", "a[1]: unknown scorer 'lenght'; did you mean 'length'?"),
        (
            "{scorer: [length, sentiment], pool: median}",
            "rewards.a.pool: input should be '', 'mean', 'min' or 'mean-sd'",
        ),
    ],
)
def test_a_pool_that_cannot_be_is_one_line(spec: str, problem: str) -> None:
    Path("rewards.yaml").write_text(f"rewards: {{a: {spec}}}")
    done = call("score", write(Path("in.jsonl"), ROWS), "-r", "rewards.yaml", "-o", "out.jsonl")
    assert (done.code, done.err.count("\n"), Path("out.jsonl").exists()) == (2, 1, False)
    assert problem in done.err
