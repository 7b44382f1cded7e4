"""Compute the logprobs of given completions under a model, in one forward pass each."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from irlhf.models.output_logits import wanted_logits

_LOGITS = 2**27  # values per forward pass: half a GiB in float32

_Row = tuple[Sequence[int], Sequence[int]]  # token ids of a prompt and of its completion


def logprobs(model: Any, rows: Sequence[_Row]) -> list[list[float]]:
    """Return the logprob of each completion token given its prompt, at temperature 1 and top-p 1, in nats."""
    return [each for batch in _batches(model, rows) for each in _read(model, batch)]


def _batches(model: Any, rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    """Yield batches that limit the memory of the logits."""
    longest = max((len(completion) for _, completion in rows), default=1)
    size = max(1, _LOGITS // (longest * int(model.config.get_text_config().vocab_size)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _read(model: Any, rows: Sequence[_Row]) -> list[list[float]]:
    """Compute one batch. Padding is on the right, where causal attention ignores it."""
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, in_completion = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for i, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        ids[i, :end] = torch.tensor([*prompt, *completion])
        mask[i, :end] = 1
        in_completion[i, len(prompt) : end] = True
    ids, mask, in_completion = (tensor.to(model.device) for tensor in (ids, mask, in_completion))
    with torch.inference_mode():
        inputs = {"input_ids": ids, "attention_mask": mask}
        logits = wanted_logits(model, model.get_output_embeddings(), inputs, in_completion[:, 1:])
        losses = -cross_entropy(logits.float(), ids[in_completion], reduction="none")
    lengths = [len(completion) for _, completion in rows]
    return [tensor.tolist() for tensor in torch.split(losses, lengths)]
