"""The contrast over targets, reward-augmented DPO and steering information."""

import json
import math
import random
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import IRLHF, call, read, wait_until, write
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from irlhf.core.example import Example
from irlhf.policy.steering_report import ignored
from irlhf.policy.templates import Bound, Template
from irlhf.training.batching import Collator, Encoded, Family, LengthBatches, compared
from irlhf.training.callbacks import TrainingPlan
from irlhf.training.settings import Objective
from irlhf.training.steering_information import measure, probes
from irlhf.training.target_contrast import ContrastDraw, ContrastFamilies
from irlhf.training.target_draw import Rewarded, TargetDraw, Wishes
from irlhf.training.trainer import CompletionTrainer, trainer

PROMPT, COMPLETIONS = [1, 5, 6, 7], ([9, 8, 2], [12, 13, 14, 2])
TARGETS = ([20, 21], [22, 23, 24])


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, max_position_embeddings=64, **sizes)).eval()


def pair(shift: int = 0) -> Family:
    """Two completions, each under its own target and under the other's."""
    prompts = [[*(PROMPT[: 2 + shift]), *target] for target in TARGETS]
    members = [Encoded(prompts[t], COMPLETIONS[c], f"p{shift}") for c, t in ((0, 0), (0, 1), (1, 1), (1, 0))]
    return compared(members, (0, 2), ((0, 1), (2, 3)))


def log_probability(model: Any, row: Encoded) -> torch.Tensor:
    """The summed log probability of a completion behind its prompt, read alone by transformers."""
    ids = torch.tensor([row.prompt + row.completion])
    labels = torch.tensor([[-100] * len(row.prompt) + row.completion])
    return -model(input_ids=ids, labels=labels).loss * len(row.completion)


def by_hand(model: Any, families: Sequence[Family], objective: Objective) -> torch.Tensor:
    likelihood, tokens, contrast, comparisons = torch.zeros(()), 0, torch.zeros(()), 0
    for family in families:
        scores = torch.stack([log_probability(model, row) for row in family.members])
        for own in family.own or ():
            likelihood = likelihood - scores[own]
            tokens += len(family.members[own].completion)
        for first, *others in family.comparisons:
            contrast = contrast - scores[[first, *others]].log_softmax(0)[0]
            comparisons += 1
    return likelihood / tokens + objective.weight * contrast / comparisons


def made(model: Any, folder: Path, objective: Objective, accumulate: int = 1) -> CompletionTrainer:
    plan = TrainingPlan(
        steps=1, batch=2, rate=1e-3, seed=0, layout="shared", objective=objective, accumulate=accumulate
    )
    return trainer(model, 0, ([pair()], []), folder, plan)


@pytest.mark.parametrize("shares", [True, False])
def test_the_contrast_is_the_cross_entropy_of_the_own_target(model: Any, shares: bool, tmp_path: Path) -> None:
    objective = Objective("contrast", weight=0.7)
    families = [pair(), pair(1), pair(2)]
    loss = made(model, tmp_path, objective).compute_loss(model, Collator(0, shares=shares)(families))
    ours = torch.autograd.grad(loss, list(model.parameters()))
    expected = by_hand(model, families, objective)
    theirs = torch.autograd.grad(expected, list(model.parameters()))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_parts_of_a_step_have_the_loss_of_the_whole_step(model: Any, tmp_path: Path) -> None:
    objective = Objective("contrast")
    families = [pair(), pair(1), pair(2)._replace(comparisons=((0, 1),))]
    one = made(model, tmp_path, objective)
    parts, items = one.get_batch_samples(iter([Collator(0)(families[:1]), Collator(0)(families[1:])]), 2, "cpu")
    loss = sum(float(one.compute_loss(model, part, num_items_in_batch=items).detach()) for part in parts)
    assert loss == pytest.approx(float(by_hand(model, families, objective).detach()), abs=1e-5)


def test_completions_that_share_a_target_compute_it_once() -> None:
    family = pair()
    assert family.width == 2 + (1 + 4 + 5) + (2 + 4 + 5)  # what is shared, then each target with both completions
    batch = Collator(0)([family])
    assert batch["input_ids"].tolist() == [
        [1, 5, 20, 21, 9, 8, 2, 21, 12, 13, 14, 2, 22, 23, 24, 9, 8, 2, 24, 12, 13, 14, 2]
    ]
    assert batch["attention_mask"][0, 0, 11].nonzero().flatten().tolist() == [0, 1, 2, 7, 8, 9, 10, 11]
    assert sorted(set(batch["sequences"].flatten().tolist())) == [-1, 0, 1, 2, 3]


