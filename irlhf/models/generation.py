"""Sample completions from a local model, one seed per sample, with their entropy and logprobs."""

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
    """One completion. Entropy (mean per token, in nats) and logprobs are for temperature 1 and top-p 1.

    With guidance, they are those of the guided distribution.
    """

    text: str
    finish: str
    tokens: int  # including the end of the turn
    entropy: float
    logprob: float  # sum over tokens
    ids: tuple[int, ...]  # token ids
    logprobs: tuple[float, ...] = ()  # of each token
    reference: float | None = None  # logprob of the same tokens under the reference model
    k3: float | None = None  # estimate of the KL from the reference model
    entropy_low: float | None = None  # bounds, if the server does not return the entropy
    entropy_high: float | None = None
    censored: int | None = None
    notes: tuple[str, ...] = ()  # what happened to the prompt, see irlhf/sampling/prompts.py


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], decoding: Decoding
) -> list[Drawn]:
    """Return one completion per seed, sampled after its prompt (token ids).

    With guidance, each seed has two consecutive prompts: one with targets, and one to sample away from. Tokens shared
    by neighbouring prompts are computed once. Raises ConfigError if guidance is used with a model whose cache is not
    plain keys and values.
    """
    ends = end_tokens(model, tokenizer)
    sampler = TokenSampler(seeds, decoding, ends, model.device)
    with torch.inference_mode():
        if remembers_all(model):
            decode(model, prompts, sampler)
        elif decoding.sides > 1:
            raise ConfigError(
                f"--guidance needs a model with a plain key-value cache, which {type(model).__name__} does not have;"
                " remove the option"
            )
        else:
            _generate(model, tokenizer.pad_token_id, prompts, ends, sampler)
    return [_drawn(tokenizer, sampler, row) for row in range(len(seeds))]


def _generate(
    model: Any, padding: int, prompts: Sequence[Sequence[int]], ends: Sequence[int], sampler: TokenSampler
) -> None:
    """Sample with transformers' `generate`, for models without a plain key-value cache."""
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
