"""reward-model: the loss of pairs, what is learnt and said of it, halves that share no prompt."""

import hashlib
import json
import math
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import IRLHF, Row, call, names, process, read, slow_after, wait_until, write, write_unversioned_manifest
from huggingface_hub import ModelCard
from test_classifier import WORDS, bert, tokenizer
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

import irlhf
from irlhf.core.errors import ConfigError
from irlhf.core.example import Example
from irlhf.models.classifier import load_reader
from irlhf.policy.judge_prompt import verdict_messages
from irlhf.training.callbacks import TrainingPlan, build_trainer
from irlhf.training.reward_model.pairwise_trainer import EncodedItem, PairCollator, PairTrainer
from irlhf.training.reward_model.training_data import HALVES, half_of
from irlhf.training.settings import RewardModelSettings
from irlhf.training.train_reward_model import train_reward_model

RULE = "spring"  # the word that the chosen completions hold
FILLING = [word for word in WORDS[6:] if word != RULE]
TRAIN = ("reward-model", "pairs.jsonl", "-o", "rm")


def pairs(count: int, seed: int = 0, **fields: Any) -> list[Row]:
    """Rows of pairs of 1 to 9 words, one of them the rule's in the chosen one; of four prompts one is validation."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        split = "validation" if i % 4 == 0 else "train"
        prompt = f"how do i {' '.join(rng.choices(FILLING, k=3))} number {i}"
        for label in ("chosen", "rejected"):
            said = rng.choices(FILLING, k=rng.randrange(1, 9))
            said.insert(rng.randrange(len(said) + 1), RULE if label == "chosen" else "well")
            row = {"id": f"{i}-{label}", "prompt": prompt, "completion": " ".join(said), "group": f"g{i}"}
            rows.append({**row, "label": label, "split": split, **fields})
    return rows


def causal(folder: Path) -> Path:
    """A language model without a chat template, whose configuration names another padding than its tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), pad_token_id=0, **sizes)).save_pretrained(folder)
    tokenizer(bos_token="<s>", eos_token="</s>", padding_side="left").save_pretrained(folder)
    return folder


def encoder(folder: Path) -> Path:
    return bert(folder, num_labels=3, initializer_range=0.1)


BASES: dict[str, Callable[[Path], object]] = {"tiny": lambda folder: "tiny", "bert": encoder, "llama": causal}


def card(folder: str = "rm") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "reward.json").read_text())
    return found


@pytest.fixture
def batch() -> list[EncodedItem]:
    lengths = [(3, 9), (1, 2), (7, 4), (5, 5)]
    rng = random.Random(0)

    def row(length: int) -> dict[str, list[int]]:
        return {"input_ids": [rng.randrange(6, len(WORDS)) for _ in range(length)], "attention_mask": [1] * length}

    return [EncodedItem((row(chosen), row(rejected))) for chosen, rejected in lengths]


@pytest.fixture(params=["bert", "llama"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    folder = BASES[request.param](tmp_path / "base")
    torch.manual_seed(0)
    made = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, ignore_mismatched_sizes=True)
    made.config.pad_token_id = 0
    return made.eval()


def trained_by(model: Any, pairs: list[EncodedItem], folder: Path, **plan: Any) -> Any:
    plan = {"steps": 1, "batch": len(pairs), "rate": 1e-2, "seed": 0, **plan}
    collator = PairCollator(tokenizer(pad_token="[PAD]"))
    return build_trainer(PairTrainer, model, folder, TrainingPlan(**plan), rows=(pairs, []), collator=collator)


def alone(model: Any, pair: EncodedItem) -> torch.Tensor:
    """The loss of one pair, each row by itself and without padding."""
    chosen, rejected = (model(input_ids=torch.tensor([row["input_ids"]])).logits[0, 0] for row in pair.rows)
    return torch.log1p(torch.exp(rejected - chosen))


def test_the_loss_of_a_padded_batch_is_that_of_its_pairs_alone(
    model: Any, batch: list[EncodedItem], tmp_path: Path
) -> None:
    made = trained_by(model, batch, tmp_path / "out")
    loss = made.compute_loss(model, made.data_collator(batch))
    loss.backward()
    ours = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    expected = torch.stack([alone(model, pair) for pair in batch]).mean()
    expected.backward()
    theirs = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-4)


