"""The baselines beside a policy: an untouched base that is merely asked, and chosen rows where nobody chose."""

import random
from pathlib import Path

import pytest
import torch
from helpers import Bench, call, names, read, write_unversioned_manifest
from transformers import AutoModelForCausalLM, AutoTokenizer

from irlhf.core.example import Example
from irlhf.models.loading import load_tokenizer
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.policy.policy_file import Policy, read_policy
from irlhf.training.baselines import baseline_rows
from irlhf.training.finetune import finetune
from irlhf.training.settings import FinetuneSettings


@pytest.fixture(scope="module")
def untouched(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untouched baseline whose base is a small model with weights of its own."""
    out = tmp_path_factory.mktemp("untouched") / "untouched"
    outcome = call(
        "finetune", bench.scored, "-r", bench.rewards, "--model", bench.policy, "--baseline", "prompted", "-o", out
    )
    assert outcome.code == 0, outcome.err
    assert "rows to fit the scales on" in outcome.err
    return out


def test_an_untouched_base_keeps_its_weights_and_its_tokenizer(untouched: Path, bench: Bench) -> None:
    ours, theirs = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (untouched, bench.policy))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    text = "Human: How do I mend a fern?\n\nAssistant:"
    one, other = (AutoTokenizer.from_pretrained(folder)(text)["input_ids"] for folder in (untouched, bench.policy))
    assert one == other


def test_an_untouched_base_was_not_trained_and_is_not_blind(untouched: Path) -> None:
    policy = read_policy(untouched)
    assert (policy.baseline, policy.blind) == ("prompted", False)
    assert (policy.training["steps"], policy.training["completion tokens"]) == (0, 0)
    assert "rate" not in policy.training["plan"]
    assert "metrics.jsonl" not in names(untouched)


def test_an_untouched_base_has_the_scales_of_a_policy_of_the_same_rows(untouched: Path, bench: Bench) -> None:
    ours, theirs = read_policy(untouched), read_policy(bench.policy)
    assert (ours.rewards, ours.reservoir, ours.context) == (theirs.rewards, theirs.reservoir, theirs.context)


def test_an_untouched_base_is_asked_in_plain_english(untouched: Path) -> None:
    policy = read_policy(untouched)
    chat = PromptEncoder(load_tokenizer(str(untouched)), policy.template, policy.names)
    (turn,) = chat.messages("How?", {"short": 0.9, "colour": 0.25})
    assert turn["content"] == (
        "How?\n\nWrite an answer whose score for short is 0.90 and whose score for colour is 0.25,"
        " where 0 is the worst score and 1 the best."
    )


def test_an_untouched_base_may_be_asked_by_a_template_of_yours(bench: Bench) -> None:
    settings = FinetuneSettings(rewards=str(bench.rewards), baseline="prompted", template="reward-end")
    finetune(bench.scored, "untouched", str(bench.policy), settings)
    assert read_policy(Path("untouched")).template == read_policy(bench.policy).template


def test_an_earlier_name_of_a_baseline_is_read_as_the_current_one(bench: Bench) -> None:
    settings = FinetuneSettings(rewards=str(bench.rewards), baseline="prompted")
    finetune(bench.scored, "old", str(bench.policy), settings)
    path = Path("old/policy.json")
    path.write_text(path.read_text().replace('"prompted"', '"untouched"'))
    write_unversioned_manifest(Path("old"), {"baseline": "untouched"})
    assert read_policy(Path("old")).baseline == "prompted"
    assert finetune(bench.scored, "old", str(bench.policy), settings)["finished"]


def test_an_untouched_base_walks_the_line(untouched: Path, bench: Bench) -> None:
    Path("short.yaml").write_text("rewards:\n  short: {scorer: length, direction: lower}\n")
    ask = ["-t", "short=data", "-n", "3", "--limit", "4", "--max-tokens", "8"]
    for command in (
        ["sample", untouched, bench.examples, *ask, "-o", "samples.jsonl"],
        ["score", "samples.jsonl", "-r", "short.yaml", "-o", "scored.jsonl"],
        ["eval", "scored.jsonl", "--policy", untouched, "-o", "eval.json"],
    ):
        outcome = call(*command)
        assert outcome.code == 0, (command, outcome.err)
    assert {row["policy"] for row in read(Path("scored.jsonl"))} == {read_policy(untouched).digest}
    assert '"baseline": "prompted"' in Path("eval.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "tiny"], "tiny has random weights and cannot be used without training"),
        (["--model", "POLICY", "--render-only"], "the baseline prompted is not trained"),
        (["--model", "POLICY", "--preview", "1"], "the baseline prompted is not trained"),
    ],
)
def test_where_untouched_means_nothing_it_is_refused(arguments: list[str], reason: str, bench: Bench) -> None:
    given = [str(bench.policy) if one == "POLICY" else one for one in arguments]
    outcome = call("finetune", bench.scored, *given, "--baseline", "prompted", "-o", "out")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert reason in outcome.err
    assert names(Path.cwd()) == set()


def test_a_scale_that_the_instruction_does_not_speak_of_is_told(bench: Bench) -> None:
    rewards = "rewards:\n  short: {scorer: length, direction: lower, scale: {kind: zscore}}\n"
    Path("rewards.yaml").write_text(rewards + "  colour: {column: colour}\n")
    command = ["finetune", bench.scored, "-r", "rewards.yaml", "--model", bench.policy, "--baseline", "prompted"]
    assert "warning: template instruction describes rewards from 0 to 1, but the scale of short" in call(*command).err


@pytest.mark.parametrize("kind", ["plain", "chosen", "top"])
def test_the_baselines_that_are_trained_are_blind(kind: str, bench: Bench) -> None:
    settings = FinetuneSettings(rewards=str(bench.rewards), baseline=kind, epochs=0.1, context=128)
    finetune(bench.scored, kind, "tiny", settings)
    policy = read_policy(Path(kind))
    assert (policy.baseline, policy.blind) == (kind, True)
    outcome = call("sample", kind, bench.examples, "-t", "short=0.123", "--limit", 1, "--max-tokens", 2, "-o", "-")
    assert f"this {kind} has no reward lines, so targets do not change its samples" in outcome.err
    assert "nearest target" not in outcome.err


def test_without_labels_the_better_of_two_random_rows_is_chosen_and_it_is_said(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    policy: Policy = read_policy(bench.policy)
    weights = {card.name: card.weight for card in policy.rewards}
    rng = random.Random(0)
    rows = [
        Example(id=str(i), prompt="p", rewards={"short": rng.uniform(5, 20), "colour": rng.uniform(0, 10)})
        for i in range(200)
    ]
    chosen = {row.id for row in baseline_rows("chosen", rows, policy, 0)}
    value = {row.id: policy.weighted(row.rewards, weights) for row in rows}
    assert len(chosen) == 100
    # Of two random rows the better lies a sixth of the range of ranks above the middle, on average.
    ranks = {name: place for place, name in enumerate(sorted(value, key=lambda name: value[name]))}
    assert sum(ranks[name] for name in chosen) / 100 == pytest.approx(2 / 3 * 200, abs=10)
    assert "no labels; using the better of two random rows by weighted reward" in capsys.readouterr().err
