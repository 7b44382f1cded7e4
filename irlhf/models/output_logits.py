"""Compute logits at selected positions only."""

from collections.abc import Mapping
from typing import Any

import torch


def wanted_logits(
    model: Any, projection: torch.nn.Module, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor
) -> torch.Tensor:
    """Return the logits [positions, vocabulary] where `wanted` [rows, width - 1] is true.

    A hook selects these positions from the input of the output projection, which dominates the cost of small models.
    The last position of a row predicts no token, so `wanted` has one column less than the input.
    """

    def select(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (arguments[0][:, :-1][wanted], *arguments[1:])

    hook = projection.register_forward_pre_hook(select)
    try:
        logits: torch.Tensor = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return logits[:, :-1][wanted] if logits.dim() == 3 else logits  # some models bypass the hook
