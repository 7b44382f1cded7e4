"""Draw completions from a local model, each sample from its own seed, with entropy and logprob on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessor

from irlhf.engines.local import end_tokens

STOP, LENGTH = "stop", "length"


@dataclass(frozen=True)
class Decoding:
    """How a token is chosen. Temperature 0 takes the likeliest."""

    temperature: float = 1.0
    top_p: float = 1.0  # in (0, 1]
    max_tokens: int = 128


class Drawn(NamedTuple):
    """One completion. Entropy (mean a token, nats) and logprobs (sums) hold at temperature 1, untruncated."""

    text: str
    finish: str
    tokens: int  # the end of the turn included
    entropy: float
    logprob: float
    ids: tuple[int, ...]  # of the tokens
    reference: float | None = None  # the logprob of the same tokens under another model


class Dice(LogitsProcessor):  # type: ignore[misc]
    """Chooses every row's next token with the row's own random numbers.

    `generate` then takes the likeliest of what is left: one token. Which other rows share the batch
    changes nothing, so a resumed run draws what it would have drawn. Memory does not grow with length:
    entropy and logprob are summed as the tokens come.
    """

    def __init__(self, seeds: Sequence[int], decoding: Decoding, ends: Sequence[int], device: torch.device) -> None:
        self.decoding = decoding
        self.ends = torch.tensor(ends, device=device)
        drawn = [torch.rand(decoding.max_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.uniform = torch.stack(drawn).to(device)  # [rows, max_tokens], in [0, 1)
        self.step = 0
        self.open = torch.ones(len(seeds), dtype=torch.bool, device=device)  # rows that have not ended
        self.tokens = torch.zeros(len(seeds), dtype=torch.long, device=device)
        self.entropy = torch.zeros(len(seeds), device=device)
        self.logprob = torch.zeros(len(seeds), device=device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [rows, vocabulary] that leave one token a row."""
        logprobs = scores.float().log_softmax(-1)
        chosen = self._choose(logprobs)
        entropy = -(logprobs.exp() * logprobs.clamp(min=-1e4)).sum(-1)
        self.tokens += self.open
        self.entropy += entropy * self.open
        self.logprob += logprobs.gather(1, chosen[:, None])[:, 0] * self.open
        self.open &= ~torch.isin(chosen, self.ends)
        self.step += 1
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen[:, None], 0.0)

    def _choose(self, logprobs: torch.Tensor) -> torch.Tensor:
        if self.decoding.temperature == 0:
            return logprobs.argmax(-1)
        probabilities = (logprobs / self.decoding.temperature).softmax(-1)
        if self.decoding.top_p < 1:
            probabilities = _nucleus(probabilities, self.decoding.top_p)
        below = probabilities.cumsum(-1)
        point = self.uniform[:, self.step, None] * below[:, -1:]
        return torch.searchsorted(below, point, right=True)[:, 0].clamp(max=logprobs.shape[1] - 1)


def generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], seeds: Sequence[int], decoding: Decoding
) -> list[Drawn]:
    """Return one completion for each prompt (token ids), drawn with its seed."""
    ends = end_tokens(model, tokenizer)
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(one)) + list(one) for one in prompts])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
    dice = Dice(seeds, decoding, ends, model.device)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=decoding.max_tokens,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.inference_mode():
        found = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            logits_processor=[dice],
        )
    return [_drawn(tokenizer, row[width:].tolist(), dice, i) for i, row in enumerate(found)]


def _drawn(tokenizer: Any, tokens: list[int], dice: Dice, row: int) -> Drawn:
    count = int(dice.tokens[row])
    return Drawn(
        text=tokenizer.decode(tokens[:count], skip_special_tokens=True).strip(),
        finish=LENGTH if dice.open[row] else STOP,
        tokens=count,
        entropy=round(float(dice.entropy[row]) / count, 4),
        logprob=round(float(dice.logprob[row]), 4),
        ids=tuple(tokens[:count]),
    )


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest likeliest tokens that hold `top_p` of the probability (Holtzman et al. 2020)."""
    ordered, places = probabilities.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(probabilities).scatter_(1, places, ordered * (before < top_p))
