"""Layouts: bucketed, shared. The same rows have the same loss and gradient in each."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Bench, call, names, write_unversioned_manifest
from transformers import LlamaConfig, LlamaForCausalLM

from irlhf.training import policy_run
from irlhf.training.batching import Collator, Encoded, Family, alone, together
from irlhf.training.callbacks import TrainingPlan
from irlhf.training.settings import FinetuneSettings
from irlhf.training.trainer import sharing_agrees, trainer

Batch = dict[str, torch.Tensor]

FAMILY = [
    Encoded([1, 5, 6, 7, 8], [9, 2], "a"),
    Encoded([1, 5, 6, 11], [12, 13, 14, 2], "a"),
    Encoded([1, 5, 6, 7, 8, 3], [2], "a"),
]


def rows(count: int, seed: int) -> list[Encoded]:
    """Rows of 5 to 50 tokens, two or three behind one prompt."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        group = number // 3 if number % 4 else number  # some stand alone
        begin = random.Random(f"{seed}/{group}").choices(range(3, 30), k=1 + 9 * (group % 4))
        ends = (rng.choices(range(3, 30), k=rng.randint(1, 9)) for _ in range(2))
        prompt, completion = ([*one, 2] for one in ends)
        found.append(Encoded([1, *begin, *prompt[:-1]], completion, f"g{group}"))
    return found


def bucketed(step: list[Encoded]) -> list[Batch]:
    """A step in two parts, short rows and long."""
    alike = sorted(step, key=len)
    return [Collator(2)(alone(part)) for part in (alike[: len(alike) // 2], alike[len(alike) // 2 :])]


STEP = 12  # rows
LAID: dict[str, Callable[[list[Encoded]], list[Batch]]] = {
    "one batch": lambda step: [Collator(2)(alone(step))],
    "bucketed": bucketed,
    "shared": lambda step: [Collator(2)(together(step, 100, 9))],
}


def small(attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=32, max_position_embeddings=64, attn_implementation=attention, **sizes)
    return LlamaForCausalLM(config)


def by_hand(model: Any, step: list[Encoded]) -> Iterator[torch.Tensor]:
    """The summed loss of each row as transformers computes it, one row at a time."""
    for row in step:
        ids = torch.tensor([row.prompt + row.completion])
        labels = torch.tensor([[-100] * len(row.prompt) + row.completion])
        yield model(input_ids=ids, labels=labels).loss * len(row.completion)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layout", LAID)
def test_every_step_has_the_loss_and_gradient_of_its_rows_one_by_one(
    layout: str, attention: str, tmp_path: Path
) -> None:
    ours, theirs = small(attention), small(attention)
    made = trainer(ours, 2, (alone(rows(STEP, 0)), []), tmp_path, TrainingPlan(steps=1, batch=4, rate=1e-3, seed=0))
    learning = [torch.optim.SGD(one.parameters(), lr=0.3) for one in (ours, theirs)]
    for seed in range(4):
        step = rows(STEP, seed)
        tokens = sum(len(row.completion) for row in step)
        losses = [made.compute_loss(ours, batch, num_items_in_batch=tokens) for batch in LAID[layout](step)]
        expected = [loss / tokens for loss in by_hand(theirs, step)]
        mine, other = (sum(one.item() for one in each) for each in (losses, expected))
        assert mine == pytest.approx(other, abs=1e-4)
        for one in (*losses, *expected):
            one.backward()
        for one, another in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one.grad, another.grad, atol=1e-4, rtol=1e-4)
        for optimiser in learning:
            optimiser.step()
            optimiser.zero_grad()


def test_a_model_that_leaves_the_mask_out_is_found_out() -> None:
    model = small()
    families = alone([Encoded([1, 4], [5, 6, 2])]) + together(FAMILY, 100, 9)
    assert sharing_agrees(model, 2, families)

    class Forgetful(torch.nn.Module):
        device, config = "cpu", model.config

        def forward(self, input_ids: Any, **others: Any) -> Any:
            return model(input_ids, use_cache=False)

    assert not sharing_agrees(Forgetful(), 2, families)


def shapes(families: list[Family], layout: str, folder: Path) -> list[torch.Size]:
    """The sizes of an epoch's batches."""
    plan = TrainingPlan(steps=1, batch=len(families) / 6, rate=1e-3, seed=0, layout=layout)
    batches = trainer(small(), 2, (families, []), folder, plan).get_train_dataloader()
    return [batch["input_ids"].shape for batch in batches]


def test_sharing_prompts_computes_fewer_tokens(tmp_path: Path) -> None:
    given = rows(72, 2)
    families = {"bucketed": alone(given), "shared": together(given, 100, 9)}
    found = {layout: shapes(one, layout, tmp_path) for layout, one in families.items()}
    assert [len(one) for one in found.values()] == [6] * 2
    assert len({shape[0] for shape in found["bucketed"]}) > 2
    computed = {layout: sum(shape.numel() for shape in sizes) for layout, sizes in found.items()}
    assert computed["bucketed"] > 1.2 * computed["shared"]


def test_the_option_of_earlier_versions_is_refused_with_what_to_do(bench: Bench) -> None:
    outcome = call("finetune", bench.scored, "--layout", "packed", "-o", "policy")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "irlhf finetune without --layout" in outcome.err
    assert names(Path.cwd()) == set()


def test_a_policy_of_an_earlier_version_is_finished_if_its_layout_was_automatic(bench: Bench) -> None:
    command = ["finetune", bench.scored, "-r", bench.rewards, "--epochs", "0.1", "-o", "policy"]
    assert call(*command).code == 0
    for layout, code in (("auto", 0), ("packed", 2)):
        write_unversioned_manifest(Path("policy"), {"layout": layout})
        outcome = call(*command)
        assert outcome.code == code, outcome.err
    assert "layout was packed and is not set; choose another output, or delete policy" in outcome.err


def test_a_base_that_leaves_the_mask_out_is_trained_without_sharing() -> None:
    model = small()

    class Forgetful(torch.nn.Module):
        device, config = "cpu", model.config

        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(torch.zeros(1_000_000))

        def forward(self, input_ids: Any, **others: Any) -> Any:
            return model(input_ids, use_cache=False)

    assert policy_run._families(Forgetful(), 2, FAMILY, FinetuneSettings()) == (alone(FAMILY), "bucketed")
