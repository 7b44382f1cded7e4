"""Logits where they are wanted and nowhere else."""

from collections.abc import Mapping
from typing import Any

import torch


def wanted_logits(
    model: Any, projection: torch.nn.Module, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor
) -> torch.Tensor:
    """Return the logits [places, vocabulary] at the `wanted` places [rows, width - 1] of a batch.

    The vocabulary projection, the dearest part of a small model, sees those places alone: a hook takes them out
    of what it is given. The last place of a row foretells nothing.
    """

    def take(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (given[0][:, :-1][wanted], *given[1:])

    hook = projection.register_forward_pre_hook(take)
    try:
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return logits[:, :-1][wanted] if logits.dim() == 3 else logits  # a model may project otherwise