def test_ra_dpo_prefers_each_completion_under_its_own_target(model: Any, tmp_path: Path) -> None:
    prompts = [[*PROMPT, *target] for target in TARGETS]
    members = [Encoded(prompts[t], COMPLETIONS[c], "p") for c, t in ((0, 0), (1, 0), (1, 1), (0, 1))]
    family = compared(members, (), ((0, 1), (2, 3)))
    one = made(model, tmp_path, Objective("ra-dpo", beta=0.3))
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.02 * torch.randn_like(weights))  # away from the reference
        loss = one.compute_loss(model, Collator(0)([family]))
        gains = [log_probability(model, row) - log_probability(one.reference, row) for row in members]
    expected = [-torch.nn.functional.logsigmoid(0.3 * (gains[a] - gains[b])) for a, b in family.comparisons]
    assert float(loss) == pytest.approx(float(sum(expected)) / 2, abs=1e-5)


NUMBERS = st.floats(0, 1)
WISHES = st.one_of(NUMBERS, st.builds(Bound, st.sampled_from(["at_least", "at_most"]), NUMBERS))


@given(wish=WISHES, actual=NUMBERS)
def test_a_target_holds_where_the_line_is_true_as_it_is_spelled(wish: Any, actual: float) -> None:
    template = Template(at_least="{{ name }}: at least {{ value }}", at_most="{{ name }}: at most {{ value }}")
    holds = TargetDraw(template, {}, 0, 0).holds({"a": wish}, {"a": actual})
    if isinstance(wish, Bound):
        spelled = float(f"{wish.number:.2f}")
        least, most = sorted([spelled, wish.number])
        assert holds == (actual >= least if wish.kind == "at_least" else actual <= most)
    else:
        assert holds == (f"{wish:.2f}" == f"{actual:.2f}")


def rewarded(count: int, each: int, seed: int) -> list[Rewarded]:
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        example = Example(id=f"r{number}", prompt="p", completion="c", group=f"g{number // each}")
        rows.append(Rewarded(example, [3, 2], {"a": rng.random(), "b": rng.choice([0.1, 0.5, 0.9])}))
    return rows


