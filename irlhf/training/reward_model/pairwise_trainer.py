"""transformers' Trainer for reward models: the Bradley-Terry loss on pairs, or the squared error of ratings.

Both rows of a pair are in the same batch, and all pairs have the same weight:

    batch = chosen of pair 1, of pair 2, …, rejected of pair 1, of pair 2, …
    loss = mean over pairs of -log sigmoid(reward of the chosen - reward of the rejected)

(Bradley and Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, equation 1.) The loss of ratings is the mean over rows of
(reward - standardized rating)^2, as in regression reward models (Wang et al. 2024, arXiv 2406.08673, section 4).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import logsigmoid
from torch.utils.data import DataLoader
from transformers import Trainer

from irlhf.models.classifier import Row
from irlhf.training.batching import LengthBatches
from irlhf.training.callbacks import EpochLoader, held_out


class EncodedItem(NamedTuple):
    """The encoded rows of a pair, the chosen one first, or the one row of a rating."""

    rows: tuple[Row, ...]
    label: float = 1.0  # the standardized rating; the loss of pairs does not use it

    @property
    def width(self) -> int:
        """Number of tokens of the longer row."""
        return max(len(row["input_ids"]) for row in self.rows)


class PairCollator:
    """Stacks the chosen rows of a batch above the rejected ones, padded as in scoring."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, items: Sequence[EncodedItem]) -> dict[str, torch.Tensor]:
        """Return the model inputs [2 * pairs or ratings, width] and `labels`, by which the Trainer counts them."""
        rows = [row for side in zip(*(item.rows for item in items), strict=True) for row in side]
        labels = torch.tensor([item.label for item in items])
        return {**self.tokenizer.pad(rows, return_tensors="pt"), "labels": labels}


class PairTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose loss is the mean over all pairs of a step."""

    loss_is_scaled_for_ga = True
    batch = 1.0  # pairs per step

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
        """Return the loss of a batch, summed over pairs or ratings."""
        model_inputs = {name: value for name, value in inputs.items() if name != "labels"}
        logits: torch.Tensor = model(**model_inputs).logits[:, 0].float()
        labels = inputs["labels"]
        if len(logits) == len(labels):  # ratings have one row each, pairs two
            return torch.square(logits - labels).sum()
        chosen, rejected = logits.chunk(2)
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
