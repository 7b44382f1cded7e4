"""transformers' Trainer with the Bradley-Terry loss on pairs of a chosen and a rejected completion.

Both rows of a pair are in the same batch, and all pairs have the same weight:

    batch = chosen of pair 1, of pair 2, …, rejected of pair 1, of pair 2, …
    loss = mean over pairs of -log sigmoid(reward of the chosen - reward of the rejected)

(Bradley and Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, equation 1.)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import logsigmoid
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer

from irlhf.models.classifier import Row
from irlhf.training.batching import LengthBatches
from irlhf.training.callbacks import EpochLoader, TrainingCallback, TrainingPlan, held_out, training_arguments


class EncodedPair(NamedTuple):
    """The encoded rows of a pair."""

    chosen: Row
    rejected: Row

    @property
    def width(self) -> int:
        """Number of tokens of the longer row."""
        return max(len(row["input_ids"]) for row in self)


class PairCollator:
    """Stacks the chosen rows of a batch above the rejected ones, padded as in scoring."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, pairs: Sequence[EncodedPair]) -> dict[str, torch.Tensor]:
        """Return the model inputs [2 * pairs, width] and `labels` [pairs], which the Trainer uses to count pairs."""
        rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        return {**self.tokenizer.pad(rows, return_tensors="pt"), "labels": torch.ones(len(pairs))}


class PairTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose loss is the mean over all pairs of a step."""

    loss_is_scaled_for_ga = True
    batch = 1.0  # pairs per step

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model=model, **options)
        self.model_accepts_loss_kwargs = True  # counts pairs over all parts of a step

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of the training pairs in batches of similar length."""
        pairs: Any = self.train_dataset
        widths = [pair.width for pair in pairs]
        batches = LengthBatches(widths, self.batch / self.args.gradient_accumulation_steps, self.args.seed)
        batches.costs = [1] * len(widths)  # equal numbers of pairs per batch, so that long pairs have no larger weight
        return EpochLoader(pairs, batch_sampler=batches, collate_fn=self.data_collator)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the summed loss of the batch divided by the number of pairs of the whole step."""
        total = self.total_loss(model, inputs)
        loss = total / (len(inputs["labels"]) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {"loss": loss}) if return_outputs else loss

    def total_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch, summed over pairs."""
        model_inputs = {name: value for name, value in inputs.items() if name != "labels"}
        chosen, rejected = model(**model_inputs).logits[:, 0].float().chunk(2)
        return -logsigmoid(chosen - rejected).sum()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the metrics of the held-out pairs; the loss is the mean over pairs."""
        pairs: Any = self.eval_dataset
        order = sorted(pairs, key=lambda pair: pair.width)
        size = max(1, round(self.batch / self.args.gradient_accumulation_steps))
        total = 0.0
        self.model.eval()
        with torch.inference_mode():
            for start in range(0, len(order), size):
                batch = self.data_collator(order[start : start + size])
                total += float(self.total_loss(self.model, self._prepare_inputs(batch)))
        self.model.train()
        return held_out(self, total / len(order))


def pair_trainer(
    model: Any, tokenizer: Any, pairs: tuple[list[EncodedPair], list[EncodedPair]], folder: Path, plan: TrainingPlan
) -> PairTrainer:
    """Return a Trainer over (training, validation) pairs that writes into `folder`."""
    training, validation = pairs
    trainer = PairTrainer(
        model,
        args=training_arguments(folder, plan, bool(validation)),
        train_dataset=training,
        eval_dataset=validation or None,
        data_collator=PairCollator(tokenizer),
        callbacks=[TrainingCallback(folder)],
    )
    trainer.batch = plan.batch
    trainer.remove_callback(PrinterCallback)  # stdout is for data
    return trainer
