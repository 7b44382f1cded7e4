"""Training: the loss is the plain one on the completion alone, every row is met, a killed run ends alike."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import IRLHF, Bench, call, names, read, wait_until
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from irlhf.training.batching import Collator, Encoded, Family, LengthBatches, alone, together
from irlhf.training.callbacks import TrainingPlan, forget_checkpoints, newest_complete, read_metrics
from irlhf.training.trainer import trainer

ROWS = [
    Encoded([1, 5, 6, 7], [8, 9, 2]),
    Encoded([1, 5], [10, 2]),
    Encoded([1, 5, 6, 7, 11, 12, 13], [14, 15, 16, 17, 2]),
    Encoded([1, 3, 3], [2]),
]


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, max_position_embeddings=64, **sizes)).eval()


def plain_loss(model: Any, row: Encoded) -> float:
    """The summed loss of one row as transformers computes it from full labels, without any padding."""
    ids = torch.tensor([row.prompt + row.completion])
    labels = torch.tensor([[-100] * len(row.prompt) + row.completion])
    with torch.inference_mode():
        return float(model(input_ids=ids, labels=labels).loss) * len(row.completion)


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[1:3], ROWS, ROWS[::-1]])
def test_the_loss_is_that_of_transformers_on_full_labels(rows: list[Any], model: Any, tmp_path: Path) -> None:
    made = trainer(model, 2, (alone(ROWS), []), tmp_path, TrainingPlan(steps=1, batch=4, rate=1e-3, seed=0))
    with torch.inference_mode():
        loss = made.compute_loss(model, Collator(2)(alone(rows)))
    tokens = sum(len(row.completion) for row in rows)
    assert float(loss) == pytest.approx(sum(plain_loss(model, row) for row in rows) / tokens, abs=1e-5)


def test_the_gradient_is_that_of_transformers_on_full_labels(model: Any, tmp_path: Path) -> None:
    made = trainer(model, 2, (alone(ROWS), []), tmp_path, TrainingPlan(steps=1, batch=4, rate=1e-3, seed=0))
    made.compute_loss(model, Collator(2)(alone(ROWS))).backward()
    ours = {name: one.grad.clone() for name, one in model.named_parameters()}
    model.zero_grad()
    tokens = sum(len(row.completion) for row in ROWS)
    for row in ROWS:
        ids = torch.tensor([row.prompt + row.completion])
        labels = torch.tensor([[-100] * len(row.prompt) + row.completion])
        (model(input_ids=ids, labels=labels).loss * len(row.completion) / tokens).backward()
    for name, one in model.named_parameters():
        torch.testing.assert_close(ours[name], one.grad, atol=1e-5, rtol=1e-4)


def test_labels_cover_exactly_the_completions() -> None:
    labels = Collator(2)(alone(ROWS))["labels"]
    for row, kept in zip(ROWS, labels.tolist(), strict=True):
        assert [label for label in kept if label != -100] == row.completion


def test_every_row_is_met_once_an_epoch() -> None:
    lengths = [(i * 37) % 101 for i in range(1003)]
    batches = list(LengthBatches(lengths, 16, seed=3))
    assert sorted(i for batch in batches for i in batch) == list(range(1003))
    assert len(batches) == len(LengthBatches(lengths, 16, seed=3))


def test_batches_hang_on_seed_and_epoch_alone() -> None:
    def drawn(seed: int, epoch: int) -> list[list[int]]:
        batches = LengthBatches(list(range(200)), 8, seed)
        batches.set_epoch(epoch)
        return list(batches)

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)


def test_rows_of_a_batch_are_of_like_length() -> None:
    lengths = [(i * 7919) % 500 for i in range(4000)]
    spread = [
        max(map(lengths.__getitem__, one)) - min(map(lengths.__getitem__, one)) for one in LengthBatches(lengths, 16, 0)
    ]
    assert sum(spread) / len(spread) < 25


def test_epochs_of_a_training_meet_the_rows_in_different_orders(model: Any, tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Spy(Collator):
        def __call__(self, rows: Any) -> Any:
            seen.append([one.members[0].prompt[1] for one in rows])
            return super().__call__(rows)

    rows = [Encoded([1, i], [2]) for i in range(3, 27)]
    made = trainer(model, 2, (alone(rows), []), tmp_path, TrainingPlan(steps=12, batch=4, rate=1e-3, seed=0))
    made.data_collator = Spy(2)
    made.train()
    epochs = [seen[:6], seen[6:12]]
    assert [sorted(i for batch in epoch for i in batch) for epoch in epochs] == [list(range(3, 27))] * 2
    assert epochs[0] != epochs[1]


def test_a_checkpoint_that_was_cut_short_is_thrown_away(tmp_path: Path) -> None:
    for step, whole in ((5, True), (20, True), (100, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            (tmp_path / f"checkpoint-{step}" / "COMPLETE").touch()
    assert newest_complete(tmp_path) == str(tmp_path / "checkpoint-20")
    assert names(tmp_path) == {"checkpoint-5", "checkpoint-20"}


def test_a_checkpoint_is_vouched_for_no_more_before_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "COMPLETE").touch()
    monkeypatch.setattr("shutil.rmtree", lambda path: seen.extend(names(path)))
    seen: list[str] = []
    forget_checkpoints(tmp_path)
    assert seen == []
    assert names(tmp_path / "checkpoint-5") == set()


def test_a_torn_last_line_of_the_metrics_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(bench: Bench) -> None:
    command = ["finetune", bench.scored, "-r", bench.rewards, "--epochs", "2.5", "--context", "128", "-q", "-o"]
    with subprocess.Popen([*IRLHF, *map(str, command), "policy"]) as one:
        wait_until(lambda: len(list(Path().glob("policy.partial/checkpoint-*/COMPLETE"))) >= 2)
        one.kill()
    assert one.returncode == -signal.SIGKILL
    assert "policy" not in names(Path.cwd())
    assert call(*command, "policy").code == 0
    assert call(*command, "straight").code == 0
    assert names(Path("policy")) == names(Path("straight"))
    killed, straight = weights(Path("policy")), weights(Path("straight"))
    assert killed.keys() == straight.keys()
    assert all(torch.equal(killed[name], straight[name]) for name in killed)
    steps = [[row["step"] for row in read(Path(folder) / "metrics.jsonl")] for folder in ("policy", "straight")]
    assert steps[0] == steps[1]
    cards = [json.loads((Path(folder) / "policy.json").read_text()) for folder in ("policy", "straight")]
    assert cards[0]["training"]["weights"] == cards[1]["training"]["weights"]


FAMILY = [
    Encoded([1, 5, 6, 7, 8], [9, 2], "a"),
    Encoded([1, 5, 6, 11], [12, 13, 14, 2], "a"),
    Encoded([1, 5, 6, 7, 8, 3], [2], "a"),
]


def test_what_begins_alike_is_computed_once() -> None:
    (family,) = together(FAMILY, 100, 9)
    assert (family.shared, family.width) == (3, 4 + 5 + 4 + 3)
    batch = Collator(2)([family])
    assert batch["input_ids"].tolist() == [[1, 5, 6, 7, 8, 9, 2, 11, 12, 13, 14, 2, 7, 8, 3, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 7, 3, 4, 5, 6]]


def test_members_of_a_family_see_what_is_shared_and_themselves() -> None:
    seen = Collator(2)(together(FAMILY, 100, 9))["attention_mask"][0, 0]
    assert seen[6].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert seen[8].nonzero().flatten().tolist() == [0, 1, 2, 7, 8]
    assert seen[13].nonzero().flatten().tolist() == [0, 1, 2, 12, 13]


def gradients(model: Any, made: Any, families: list[Family]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = made.compute_loss(model, Collator(2)(families))
    loss.backward()
    return float(loss.detach()), {name: one.grad.clone() for name, one in model.named_parameters()}


def test_sharing_changes_neither_loss_nor_gradient(model: Any, tmp_path: Path) -> None:
    made = trainer(model, 2, (alone(ROWS), []), tmp_path, TrainingPlan(steps=1, batch=4, rate=1e-3, seed=0))
    mixed = [*together(FAMILY, 100, 9), *alone(ROWS)]
    one, ours = gradients(model, made, mixed)
    other, theirs = gradients(model, made, alone([*FAMILY, *ROWS]))
    assert one == pytest.approx(other, abs=1e-5)
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], atol=1e-5, rtol=1e-4)


def test_a_row_never_meets_its_own_copy_in_a_family() -> None:
    families = together([*FAMILY, *FAMILY], 100, 9)
    assert [len(one.members) for one in families] == [3, 3]


def test_a_family_is_no_wider_than_allowed() -> None:
    families = together(FAMILY, 14, 9)
    assert all(one.width <= 14 for one in families)
    assert sorted(row.completion for one in families for row in one.members) == sorted(r.completion for r in FAMILY)


def test_batches_hold_about_equally_many_tokens() -> None:
    widths = [(i * 7919) % 400 + 20 for i in range(4000)]
    tokens = [sum(map(widths.__getitem__, one)) for one in LengthBatches(widths, 16, 0)]
    assert max(tokens) < 1.5 * sum(tokens) / len(tokens)
    rows = [len(one) for one in LengthBatches(widths, 16, 0)]
    assert max(rows) > 2 * min(rows)


@pytest.mark.parametrize(("rows", "batch"), [(1003, 16), (101, 4), (7, 2.5), (401, 8)])
def test_processes_share_every_batch(rows: int, batch: float) -> None:
    widths = [(i * 37) % 101 + 1 for i in range(rows)]
    whole = list(LengthBatches(widths, batch, 3, (0, 1)))
    first, second = (list(LengthBatches(widths, batch, 3, (process, 2))) for process in (0, 1))
    assert len(first) == len(second) == len(LengthBatches(widths, batch, 3, (0, 2)))
    assert all(first)
    assert all(second)
    met = [i for batches in (first, second) for one in batches for i in one]
    assert sorted(met) == list(range(rows))
    if rows > 400:
        assert [sorted([*a, *b]) for a, b in zip(first, second, strict=True)] == [sorted(one) for one in whole]


def test_a_step_in_parts_is_the_same_step(model: Any, tmp_path: Path) -> None:
    rows = [Encoded([1, i], [i + 1, 2]) for i in range(3, 27)]
    start = {name: one.clone() for name, one in model.state_dict().items()}
    ends = []
    for accumulate in (1, 3):
        model.load_state_dict(start)
        plan = TrainingPlan(steps=1, batch=24, rate=1e-2, seed=0, accumulate=accumulate)
        trainer(model, 2, (alone(rows), []), tmp_path / str(accumulate), plan).train()
        ends.append({name: one.clone() for name, one in model.state_dict().items()})
    for name, end in ends[0].items():
        torch.testing.assert_close(end, ends[1][name], atol=1e-5, rtol=1e-3)
    assert any(not torch.equal(start[name], end) for name, end in ends[0].items())