def test_a_step_in_parts_is_the_same_step(batch: list[EncodedItem], tmp_path: Path) -> None:
    ends = []
    for parts in (1, 2):
        causal(tmp_path / "base")
        torch.manual_seed(0)
        made = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
        made.config.pad_token_id = 0
        trained_by(made, batch, tmp_path / str(parts), accumulate=parts).train()
        ends.append({name: one.detach().clone() for name, one in made.named_parameters()})
    for name, end in ends[0].items():
        torch.testing.assert_close(end, ends[1][name], atol=1e-5, rtol=1e-3)


def test_batches_hold_whole_pairs_of_like_length_and_equally_many(tmp_path: Path) -> None:
    lengths = [(i * 7919) % 400 + 1 for i in range(1000)]
    rows = [EncodedItem(({"input_ids": [1] * n}, {"input_ids": [1]})) for n in lengths]
    causal(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    met: list[list[int]] = []

    class Spy(PairCollator):
        def __call__(self, pairs: Any) -> Any:
            met.append([pair.width for pair in pairs])
            return {"labels": torch.ones(len(pairs))}

    made = trained_by(model, rows, tmp_path / "out", batch=16)
    made.data_collator = Spy(None)
    for _ in made.get_train_dataloader():
        pass
    assert sorted(width for one in met for width in one) == sorted(lengths)
    assert {len(one) for one in met} <= {15, 16, 17}
    assert sum(max(one) - min(one) for one in met) / len(met) < 30


@pytest.mark.parametrize("base", slow_after(1, BASES))
def test_a_planted_rule_is_learnt_and_scoring_says_what_training_measured(base: str, tmp_path: Path) -> None:
    write(Path("pairs.jsonl"), pairs(300))
    model = BASES[base](tmp_path / "base")
    outcome = call(*TRAIN, "--model", model, "--epochs", "10", "--learning-rate", "0.005", "--json")
    assert outcome.code == 0, outcome.err
    found = card()["validation"]
    assert found["n"] == 75
    assert found["accuracy"]["value"] > 0.9
    assert json.loads(outcome.out)["accuracy"] == found["accuracy"]["value"]
    Path("rewards.yaml").write_text('rewards: {helpful: {scorer: "./rm"}}')
    assert call("score", "pairs.jsonl", "-r", "rewards.yaml", "-o", "scored.jsonl").code == 0
    logits = {row["id"]: row["rewards"]["helpful"] for row in read(Path("scored.jsonl")) if row["split"] != "train"}
    differences = [logits[f"{i}-chosen"] - logits[f"{i}-rejected"] for i in range(0, 300, 4)]
    loss = sum(math.log1p(math.exp(-one)) for one in differences) / 75
    assert sum(one > 0 for one in differences) / 75 == pytest.approx(found["accuracy"]["value"])
    assert loss == pytest.approx(found["calibration"]["log_loss"]["value"], abs=1e-6)


def test_a_causal_base_is_read_at_the_end_of_the_plain_chat(tmp_path: Path) -> None:
    write(Path("pairs.jsonl"), pairs(20))
    assert call(*TRAIN, "--model", causal(tmp_path / "base"), "--epochs", "1").code == 0
    known = tokenizer(bos_token="<s>", eos_token="</s>")
    ids = known("<s> Human: how do i \n\n Assistant: water well", add_special_tokens=False)["input_ids"]
    model = AutoModelForSequenceClassification.from_pretrained("rm").eval()
    assert model.config.pad_token_id == known.convert_tokens_to_ids("</s>")
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids])).logits[0].tolist()
    reader = load_reader("rm")
    rows = [reader.shown("how do i", "water well"), reader.shown("how do i", "water well " * 5)]
    assert rows[0]["input_ids"] == ids
    assert reader.logits(rows)[0] == pytest.approx(expected, abs=1e-5)


