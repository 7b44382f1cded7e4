"""transformers' Trainer with a loss that computes nothing but what the completion needs."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer

from irlhf.engines.local import device
from irlhf.engines.projection import wanted_logits
from irlhf.finetune import BUCKETED, PACKED, PADDED
from irlhf.finetune.batches import IGNORED, Collator, Family, LengthBatches, alone, lay
from irlhf.finetune.chronicle import Chronicle, EpochLoader, Plan, arguments, held_out

_AGREES, _AGREES_ELSEWHERE = 1e-4, 1e-3  # of the loss, on a processor; in bfloat16 it is no finer


class CompletionTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with cross-entropy over completion tokens, each of a step's tokens weighing the same.

    The vocabulary projection sees nothing but the places that predict a completion token.
    """

    loss_is_scaled_for_ga = True
    batch = 1.0  # families a step
    layout = BUCKETED

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model=model, **options)
        self.model_accepts_loss_kwargs = True  # so that the tokens of all parts of a step are counted
        self.projection = model.get_output_embeddings()

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the training rows in batches, of like length where the layout wants it."""
        families: Any = self.train_dataset
        share = self.accelerator.process_index, self.accelerator.num_processes
        # What is of one width stands in an order that is random.
        widths = [1 if self.layout in (PADDED, PACKED) else one.width for one in families]
        batches = LengthBatches(widths, self.batch / self.args.gradient_accumulation_steps, self.args.seed, share)
        return EpochLoader(families, batch_sampler=batches, collate_fn=self.data_collator)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the summed loss of the batch over the number of completion tokens of the whole step."""
        total, tokens = self.total_loss(model, inputs)
        if num_items_in_batch is None:
            loss = total / tokens
        else:
            # Gradients of several processes are averaged, and the tokens are counted over all of them.
            loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss

    def total_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of a batch, and its number of completion tokens."""
        labels = inputs["labels"][:, 1:]
        others = _given(self.model, inputs)
        wanted = labels != IGNORED
        logits = wanted_logits(model, self.projection, others, wanted)
        return cross_entropy(logits.float(), labels[wanted], reduction="sum"), wanted.sum()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the loss on the held-out rows, every completion token weighing the same."""
        families: Any = self.eval_dataset
        order = sorted(range(len(families)), key=lambda i: families[i].width)
        mine = order[self.accelerator.process_index :: self.accelerator.num_processes]
        size = max(1, round(self.batch))
        sums = torch.zeros(2, device=self.args.device)
        self.model.eval()
        with torch.inference_mode():
            for start in range(0, len(mine), size):
                batch = self.data_collator([families[i] for i in mine[start : start + size]])
                sums += torch.stack(self.total_loss(self.model, self._prepare_inputs(batch)))
        self.model.train()
        total, tokens = self.accelerator.reduce(sums).tolist()
        return held_out(self, total / tokens)


def trainer(
    model: Any, padding: int, families: tuple[list[Family], list[Family]], folder: Path, plan: Plan
) -> CompletionTrainer:
    """Return a Trainer over (training, validation) families that writes into `folder`."""
    training, validation = families
    made = CompletionTrainer(
        model,
        args=arguments(folder, plan, bool(validation)),
        train_dataset=training,
        eval_dataset=validation or None,
        data_collator=Collator(padding, packs=plan.layout == PACKED),
        callbacks=[Chronicle(folder)],
    )
    made.batch, made.layout = plan.batch, plan.layout
    made.remove_callback(PrinterCallback)  # stdout is for data
    return made


def layout_agrees(model: Any, padding: int, families: Sequence[Family], layout: str) -> bool:
    """Return whether a model gives rows that are laid together the loss that they have alone.

    It does unless it has another memory than attention, or ignores the mask. The first family of several
    members is tried and, where families are packed, one beside it too.
    """
    first = next((i for i, one in enumerate(families) if len(one.members) > 1), 0)
    tried = families[max(0, first - 1) :][:2] if layout == PACKED else families[first:][:1]
    rows = [row for family in tried for row in family.members]
    model.eval()
    with torch.inference_mode():
        losses = [
            float(_summed(model, {name: value.to(model.device) for name, value in lay(one, padding).items()}))
            for one in ([tried], [[family] for family in alone(rows)])
        ]
    model.train()
    return math.isclose(*losses, rel_tol=_AGREES if device() == "cpu" else _AGREES_ELSEWHERE)


def _summed(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(**_given(model, batch), use_cache=False).logits[:, :-1].float()
    return cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")


def _given(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what the model is given of a batch; to `eager` attention a mask is numbers that it adds."""
    given = {name: value for name, value in batch.items() if name != "labels"}
    if "attention_mask" in given and model.config._attn_implementation == "eager":
        given["attention_mask"] = (~given["attention_mask"]).to(model.dtype) * torch.finfo(model.dtype).min
    return given
