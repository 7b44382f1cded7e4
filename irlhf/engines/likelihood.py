"""How likely a model finds completions that were drawn before, read in one pass each."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

_LOGITS = 2**27  # numbers that one pass may return: half a GiB in single precision

_Row = tuple[Sequence[int], Sequence[int]]  # token ids of a prompt and of its completion


def logprobs(model: Any, rows: Sequence[_Row]) -> list[float]:
    """Return each completion's logprob behind its prompt: the sum over its tokens, at temperature 1, untruncated."""
    return [logprob for batch in _batches(model, rows) for logprob in _read(model, batch)]


def _batches(model: Any, rows: Sequence[_Row]) -> Iterator[Sequence[_Row]]:
    """Part the rows so that a large vocabulary does not fill the memory."""
    width = max((len(prompt) + len(completion) for prompt, completion in rows), default=1)
    size = max(1, _LOGITS // (width * int(model.config.get_text_config().vocab_size)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _read(model: Any, rows: Sequence[_Row]) -> list[float]:
    """Read one batch. Padding stands on the right, where no token of a causal model looks."""
    lengths = [len(prompt) + len(completion) for prompt, completion in rows]
    width = max(lengths)
    first = min(len(prompt) for prompt, _ in rows) - 1  # the earliest place that foretells a completion's token
    ids = [[*prompt, *completion, *[0] * (width - n)] for (prompt, completion), n in zip(rows, lengths, strict=True)]
    mask = [[1] * n + [0] * (width - n) for n in lengths]
    spare = "logits_to_keep" in inspect.signature(model.forward).parameters
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            use_cache=False,
            **({"logits_to_keep": width - first} if spare else {}),
        ).logits
    before = width - logits.shape[1] + 1
    starts = [len(prompt) - before for prompt, _ in rows]
    return [_sum(row[start:], said) for row, start, (_, said) in zip(logits, starts, rows, strict=True)]


def _sum(logits: torch.Tensor, tokens: Sequence[int]) -> float:
    """Return what one row's logits, from the place before its completion on, say of the completion's tokens."""
    chosen = torch.tensor(tokens, device=logits.device)
    found = logits[: len(tokens)].float().log_softmax(-1)
    return float(found.gather(1, chosen[:, None]).sum())