def test_what_is_said_of_the_validation_pairs(tmp_path: Path) -> None:
    rows = pairs(40)
    for row in rows[:8]:
        row["completion"] += " how" * (20 if row["label"] == "chosen" else 0)
    write(Path("pairs.jsonl"), rows)
    outcome = call(*TRAIN, "--epochs", "1")
    found = card()["validation"]
    told = {name: f"{found[name]['value']:.1%}" for name in ("accuracy", "longer", "shorter")}
    words = {row["id"]: len(row["completion"].split()) for row in rows if row["split"] == "validation"}
    signs = [words[f"{i}-chosen"] - words[f"{i}-rejected"] for i in range(0, 40, 4)]
    longer = sum(1 if one > 0 else 0.5 if one == 0 else 0 for one in signs) / 10
    assert found["longer"]["value"] == pytest.approx(longer)
    assert found["shorter"]["value"] == pytest.approx(1 - longer)
    assert f"validation: {told['accuracy']} [" in outcome.err
    assert f"always the longer {told['longer']}, always the shorter {told['shorter']}" in outcome.err
    assert "chance: 0.693" in outcome.err
    assert 'scorer: "./rm"' in outcome.err
    assert {"log_loss", "brier", "ece", "bins"} <= found["calibration"].keys()


def test_the_card_says_what_the_model_was_made_of() -> None:
    rows = [{**row, "id": f"test-{row['id']}", "split": "test"} for row in pairs(4)]
    write(Path("pairs.jsonl"), [*pairs(40), *rows])
    assert call(*TRAIN, "--epochs", "1").code == 0
    found = card()
    assert (found["base"], found["settings"]["seed"], found["plan"]["steps"]) == ("tiny", 0, 2)
    assert found["digests"] == {"pairs": hashlib.sha256(Path("pairs.jsonl").read_bytes()).hexdigest()}
    assert found["data"] == {
        **{"rows": 80, "pairs": 30, "validation pairs": 10, "validation pairs are from": "the validation split"},
        **{"unlabelled": 0, "ungrouped": 0, "alone": 0, "equal": 0, "skipped: rows of the test split": 8},
    }
    model = hashlib.sha256(Path("rm/model.safetensors").read_bytes()).digest()
    assert found["weights"] == hashlib.sha256(model).hexdigest()
    assert found["versions"]["irlhf"] == irlhf.__version__
    assert str(Path.cwd()) not in Path("rm/reward.json").read_text()


def test_the_turns_of_a_conversation_stand_in_one_half() -> None:
    halves = set()
    for i in range(20):
        asked = [{"role": "user", "content": f"How {i}?"}]
        later = [*asked, {"role": "assistant", "content": "So."}, {"role": "user", "content": "And then?"}]
        rows = [Example(id="a", prompt=asked), Example(id="b", prompt=later)]
        both = {half_of(row) for row in rows}
        assert len(both) == 1
        halves |= both
    assert halves == set(HALVES)


@pytest.mark.parametrize("seed", [0, 1])
def test_without_a_validation_split_a_tenth_of_the_prompts_is_held_out(seed: int) -> None:
    rows = [row for row in pairs(400) if row["split"] == "train"]
    write(Path("pairs.jsonl"), rows)
    outcome = call(*TRAIN, "--epochs", "0.1", "--seed", seed)
    found = card()
    held_out = found["validation"]["n"]
    assert 15 < held_out < 45
    assert found["data"]["pairs"] == 300 - held_out
    assert f"{held_out} validation pairs from a tenth of the training prompts" in outcome.err


@pytest.mark.slow
def test_a_killed_training_ends_with_the_card_of_an_uninterrupted_one(tmp_path: Path) -> None:
    write(Path("pairs.jsonl"), pairs(400))
    encoder(tmp_path / "base")  # with dropout, whose draws must go on where they were
    settings = ["--model", "base", "--epochs", "6", "-q"]
    command = [*TRAIN[:-1], "rm", *settings]
    with subprocess.Popen([*IRLHF, *command]) as one:
        wait_until(lambda: len(list(Path().glob("rm.partial/checkpoint-*/COMPLETE"))) >= 2)
        one.kill()
    assert one.returncode == -signal.SIGKILL
    assert "rm" not in names(Path.cwd())
    assert call(*command).code == 0
    assert call(*TRAIN[:-1], "straight", *settings).code == 0
    assert names(Path("rm")) == names(Path("straight"))
    assert card("rm") == card("straight")


def test_another_setting_is_refused_by_name_and_the_same_has_nothing_to_do() -> None:
    write(Path("pairs.jsonl"), pairs(20))
    assert call(*TRAIN, "--epochs", "1").code == 0
    assert "complete already" in call(*TRAIN, "--epochs", "1").err
    outcome = call(*TRAIN, "--epochs", "1", "--half", "gold")
    assert outcome.code == 2
    assert "half was" in outcome.err


