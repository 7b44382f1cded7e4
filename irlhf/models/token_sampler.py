"""Choose tokens, each row with its own random numbers, and sum up what was chosen."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor

_LEAST = -1e4  # stands for minus infinity, of which 0 times and a difference are no numbers


@dataclass(frozen=True)
class Decoding:
    """How a token is chosen. Temperature 0 takes the likeliest.

    With guidance a token comes from other + guidance * (asked - other), the logits behind a prompt that requests
    rewards and behind the same prompt that requests none, or their opposite (Ho and Salimans 2022, arXiv 2207.12598;
    for language models Sanchez et al. 2023, arXiv 2306.17806). Temperature and top-p come after it.
    """

    temperature: float = 1.0
    top_p: float = 1.0  # in (0, 1]
    max_tokens: int = 128
    guidance: float = 1.0  # 1 is none, 0 draws from `other` alone

    @property
    def sides(self) -> int:
        """How many prompts a sample is drawn behind: one, or with guidance two, the requesting one first."""
        return 1 if self.guidance == 1 else 2


class TokenSampler(LogitsProcessor):  # type: ignore[misc]
    """Chooses every row's next token with the row's own random numbers.

    Which other rows share the batch changes nothing, so a resumed run draws what it would have drawn.
    Memory does not grow with length but for the tokens and their logprobs: entropy and logprob are summed as they
    come. Called by `generate` it leaves one token a row, which `generate` then takes.
    """

    def __init__(self, seeds: Sequence[int], decoding: Decoding, ends: Sequence[int], device: torch.device) -> None:
        self.decoding = decoding
        self.ends = torch.tensor(ends, device=device)
        drawn = [torch.rand(decoding.max_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.uniform = torch.stack(drawn).to(device)  # [rows, max_tokens], in [0, 1)
        self.step = 0
        self.rows = torch.arange(len(seeds), device=device)  # that are still asked about
        self.open = torch.ones(len(seeds), dtype=torch.bool, device=device)  # rows that have not ended
        self.ids = torch.zeros(len(seeds), decoding.max_tokens, dtype=torch.long, device=device)
        self.tokens = torch.zeros(len(seeds), dtype=torch.long, device=device)
        self.entropy = torch.zeros(len(seeds), device=device)
        self.logprob = torch.zeros(len(seeds), device=device)
        self.logprobs = torch.zeros(len(seeds), decoding.max_tokens, device=device)  # of each token

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [rows, vocabulary] that leave one token a row."""
        chosen = self.draw(scores)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen[:, None], 0.0)

    def draw(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the next token of each row that is asked about, from its scores [rows * sides, vocabulary]."""
        logprobs = self._guided(scores.float()).log_softmax(-1)
        shares = logprobs.exp()
        chosen = self._choose(logprobs, shares)
        going = self.open[self.rows]
        self.ids[self.rows, self.step] = chosen
        self.tokens[self.rows] += going
        self.entropy[self.rows] -= torch.linalg.vecdot(shares, logprobs.clamp_(min=_LEAST)) * going
        drawn = logprobs.gather(1, chosen[:, None])[:, 0] * going
        self.logprobs[self.rows, self.step] = drawn
        self.logprob[self.rows] += drawn
        self.open[self.rows] = going & ~torch.isin(chosen, self.ends)
        self.step += 1
        return chosen

    def going(self) -> torch.Tensor:
        """Return which of the rows that are asked about have not ended; none has room beyond the last token."""
        return self.open[self.rows] & (self.step < self.decoding.max_tokens)

    def keep(self, kept: torch.Tensor) -> None:
        """Be asked about these of the rows alone from now on."""
        self.rows = self.rows[kept]

    def _guided(self, scores: torch.Tensor) -> torch.Tensor:
        """Return one line of scores a row, of those of its two prompts, the asking one first."""
        if self.decoding.sides == 1:
            return scores
        known = scores.clamp(min=_LEAST)
        return known[1::2].lerp(known[::2], self.decoding.guidance)

    def _choose(self, logprobs: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        if self.decoding.temperature == 0:
            return logprobs.argmax(-1)
        if self.decoding.temperature != 1:
            shares = (logprobs / self.decoding.temperature).softmax(-1)
        if self.decoding.top_p < 1:
            shares = _nucleus(shares, self.decoding.top_p)
        below = shares.cumsum(-1)
        point = self.uniform[self.rows, self.step, None] * below[:, -1:]
        return torch.searchsorted(below, point, right=True)[:, 0].clamp(max=logprobs.shape[1] - 1)


def _nucleus(shares: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest likeliest tokens that hold `top_p` of the probability (Holtzman et al. 2020)."""
    ordered, places = shares.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(shares).scatter_(1, places, ordered * (before < top_p))