@pytest.mark.parametrize(("alternatives", "one_reward"), [(1, 0.0), (1, 1.0), (3, 0.5)])
@pytest.mark.parametrize("each", [1, 2, 5])
def test_no_alternative_is_true_for_the_completion(each: int, alternatives: int, one_reward: float) -> None:
    template = Template(at_least="{{ name }}: at least {{ value }}")
    rows = rewarded(40, each, 1)
    known = {name: sorted(row.actual[name] for row in rows) for name in "ab"}
    draw = TargetDraw(template, known, drop=0.2, drop_all=0.0)
    seen: dict[str, list[Wishes]] = {}

    def encode(example: Example, wishes: Wishes) -> list[int]:
        seen.setdefault(example.id, []).append(dict(wishes))
        return [1, 4]

    objective = Objective("contrast", alternatives=alternatives, one_reward=one_reward)
    contrast = ContrastDraw(rows, encode, draw, objective, seed=0)
    families = [contrast.family(group, 3, objective.one_reward) for group in contrast.groups(3)]
    assert sum(len(family.own or ()) for family in families) == len(rows)
    assert len(families) == sum(math.ceil(each / 2) for _ in range(40 // each))
    actual = {row.example.id: row.actual for row in rows}
    compared_rows = 0
    for name, (own, *others) in seen.items():
        assert draw.holds(own, actual[name])
        assert not any(draw.holds(other, actual[name]) for other in others)
        assert all(other.keys() == own.keys() for other in others)
        if one_reward == 1 and own:
            assert all(sum(other[key] != own[key] for key in own) == 1 for other in others)
        compared_rows += bool(others)
    assert compared_rows > len(rows) / 2


def test_epochs_draw_other_targets_and_the_same_ones_again() -> None:
    rows = rewarded(24, 4, 2)
    draw = ContrastDraw(
        rows,
        lambda example, wishes: [1, *(int(100 * float(str(one)[:4])) for one in wishes.values()), 2],
        TargetDraw(Template(), {}, 0.1, 0),
        Objective("contrast"),
        seed=5,
    )
    families = ContrastFamilies(draw)
    drawn = []
    for epoch in (1, 1, 2):
        families.draw(epoch)
        drawn.append([families[number] for number in range(2 * len(families))])
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_single_rewards_are_compared_in_the_second_half_of_the_training() -> None:
    batches = LengthBatches([1] * 8, 2, seed=0)
    batches.second_phase = 6
    batches.redraw = lambda epoch: [1] * 8
    epochs = []
    for epoch in (0, 1, 2):
        batches.set_epoch(epoch)
        epochs.append([all(i >= 8 for i in batch) for batch in batches])
    assert epochs == [[False] * 4, [False, False, True, True], [True] * 4]


class Reads(torch.nn.Module):
    """A model that gives each token a fixed logit, higher where the prompt's target is the completion's own."""

    device = torch.device("cpu")

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.head = torch.nn.Identity()
        self.strength = strength
        self.config = LlamaConfig()

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        rows = torch.zeros(*input_ids.shape, 32)
        for i, ids in enumerate(input_ids.tolist()):
            rows[i, :, 10 + (ids[1] - 20)] = self.strength  # target 20 is of token 10, target 21 of token 11
        return type("Output", (), {"logits": self.head(rows)})()


@pytest.mark.parametrize(("strength", "expected"), [(0.0, 0.0), (50.0, math.log(5))])
def test_information_is_0_for_a_model_that_ignores_the_line_and_at_most_the_log_of_the_options(
    strength: float, expected: float
) -> None:
    rows = [
        Rewarded(Example(id=f"r{n}", prompt="p", completion="c", group=f"g{n // 2}"), [10 + n % 2], {"a": float(n % 2)})
        for n in range(40)
    ]
    draw = TargetDraw(Template(), {}, 0, 0)
    found = probes(rows, rows, lambda example, wishes: [1, 20 + int(float(str(wishes["a"]))), 3], draw, seed=0)
    reads = Reads(strength)
    figures = measure(reads, reads.head, Collator(0, shares=False), found)
    assert figures["joint"]["information"]["value"] == pytest.approx(expected, abs=1e-3)
    assert figures["sibling"]["margin"]["value"] == pytest.approx(strength, abs=1e-3)
    assert figures["sibling"]["right"]["value"] == (1.0 if strength else 0.0)
    assert figures["sibling"]["n"] == len(rows)


def test_nothing_is_measured_where_no_row_is_held_out(model: Any) -> None:
    assert measure(model, model.get_output_embeddings(), Collator(0), []) == {}


COLOURS = {"red": 0.9, "blue": 0.1}


def colours(path: Path) -> Path:
    """Two completions of each prompt, whose reward is their colour."""
    rows = []
    for number in range(60):
        for colour, reward in COLOURS.items():
            jitter = (number % 7) / 100
            rows.append(
                {
                    "id": f"e{number}{colour}",
                    "prompt": f"Name a colour, please, number {number}.",
                    "completion": f"I like {colour}.",
                    "group": f"g{number}",
                    "split": "validation" if number % 5 == 0 else "train",
                    "rewards": {"warm": reward + jitter},
                }
            )
    return write(path, rows)


def test_finetune_says_how_much_the_reward_line_tells(tmp_path: Path) -> None:
    scored = colours(tmp_path / "scored.jsonl")
    outcome = call("finetune", scored, "--objective", "contrast", "--epochs", "20", "--context", "64", "-o", "policy")
    assert outcome.code == 0, outcome.err
    assert "steering information, all rewards" in outcome.err
    assert "ignores" not in outcome.err
    kept = json.loads(Path("policy/policy.json").read_text())["training"]["steering"]
    assert kept["sibling"]["information"]["low"] > 0.3
    assert kept["sibling"]["right"]["value"] > 0.9
    logged = [row for row in read(Path("policy/metrics.jsonl")) if "steering/sibling/information" in row]
    assert logged[-1]["steering/sibling/information"] == pytest.approx(
        kept["sibling"]["information"]["value"], abs=1e-4
    )
    assert len(logged) >= 4
    assert any("contrast_loss" in row for row in read(Path("policy/metrics.jsonl")))


def measured(information: float, right: float, options: int = 2) -> dict[str, Any]:
    return {"options": options, "information": {"low": information}, "right": {"low": right}}


def test_a_reward_is_ignored_where_neither_information_nor_share_right_is_above_chance() -> None:
    figures = {"a": measured(0.01, 0.4), "b": measured(-0.4, 0.59), "c": measured(-0.1, 0.49)}
    assert ignored(figures, ["a", "b", "c"]) == ["c"]
    assert ignored({"joint": measured(-0.1, 0.21, options=5)}, ["a"]) == []
    assert ignored({"joint": measured(-0.1, 0.19, options=5)}, ["a"]) == ["a"]


def test_a_policy_that_ignores_a_reward_is_warned_of(tmp_path: Path) -> None:
    scored = colours(tmp_path / "scored.jsonl")
    outcome = call("finetune", scored, "--epochs", "0.2", "--learning-rate", "1e-6", "--context", "64", "-o", "policy")
    assert outcome.code == 0, outcome.err
    assert "warning: this policy ignores `warm`" in outcome.err
    assert "--objective contrast" in outcome.err
    outcome = call("sample", "policy", scored, "-t", "warm=0.9", "--split", "all", "--limit", "2", "--max-tokens", "3")
    assert outcome.code == 0, outcome.err
    assert "warning: this policy ignores `warm`" in outcome.err


@pytest.mark.slow
def test_a_killed_contrast_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    scored = colours(tmp_path / "scored.jsonl")
    command = ["finetune", scored, "--objective", "contrast", "--epochs", "6", "--context", "64", "-q", "-o"]
    with subprocess.Popen([*IRLHF, *map(str, command), "policy"]) as one:
        wait_until(lambda: len(list(Path().glob("policy.partial/checkpoint-*/COMPLETE"))) >= 2)
        one.kill()
    assert one.returncode == -signal.SIGKILL
    assert call(*command, "policy").code == 0
    assert call(*command, "straight").code == 0
    killed, straight = (load_file(Path(folder) / "model.safetensors") for folder in ("policy", "straight"))
    assert all(torch.equal(killed[name], straight[name]) for name in killed)
    figures = [
        json.loads((Path(one) / "policy.json").read_text())["training"]["steering"] for one in ("policy", "straight")
    ]
    assert figures[0] == figures[1]


def test_keep_best_without_validation_rows_or_reward_lines_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "split": "train"} for row in read(colours(tmp_path / "scored.jsonl"))]
    write(tmp_path / "train.jsonl", rows)
    outcome = call("finetune", tmp_path / "train.jsonl", "--keep-best", "--context", "64", "-o", "policy")
    assert outcome.code == 2
    assert "--keep-best needs rows of the validation split" in outcome.err.splitlines()[-1]
    outcome = call("finetune", tmp_path / "scored.jsonl", "--keep-best", "--baseline", "plain", "-o", "policy")
    assert "--keep-best needs reward lines" in outcome.err