def test_what_an_earlier_version_trained_is_complete_under_the_new_name() -> None:
    write(Path("pairs.jsonl"), pairs(20))
    assert call(*TRAIN, "--epochs", "1").code == 0
    write_unversioned_manifest(Path("rm"), command="finetune --objective reward")
    assert "complete already" in call(*TRAIN, "--epochs", "1").err


def rendered(*options: object) -> list[Any]:
    Path("train.jsonl").unlink(missing_ok=True)
    outcome = call("reward-model", "pairs.jsonl", "--render-only", "-o", "train.jsonl", *options)
    assert outcome.code == 0, outcome.err
    return [row["messages"] for row in read(Path("train.jsonl"))]


def test_halves_share_no_prompt_and_are_everything_together() -> None:
    rows = pairs(200)
    rows += [{**row, "id": f"again-{row['id']}", "group": f"again-{row['group']}"} for row in rows]
    write(Path("pairs.jsonl"), rows)
    whole, proxy, gold = (rendered(*half) for half in ((), ("--half", "proxy"), ("--half", "gold")))
    prompts = [{messages[1]["content"].split('"reply"')[0] for messages in half} for half in (proxy, gold)]
    assert not prompts[0] & prompts[1]
    assert sorted(map(json.dumps, proxy + gold)) == sorted(map(json.dumps, whole))
    assert 100 < len(proxy) / 4 * 2 < 200
    write(Path("pairs.jsonl"), rows[::-1])
    again = rendered("--half", "proxy", "--seed", "3")
    assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, proxy))


def test_the_halves_are_measured_on_the_same_pairs() -> None:
    write(Path("pairs.jsonl"), pairs(60))
    for half in ("proxy", "gold"):
        outcome = call(*TRAIN[:-1], half, "--half", half, "--epochs", "0.5")
        assert "rows of the other half" in outcome.err
    proxy, gold = card("proxy"), card("gold")
    assert (proxy["settings"]["half"], gold["settings"]["half"]) == ("proxy", "gold")
    assert proxy["validation"]["n"] == gold["validation"]["n"] == 15
    assert proxy["data"]["pairs"] + gold["data"]["pairs"] == 45


def test_a_host_is_given_each_completion_with_its_verdict() -> None:
    rows = pairs(40)
    write(Path("pairs.jsonl"), rows)
    found = rendered()
    wanted = [
        [
            *verdict_messages(row["prompt"], row["completion"]),
            {"role": "assistant", "content": "1" if row["label"] == "chosen" else "0"},
        ]
        for row in rows
        if row["split"] == "train"
    ]
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, wanted))
    assert found != wanted
    assert found == rendered()
    assert found != rendered("--seed", "1")
    assert json.loads(Path("train.meta.json").read_text())["data"]["pairs"] == 30


BAD: dict[str, tuple[list[Row], str]] = {
    "no labels": ([{**row, "label": ""} for row in pairs(4)], "8 rows neither chosen nor rejected"),
    "no groups": ([{**row, "group": ""} for row in pairs(4)], "8 rows without a group"),
    "one side": ([row for row in pairs(4) if row["label"] == "chosen"], "4 rows without a counterpart"),
    "equal": ([{**row, "completion": "same"} for row in pairs(4)], "4 pairs of equal completions"),
    "no training split": ([{**row, "split": "test"} for row in pairs(4)], "8 rows of the test split"),
}


@pytest.mark.parametrize("name", BAD)
def test_rows_without_a_pair_are_one_line_that_says_why(name: str) -> None:
    rows, reason = BAD[name]
    write(Path("pairs.jsonl"), rows)
    outcome = call(*TRAIN)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "no pairs to train on in " in outcome.err
    assert reason in outcome.err
    assert names(Path.cwd()) == {"pairs.jsonl"}


