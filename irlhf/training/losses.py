"""Losses of completions behind prompts, token by token and as whole sequences that are compared."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from irlhf.models.output_logits import wanted_logits
from irlhf.training.batching import IGNORED

Batch = dict[str, torch.Tensor]

_MODEL_INPUTS = ("input_ids", "position_ids", "attention_mask")


def completion_logits(model: Any, projection: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the logits [tokens, vocabulary] for each completion token, its label and its sequence [tokens]."""
    labels = batch["labels"][:, 1:]
    wanted = labels != IGNORED
    logits = wanted_logits(model, projection, model_inputs(model, batch), wanted)
    return logits.float(), labels[wanted], batch["sequences"][:, 1:][wanted]


def token_losses(model: Any, projection: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each completion token of a batch, and the sequence that it belongs to [tokens]."""
    logits, labels, sequences = completion_logits(model, projection, batch)
    return cross_entropy(logits, labels, reduction="none"), sequences


def sequence_sums(values: torch.Tensor, sequences: torch.Tensor, count: int) -> torch.Tensor:
    """Return the sum of the values [tokens] of each of `count` sequences [count]; `sequences` says whose each is."""
    return values.new_zeros(count).index_add(0, sequences, values)


def comparison_loss(scores: torch.Tensor, comparisons: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy of the first option of each comparison.

    `scores` [sequences] are logits, `comparisons` [comparisons, options] numbers of sequences, -1 where there is none.
    """
    logits = scores[comparisons.clamp(min=0)].masked_fill(comparisons < 0, float("-inf"))
    return cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long), reduction="sum")


def model_inputs(model: Any, batch: Batch) -> Batch:
    """Return what the model is given of a batch; to `eager` attention a mask is numbers that it adds."""
    given = {name: value for name, value in batch.items() if name in _MODEL_INPUTS}
    model = getattr(model, "module", model)  # of several processes each wraps its model
    if "attention_mask" in given and model.config._attn_implementation == "eager":
        given["attention_mask"] = (~given["attention_mask"]).to(model.dtype) * torch.finfo(model.dtype).min
    return given
