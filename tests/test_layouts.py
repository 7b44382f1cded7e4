"""Layouts: padded, bucketed, shared, packed. The same rows have the same loss and gradient in each."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toolbox import Bench, call, names
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from irlhf.errors import ConfigError
from irlhf.finetune import FinetuneSettings, train
from irlhf.finetune.chronicle import Plan
from irlhf.finetune.trainer import layout_agrees, trainer
from irlhf.training.batching import Collator, Encoded, Family, alone, lay, packed, together

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
    "padded": lambda step: [Collator(2)(alone(step))],
    "bucketed": bucketed,
    "shared": lambda step: [Collator(2)(together(step, 100, 9))],
    "packed, each alone": lambda step: [Collator(2, packs=True)(alone(step))],
    "packed": lambda step: [Collator(2, packs=True)(together(step, 100, 9))],
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
    made = trainer(ours, 2, (alone(rows(STEP, 0)), []), tmp_path, Plan(steps=1, batch=4, rate=1e-3, seed=0))
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


def test_packed_rows_spare_the_padding() -> None:
    step = rows(STEP, 0)
    sizes = {layout: sum(batch["input_ids"].numel() for batch in laid(step)) for layout, laid in LAID.items()}
    assert sizes["padded"] > sizes["packed, each alone"] >= sum(map(len, step))
    assert sizes["packed, each alone"] > sizes["shared"] > sizes["packed"]


def test_no_packed_row_is_wider_than_the_widest_family() -> None:
    families = together(rows(60, 1), 50, 9)
    laid = packed(families)
    assert max(sum(one.width for one in row) for row in laid) == max(one.width for one in families)
    assert sorted(one for row in laid for one in row) == sorted(families)


def test_packed_families_see_nothing_of_each_other_and_start_anew() -> None:
    batch = lay([[*together(FAMILY, 100, 9), *alone([Encoded([1, 4], [5, 2])])]], 0)
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7, 3, 4, 5, 6, 0, 1, 2, 3]]
    seen = batch["attention_mask"][0, 0]
    assert seen[8].nonzero().flatten().tolist() == [0, 1, 2, 7, 8]
    assert seen[18].nonzero().flatten().tolist() == [16, 17, 18]


@pytest.mark.parametrize("layout", ["shared", "packed"])
def test_a_model_that_leaves_the_mask_out_is_found_out(layout: str) -> None:
    model = small()
    families = together(FAMILY, 100, 9) + alone([Encoded([1, 4], [5, 6, 2])])
    assert layout_agrees(model, 2, families, layout)

    class Forgetful(torch.nn.Module):
        device, config = "cpu", model.config

        def forward(self, input_ids: Any, **others: Any) -> Any:
            return model(input_ids, use_cache=False)

    assert not layout_agrees(Forgetful(), 2, families, layout)


def shapes(families: list[Family], layout: str, folder: Path) -> list[torch.Size]:
    """The sizes of an epoch's batches."""
    plan = Plan(steps=1, batch=len(families) / 6, rate=1e-3, seed=0, layout=layout)
    batches = trainer(small(), 2, (families, []), folder, plan).get_train_dataloader()
    return [batch["input_ids"].shape for batch in batches]


def test_a_layout_decides_how_large_batches_are(tmp_path: Path) -> None:
    given = rows(72, 2)
    families = {"padded": alone(given), "bucketed": alone(given)}
    found = {
        layout: shapes(families.get(layout, together(given, 100, 9)), layout, tmp_path)
        for layout in ("padded", "bucketed", "shared", "packed")
    }
    assert [len(one) for one in found.values()] == [6] * 4
    assert {shape[0] for shape in found["padded"]} == {12}
    assert len({shape[0] for shape in found["bucketed"]}) > 2
    computed = {layout: sum(shape.numel() for shape in sizes) for layout, sizes in found.items()}
    assert computed["padded"] > 1.2 * computed["bucketed"] > 1.2 * computed["shared"]
    assert computed["padded"] > 1.2 * computed["packed"]
    assert max(shape[0] for shape in found["packed"]) < min(shape[0] for shape in found["padded"])


def test_the_command_trains_in_the_layout_that_it_is_told(bench: Bench) -> None:
    ends = {}
    for layout, told in (("auto", "bucketed"), ("padded", "padded"), ("packed", "packed")):
        outcome = call(
            "finetune", bench.scored, "-r", bench.rewards, "--epochs", "0.5", "--layout", layout, "-o", layout
        )
        assert outcome.code == 0, outcome.err
        assert json.loads(Path(layout, "policy.json").read_text())["training"]["plan"]["layout"] == told
        ends[layout] = AutoModelForCausalLM.from_pretrained(layout).get_input_embeddings().weight
    # Rows at random meet in the same steps whether they are padded or packed, and not in those of like length.
    torch.testing.assert_close(ends["packed"], ends["padded"], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(ends["auto"], ends["padded"], atol=1e-4)


def test_an_unknown_layout_is_named(bench: Bench) -> None:
    outcome = call("finetune", bench.scored, "--layout", "pakced", "-o", "policy")
    assert outcome.code == 2
    assert "unknown layout 'pakced'; did you mean 'packed'?" in outcome.err
    assert names(Path.cwd()) == set()


def test_a_base_that_cannot_pack_is_refused_by_name_and_left_to_itself_is_not_asked_to() -> None:
    model = small()

    class Forgetful(torch.nn.Module):
        device, config = "cpu", model.config

        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(torch.zeros(1_000_000))

        def forward(self, input_ids: Any, **others: Any) -> Any:
            return model(input_ids, use_cache=False)

    with pytest.raises(ConfigError, match="--layout packed"):
        train._families(Forgetful(), 2, FAMILY, FinetuneSettings(layout="packed"))
    assert train._families(Forgetful(), 2, FAMILY, FinetuneSettings()) == (alone(FAMILY), "bucketed")