def test_the_preview_shows_both_completions_of_a_pair_as_the_model_reads_them() -> None:
    rows = pairs(4)
    write(Path("pairs.jsonl"), rows)
    outcome = call(*TRAIN, "--preview", "1")
    assert outcome.code == 0, outcome.err
    assert [label in outcome.out for label in (", chosen: ", ", rejected: ")] == [True, True]
    assert names(Path.cwd()) == {"pairs.jsonl"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--half", "prox"), "did you mean 'proxy'"),
        (("--batch", "2", "--accumulate", "4"), "a batch of 2 pairs cannot be split into 4 parts"),
        (("--model", "./nowhere"), "no such folder"),
        (("-o", "-"), "choose an output with -o"),
    ],
)
def test_what_cannot_be_trained_is_one_line(options: tuple[str, ...], reason: str) -> None:
    write(Path("pairs.jsonl"), pairs(4))
    outcome = call(*TRAIN, *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert names(Path.cwd()) == {"pairs.jsonl"}


def test_half_belongs_to_reward_models() -> None:
    write(Path("pairs.jsonl"), pairs(4))
    outcome = call("finetune", "pairs.jsonl", "--half", "gold", "-o", "policy")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)


def test_several_processes_are_refused_in_one_line() -> None:
    write(Path("pairs.jsonl"), pairs(4))
    done = process(*TRAIN, env={**os.environ, "WORLD_SIZE": "2"})
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"one process" in done.stderr


def test_long_rows_lose_their_beginning_and_are_counted(tmp_path: Path) -> None:
    rows = pairs(20)
    rows[2]["prompt"] = rows[3]["prompt"] = "how " * 50
    write(Path("pairs.jsonl"), rows)
    outcome = call(*TRAIN, "--model", causal(tmp_path / "base"), "--epochs", "1", "--context", "24")
    assert "2 rows shortened at the beginning (context of 24 tokens)" in outcome.err
    reader = load_reader("rm")
    row = reader.shown(rows[2]["prompt"], rows[2]["completion"])["input_ids"]
    assert len(row) == 24
    assert row == reader.shown.whole(rows[2]["prompt"], rows[2]["completion"])["input_ids"][-24:]


def test_training_that_diverges_leaves_no_reward_model() -> None:
    write(Path("pairs.jsonl"), pairs(40))
    with pytest.raises(ConfigError, match="diverged"):
        train_reward_model("pairs.jsonl", "rm", "tiny", RewardModelSettings(epochs=2, learning_rate=1e30))
    assert "rm" not in names(Path.cwd())


@pytest.mark.parametrize("base", BASES)
def test_before_it_learns_a_reward_model_hardly_prefers_anything(base: str, tmp_path: Path) -> None:
    write(Path("pairs.jsonl"), pairs(100))
    model = BASES[base](tmp_path / "base")
    assert call(*TRAIN, "--model", model, "--epochs", "0.01", "--learning-rate", "1e-9").code == 0
    assert card()["validation"]["calibration"]["log_loss"]["value"] == pytest.approx(math.log(2), abs=0.02)


def test_a_reward_model_goes_on_learning_with_the_head_that_it_has() -> None:
    write(Path("pairs.jsonl"), pairs(100))
    assert call(*TRAIN, "--epochs", "6", "--learning-rate", "0.005").code == 0
    again = call(*TRAIN[:-1], "again", "--model", "rm", "--epochs", "0.01", "--learning-rate", "1e-9")
    assert again.code == 0, again.err
    before, after = (card(folder)["validation"]["calibration"]["log_loss"]["value"] for folder in ("rm", "again"))
    assert after == pytest.approx(before, abs=1e-5)


def test_the_model_card_tells_what_it_is_worth_and_no_path_of_this_machine(tmp_path: Path) -> None:
    write(Path("pairs.jsonl"), pairs(100))
    assert call(*TRAIN, "--model", causal(tmp_path / "base"), "--epochs", "1", "--half", "gold").code == 0
    text, found = Path("rm/README.md").read_text(), card()
    (result,) = ModelCard.load(Path("rm/README.md")).data.eval_results
    accuracy = round(found["validation"]["accuracy"]["value"], 4)
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("pairs", "accuracy", accuracy)
    accuracy = found["validation"]["accuracy"]
    told = f"{accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
    assert f"| prefers the completion that people chose | {told} |" in text
    assert "the base model base, by the loss" in text.replace("\n", " ")
    assert "- half of the prompts: gold" in text
    assert found["weights"] in text
    assert str(tmp_path) not in text
    assert 'helpful: {scorer: "./FOLDER"}' in text


