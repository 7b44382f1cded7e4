"""What is trained, in which numbers, and what is refused before or while it goes wrong."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers import Bench, Outcome, call, names, read
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from irlhf.core.errors import ConfigError
from irlhf.training.batching import Encoded, together
from irlhf.training.finetune import finetune
from irlhf.training.settings import FinetuneSettings


def train(bench: Bench, output: str, *options: object) -> Outcome:
    command = ("finetune", bench.scored, "-r", bench.rewards, "--context", "128", "--epochs", "0.5", "-o", output)
    return call(*command, "--model", bench.policy, *options)


def answers(policy: str, bench: Bench) -> list[str]:
    out = f"{policy}.jsonl"
    ask = ("-t", "short=0.5", "--temperature", "0", "--max-tokens", "12", "--limit", "8", "-o", out)
    assert call("sample", policy, bench.examples, *ask).code == 0
    return [row["completion"] for row in read(Path(out))]


def test_updates_kept_apart_answer_as_merged_ones_from_any_folder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bench.policy, "base")
    for output, merge in (("merged", []), ("apart", ["--no-merge"])):
        outcome = call(
            *("finetune", bench.scored, "-r", bench.rewards, "--context", "128", "--epochs", "1", "--model", "base"),
            *("--lora", "4", *merge, "-o", output),
        )
        assert outcome.code == 0, outcome.err
    assert "adapter_model.safetensors" in names(Path("apart"))
    assert "model.safetensors" not in names(Path("apart"))
    assert "rank 4 alone, kept apart" in Path("apart/README.md").read_text()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert answers("../apart", bench) == answers("../merged", bench)


def test_low_rank_updates_learn(bench: Bench) -> None:
    assert train(bench, "policy", "--lora", "4", "--epochs", "1").code == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (bench.policy, Path("policy")))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_a_base_in_half_precision_is_trained_in_single_precision(bench: Bench) -> None:
    shutil.copytree(bench.policy, "base")
    AutoModelForCausalLM.from_pretrained("base", dtype=torch.bfloat16).save_pretrained("base")
    command = ("finetune", bench.scored, "-r", bench.rewards, "--context", "128", "--epochs", "0.2", "--model", "base")
    assert call(*command, "-o", "policy").code == 0
    assert {one.dtype for one in load_file("policy/model.safetensors").values()} == {torch.float32}
    assert json.loads(Path("policy/policy.json").read_text())["training"]["dtype"] == "float32"
    assert "- numbers of the weights: float32" in Path("policy/README.md").read_text()


def test_a_base_that_is_not_trained_keeps_its_numbers(bench: Bench) -> None:
    shutil.copytree(bench.policy, "base")
    AutoModelForCausalLM.from_pretrained("base", dtype=torch.bfloat16).save_pretrained("base")
    command = ("finetune", bench.scored, "-r", bench.rewards, "--model", "base", "--baseline", "prompted")
    assert call(*command, "-o", "policy").code == 0
    assert {one.dtype for one in load_file("policy/model.safetensors").values()} == {torch.bfloat16}


def test_tiny_is_not_left_random_by_low_rank_updates(bench: Bench) -> None:
    outcome = train(bench, "policy", "--model", "tiny", "--lora", "4")
    assert outcome.code == 2
    assert "remove --lora" in outcome.err


@pytest.mark.parametrize("tracker", ["nonsense", "wandb"])
def test_a_tracker_that_is_not_there_is_named_in_one_line(tracker: str, bench: Bench) -> None:
    if find_spec(tracker):
        pytest.skip(f"{tracker} is installed")
    outcome = train(bench, "policy", "--report-to", tracker)
    assert outcome.code == 2
    assert f"--report-to {tracker}: " in outcome.err
    assert names(Path.cwd()) == set()


def test_training_that_diverges_leaves_no_policy(bench: Bench) -> None:
    settings = FinetuneSettings(rewards=str(bench.rewards), context=128, epochs=0.5, learning_rate=1e6)
    with pytest.raises(ConfigError, match="diverged"):
        finetune(bench.scored, "policy", str(bench.policy), settings)
    assert "policy" not in names(Path.cwd())


def test_a_step_cannot_be_computed_in_more_parts_than_it_has_rows(bench: Bench) -> None:
    outcome = train(bench, "policy", "--batch", "4", "--accumulate", "8")
    assert outcome.code == 2
    assert "a batch of 4 rows cannot be split into 8 parts" in outcome.err


def test_a_family_has_no_more_rows_than_a_part_of_a_step() -> None:
    rows = [Encoded([1, 5, 6, i], [2], "a") for i in range(10, 26)]
    assert [len(one.members) for one in together(rows, 1000, 4)] == [4, 4, 4, 4]


@pytest.mark.parametrize("option", [("--seed", "-1"), ("--seed", 2**40), ("--epochs", "inf"), ("--lora", "999999")])
def test_a_number_beyond_all_measure_is_a_usage_error(option: tuple[object, ...], bench: Bench) -> None:
    assert train(bench, "policy", *option).code == 2
    assert names(Path.cwd()) == set()
