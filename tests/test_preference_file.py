"""finetune --objective ra-dpo at a host and as a file: pairs in OpenAI's preference format."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Row, call, names, read, write
from openai_server import BASE, OpenAIServer

from irlhf.policy.policy_file import read_policy
from irlhf.training.settings import RA_DPO, FinetuneSettings
from irlhf.training.target_contrast import ContrastDraw, ContrastFamilies
from irlhf.training.target_draw import Rewarded
from irlhf.training.training_set import read_training

pytestmark = pytest.mark.timeout(60)

PROMPTS = 20  # of which 4 are held out


def rows(each: int = 2) -> list[Row]:
    return [
        {
            "id": f"e{number}-{i}",
            "prompt": f"Question {number}?",
            "completion": f"Answer {number}, version {i}.",
            "group": f"g{number}",
            "split": "validation" if number % 5 == 0 else "train",
            "rewards": {"helpful": number + 20 * i, "short": -number - 20 * i},
        }
        for number in range(PROMPTS)
        for i in range(each)
    ]


def rendered(given: list[Row], *more: object) -> list[Row]:
    write(Path("scored.jsonl"), given)
    outcome = call("finetune", "scored.jsonl", "--objective", "ra-dpo", "--render-only", "-o", "pairs.jsonl", *more)
    assert outcome.code == 0, outcome.err
    return read(Path("pairs.jsonl"))


def test_each_pair_is_written_twice_and_each_completion_is_preferred_under_its_own_target() -> None:
    lines = rendered(rows(), "--drop", "0")
    assert len(lines) == 2 * 16
    assert {tuple(line) for line in lines} == {("input", "preferred_output", "non_preferred_output")}
    number = {row["completion"]: row["rewards"] for row in rows()}
    training = read_training(Path("scored.jsonl"), FinetuneSettings(template="reward-end"))
    policy = training.policy("", FinetuneSettings(template="reward-end"))
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        assert first["preferred_output"] == second["non_preferred_output"]
        assert first["non_preferred_output"] == second["preferred_output"]
        for line in (first, second):
            (better,), (message,) = line["preferred_output"], line["input"]["messages"]
            own = policy.scaled(number[better["content"]])
            assert message["role"] == "user"
            assert message["content"].splitlines()[-2:] == [f"{name}: {own[name]:.2f}" for name in ("helpful", "short")]
    assert json.loads(Path("pairs.meta.json").read_text())["template"]["place"] == "end"


def test_the_pairs_are_those_of_the_first_epoch_of_training_here() -> None:
    lines = rendered(rows(5), "--seed", "3", "--template", "at-least")
    settings = FinetuneSettings(template="at-least", seed=3, objective=RA_DPO)
    training = read_training(Path("scored.jsonl"), FinetuneSettings(template="reward-end"))
    policy, seen = training.policy("", settings), []
    actual = training.actual(policy)

    def encode(example: Any, wishes: Any) -> list[int]:
        seen.append((policy.template.render(example.prompt, wishes, policy.names), example.completion))
        return [1, 2]

    rewarded = [Rewarded(row, [3], actual[row.id]) for row in training.train]
    draw = ContrastDraw(rewarded, encode, training.target_draw(policy, settings), settings.objective_settings, 3)
    here = ContrastFamilies(draw)
    compared = [members for members, family in _members(seen, here) if family.comparisons]
    expected = [(prompt, better, worse) for members in compared for (prompt, better), (_, worse) in members]
    assert expected == [
        (line["input"]["messages"], *(line[key][0]["content"] for key in ("preferred_output", "non_preferred_output")))
        for line in lines
    ]


def _members(seen: list[Any], here: ContrastFamilies) -> Iterator[tuple[list[Any], Any]]:
    """Yield the members of each family in pairs, as they were encoded."""
    rest = iter(seen)
    for family in here:
        members = [next(rest) for _ in family.members]
        yield list(zip(members[::2], members[1::2], strict=False)), family


def test_a_host_with_dpo_trains_on_the_pairs(host: OpenAIServer) -> None:
    rendered(rows())
    command = ["finetune", "scored.jsonl", "--model", f"openai:{BASE}", "--base-url", host.url, "--yes"]
    outcome = call(*command, "--objective", "ra-dpo", "--beta", "0.2", "--epochs", "3")
    assert outcome.code == 0, outcome.err
    (body,) = host.kinds("jobs.create")
    assert body["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3, "beta": 0.2}}}
    assert host.state.files[body["training_file"]]["content"] == Path("pairs.jsonl").read_bytes()
    held_out = host.state.files[body["validation_file"]]["content"].decode().splitlines()
    assert {json.loads(line)["input"]["messages"][-1]["content"].split("?")[0] for line in held_out} == {
        f"Question {number}" for number in (0, 5, 10, 15)
    }
    policy = read_policy(Path("policy"))
    assert policy.hosted is not None
    assert policy.training["settings"]["objective"] == "ra-dpo"
    assert (len(host.jobs), host.charges) == (1, 1)
    assert "complete already" in call(*command, "--objective", "ra-dpo", "--beta", "0.2", "--epochs", "3").err
    assert len(host.jobs) == 1


def test_completions_that_no_host_takes_are_named(host: OpenAIServer) -> None:
    given = rows()
    given[5]["completion"] = ""
    write(Path("scored.jsonl"), given)
    command = ["finetune", "scored.jsonl", "--model", f"openai:{BASE}", "--base-url", host.url, "--yes"]
    outcome = call(*command, "--objective", "ra-dpo")
    assert outcome.code == 1
    assert "its completion is empty" in outcome.err
    assert not host.kinds("files.create")


HOSTED = ["--model", f"openai:{BASE}"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*HOSTED, "--objective", "contrast"], "training use --objective ra-dpo"),
        ([*HOSTED, "--objective", "contrast", "--preview", "1"], "training use --objective ra-dpo"),
        (["--objective", "contrast", "--render-only"], "training use --objective ra-dpo"),
        ([*HOSTED, "--objective", "ra-dpo", "--host", "nebius"], "host nebius does not support DPO"),
        ([*HOSTED, "--contrast", "alternatives=2"], "--contrast alternatives has no effect in hosted training"),
        ([*HOSTED, "--objective", "ra-dpo", "--baseline", "plain"], "--baseline plain"),
        (["--objective", "ra-dpo", "--baseline", "chosen", "--render-only"], "--baseline chosen"),
        (["--objective", "contrast", "--baseline", "top"], "--baseline top"),
        (["--objective", "contrast", "--baseline", "prompted", "--model", "base"], "--baseline prompted"),
    ],
)
def test_what_no_host_or_baseline_can_be_taught_is_refused_in_one_line(arguments: list[str], message: str) -> None:
    write(Path("scored.jsonl"), rows())
    outcome = call("finetune", "scored.jsonl", "-o", "policy", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert names(Path.cwd()) == {"scored.jsonl"}


def test_a_host_of_ones_own_says_that_it_knows_dpo(host: OpenAIServer) -> None:
    write(Path("scored.jsonl"), rows())
    Path("mine.yaml").write_text(f"base_url: {host.url}\nhyperparameters: top\ndpo: true\n")
    outcome = call("finetune", "scored.jsonl", *HOSTED, "--host", "mine.yaml", "--objective", "ra-dpo", "--yes")
    assert outcome.code == 0, outcome.err
    assert host.kinds("jobs.create")[0]["method"]["type"] == "dpo"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": ""}, "needs two completions of one prompt"),
        ({"prompt": "another"}, "1 pairs skipped: DPO needs two completions of the same prompt"),
    ],
)
def test_rows_that_cannot_be_compared_are_counted_or_refused(change: Row, message: str) -> None:
    given = rows()
    alone = [{**row, "group": "", "prompt": row["id"]} for row in given]
    changed = alone if "group" in change else [*given[:3], {**given[3], **change}, *given[4:]]
    write(Path("scored.jsonl"), changed)
    outcome = call("finetune", "scored.jsonl", "--objective", "ra-dpo", "--render-only", "-o", "pairs.jsonl")
    assert outcome.code == (1 if "group" in change else 0)
    assert message in outcome.err