def test_keep_best_keeps_the_checkpoint_with_the_most_information(tmp_path: Path) -> None:
    scored = colours(tmp_path / "scored.jsonl")
    options = ["--objective", "contrast", "--epochs", "10", "--context", "64", "--keep-best"]
    outcome = call("finetune", scored, *options, "-o", "policy")
    assert outcome.code == 0, outcome.err
    kept = json.loads(Path("policy/policy.json").read_text())["training"]["steering"]["joint"]["information"]["value"]
    logged = [row.get("steering/joint/information", -1) for row in read(Path("policy/metrics.jsonl"))]
    assert kept == pytest.approx(max(logged), abs=0.15)  # logged on half of the rows


@pytest.mark.parametrize("objective", ["ra-dpo"])
def test_rows_without_a_second_completion_cannot_be_compared(objective: str, tmp_path: Path) -> None:
    rows = [row for row in read(colours(tmp_path / "scored.jsonl")) if row["id"].endswith("red")]
    outcome = call("finetune", write(tmp_path / "one.jsonl", rows), "--objective", objective, "-o", "policy")
    assert outcome.code == 1
    assert "needs two completions of one prompt" in outcome.err
    assert not Path("policy").exists()


def test_a_completion_that_was_cut_off_is_trained_without_an_end_of_turn(tmp_path: Path) -> None:
    rows = read(colours(tmp_path / "scored.jsonl"))
    for row in rows:
        row["finish"] = "length" if row["id"].endswith("red") else "stop"
    scored = write(tmp_path / "cut.jsonl", rows)
    outcome = call("finetune", scored, "--context", "64", "--preview", "2", "--epochs", "1")
    assert outcome.code == 0, outcome.err
    red, blue = outcome.out.split("── ")[3], outcome.out.split("── ")[5]
    assert "[</s>]" in blue or "[<|end|>]" in blue or blue.rstrip().endswith("]")
    assert red.count("[") == blue.count("[") - 1


def test_training_in_bfloat16_keeps_float32_weights_and_about_the_same_loss(tmp_path: Path) -> None:
    scored = colours(tmp_path / "scored.jsonl")
    losses = {}
    for precision in ("bf16", "fp32"):
        command = ["finetune", scored, "--epochs", "2", "--context", "64", "--precision", precision, "-o", precision]
        assert call(*command).code == 0
        losses[precision] = [
            row["validation_loss"] for row in read(Path(precision) / "metrics.jsonl") if "validation_loss" in row
        ]
        assert {one.dtype for one in load_file(Path(precision) / "model.safetensors").values()} == {torch.float32}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_the_manifest_records_the_precision_that_auto_chose(tmp_path: Path) -> None:
    scored = colours(tmp_path / "scored.jsonl")
    assert call("finetune", scored, "--epochs", "0.1", "--context", "64", "-o", "policy").code == 0
    assert json.loads(Path("policy.run.json").read_text())["settings"]["precision"] == "fp32"
    outcome = call("finetune", scored, "--epochs", "0.1", "--context", "64", "-o", "policy", "--precision", "bf16")
    assert outcome.code == 2
    assert "precision" in outcome.err