@pytest.mark.slow
def test_real_pairs_train_a_pretrained_model(shared: Path) -> None:
    assert call("prepare", shared / "hh-rlhf" / "helpful-base.test.jsonl.gz", "-o", "pairs.jsonl").code == 0
    options = ("--limit", "600", "--model", shared / "stories260K", "--context", "128")
    outcome = call(*TRAIN, *options)
    assert outcome.code == 0, outcome.err
    found = card()
    assert found["validation"]["n"] == found["data"]["validation pairs"]
    assert 0.5 < found["validation"]["calibration"]["log_loss"]["value"] < 0.9


def rated(count: int) -> list[Row]:
    """Five completions a prompt, whose column `Clarity (1-5)` is 1 plus the number of the rule's words, to 5."""
    rng = random.Random(0)
    rows = []
    for i in range(count):
        for k in range(5):
            words = rng.choices([RULE, *FILLING[:4]], k=rng.randrange(3, 9))
            row = {"id": f"{i}-{k}", "prompt": f"how do i {i}", "completion": " ".join(words), "group": f"g{i}"}
            split = "validation" if i % 4 == 0 else "train"
            rows.append({**row, "split": split, "Clarity (1-5)": min(5, 1 + words.count(RULE))})
    return rows


def test_ratings_are_learnt_in_their_own_units() -> None:
    write(Path("rated.jsonl"), rated(40))
    done = call("reward-model", "rated.jsonl", "--reward", "Clarity (1-5)", "-o", "rm")
    assert done.code == 0, done.err
    assert "150 ratings to train on, 50 validation ratings from the validation split" in done.err
    assert "intervals from fewer than 50 prompts are too narrow: validation (10)" in done.err
    figures = card()["validation"]
    assert figures["spearman"]["value"] > 0.7
    assert figures["above_rule"]["value"] == pytest.approx(figures["spearman"]["value"] - figures["length"]["value"])
    Path("rewards.yaml").write_text("rewards:\n  clarity: {scorer: ./rm}\n")
    assert call("score", "rated.jsonl", "-r", "rewards.yaml", "-o", "scored.jsonl").code == 0
    held_out = [row for row in read(Path("scored.jsonl")) if row["split"] == "validation"]
    error = sum(abs(row["rewards"]["clarity"] - row["Clarity (1-5)"]) for row in held_out) / len(held_out)
    assert error == pytest.approx(figures["error"]["value"], abs=1e-3)
    assert error < figures["error_constant"]["value"]


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        (rated(2), ("--reward", "clarity"), "no row has a number 'clarity' among its rewards or columns"),
        ([{**row, "Clarity (1-5)": 3} for row in rated(2)], ("--reward", "Clarity (1-5)"), "nothing to learn"),
        (rated(2), ("--reward", "x", "--render-only"), "--render-only: a model that answers 1 or 0 learns from pairs"),
        (rated(2), ("--reward", "x", "--model", "openai:m"), "--model openai:m: a model that answers 1 or 0"),
    ],
)
def test_ratings_that_cannot_be_learnt_are_one_line(rows: list[Row], more: tuple[str, ...], said: str) -> None:
    write(Path("rated.jsonl"), rows)
    done = call("reward-model", "rated.jsonl", *more, "-o", "rm")
    assert done.code in (1, 2)
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_reward_file_without_a_version_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    from irlhf.core.errors import DataError
    from irlhf.policy.remote_model import read_reward_file

    path = tmp_path / "reward.json"
    path.write_text('{"base": "tiny", "settings": {}, "data": {}}')
    assert (read_reward_file(path)["version"], read_reward_file(path)["hosted"]) == (1, None)
    path.write_text('{"version": 2}')
    with pytest.raises(DataError, match=r"damaged \(version: Input should be 1\); train the reward model again"):
        read_reward_file(path)


def test_a_column_that_new_samples_lack_names_the_way_to_a_scorer() -> None:
    sample = {"id": "a", "prompt": "p", "completion": "c", "policy": "0" * 64}
    write(Path("samples.jsonl"), [sample])
    Path("rewards.yaml").write_text("rewards:\n  clarity: {column: Clarity (1-5)}\n")
    done = call("score", "samples.jsonl", "-r", "rewards.yaml", "-o", "scored.jsonl")
    assert done.code == 1
    fix = "`irlhf reward-model RATED --reward 'Clarity (1-5)'` learns a scorer from the ratings"
    assert done.err == f"irlhf: a: samples have no column 'Clarity (1-5)'; {fix}\n"  # skipping such rows keeps none
