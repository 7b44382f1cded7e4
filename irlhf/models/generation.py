"""Draw completions from a local model, each sample from its own seed, with entropy and logprob on the way."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig

from irlhf.core.errors import ConfigError
from irlhf.core.example import LENGTH, STOP
from irlhf.models.loading import end_tokens
from irlhf.models.prefix_decoding import decode, padded, remembers_all
from irlhf.models.token_sampler import Decoding, TokenSampler


class Drawn(NamedTuple):
    """One completion. Entropy (mean a token, nats) and logprobs (sums) hold at temperature 1, untruncated.

    With guidance they are those of the guided distribution, which the tokens come from.
    """

    text: str
    finish: str
    tokens: int  # the end of the turn included
    entropy: float
    logprob: float
    ids: tuple[int, ...]  # of the tokens
    logprobs: tuple[float, ...] = ()  # of each
    reference: float | None = None  # the logprob of the same tokens under another model
    k3: float | None = None  # what they say of the KL from it
    entropy_low: float | None = None  # for those who do not know the entropy itself
    entropy_high: float | None = None
    censored: int | None = None


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], decoding: Decoding
) -> list[Drawn]:
    """Return one completion for each seed, drawn behind its prompt (token ids).

    With guidance a seed has two prompts that follow each other: one that requests rewards, and the one to draw
    away from. Neighbours that begin alike cost less: what they share is computed once. Raises ConfigError
    where guidance meets a model whose memory is not plain keys and values.
    """
    ends = end_tokens(model, tokenizer)
    sampler = TokenSampler(seeds, decoding, ends, model.device)
    with torch.inference_mode():
        if remembers_all(model):
            decode(model, prompts, sampler)
        elif decoding.sides > 1:
            raise ConfigError(
                f"{type(model).__name__} does not keep its past as plain keys and values, which --guidance needs"
                " to read two prompts side by side; leave it at 1"
            )
        else:
            _generate(model, tokenizer.pad_token_id, prompts, ends, sampler)
    return [_drawn(tokenizer, sampler, row) for row in range(len(seeds))]


def _generate(
    model: Any, padding: int, prompts: Sequence[Sequence[int]], ends: Sequence[int], sampler: TokenSampler
) -> None:
    """Let transformers lead a model whose memory is of another kind."""
    ids, mask = padded(prompts, model.device, padding)
    config = GenerationConfig(
        do_sample=False, max_new_tokens=sampler.decoding.max_tokens, eos_token_id=list(ends), pad_token_id=padding
    )
    model.generate(input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=[sampler])


def _drawn(tokenizer: Any, sampler: TokenSampler, row: int) -> Drawn:
    count = int(sampler.tokens[row])
    ids = sampler.ids[row, :count].tolist()
    return Drawn(
        text=tokenizer.decode(ids, skip_special_tokens=True).strip(),
        finish=LENGTH if sampler.open[row] else STOP,
        tokens=count,
        entropy=round(float(sampler.entropy[row]) / count, 4),
        logprob=round(float(sampler.logprob[row]), 4),
        ids=tuple(ids),
        logprobs=tuple(sampler.logprobs[row, :count].tolist()),
    )
