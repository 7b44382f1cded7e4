"""Losses of completions: per token, and for comparisons of whole sequences."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from irlhf.models.output_logits import wanted_logits
from irlhf.training.batching import IGNORED

Batch = dict[str, torch.Tensor]

_MODEL_INPUTS = ("input_ids", "position_ids", "attention_mask")


def completion_logits(model: Any, projection: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the logits [tokens, vocabulary], labels [tokens] and sequences [tokens] of the completion tokens."""
    labels = batch["labels"][:, 1:]
    selected = labels != IGNORED
    logits = wanted_logits(model, projection, model_inputs(model, batch), selected)
    return logits.float(), labels[selected], batch["sequences"][:, 1:][selected]


def token_losses(model: Any, projection: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropy in nats [tokens] and the sequence number [tokens] of each completion token."""
    logits, labels, sequences = completion_logits(model, projection, batch)
    return cross_entropy(logits, labels, reduction="none"), sequences


def sequence_sums(values: torch.Tensor, sequences: torch.Tensor, count: int) -> torch.Tensor:
    """Return the sum [count] of `values` [tokens] per sequence; `sequences` [tokens] holds the sequence numbers."""
    return values.new_zeros(count).index_add(0, sequences, values)


def comparison_loss(scores: torch.Tensor, comparisons: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of the first option, summed over comparisons.

    `scores` [sequences] are the logits. `comparisons` [comparisons, options] holds sequence numbers, padded with -1.
    """
    logits = scores[comparisons.clamp(min=0)].masked_fill(comparisons < 0, float("-inf"))
    return cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="sum")


def model_inputs(model: Any, batch: Batch) -> Batch:
    """Return the model inputs of a batch. For `eager` attention, the boolean mask becomes an additive one."""
    inputs = {name: value for name, value in batch.items() if name in _MODEL_INPUTS}
    model = getattr(model, "module", model)  # DistributedDataParallel wraps the model
    if "attention_mask" in inputs and model.config._attn_implementation == "eager":
        inputs["attention_mask"] = (~inputs["attention_mask"]).to(model.dtype) * torch.finfo(model.dtype).min
    return inputs
