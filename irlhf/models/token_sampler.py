"""Sample tokens with a random stream per row, and accumulate entropy and logprobs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor

_LEAST = -1e4  # stand-in for -inf: 0·(-inf) and (-inf)-(-inf) would be NaN


@dataclass(frozen=True)
class Decoding:
    """Settings of token sampling. Temperature 0 is greedy decoding.

    With guidance, the logits are other + guidance * (requested - other): `requested` follows the prompt with targets,
    `other` the same prompt with no targets or the opposite ones (Ho and Salimans 2022, arXiv 2207.12598; for language
    models Sanchez et al. 2023, arXiv 2306.17806). Temperature and top-p apply afterwards.
    """

    temperature: float = 1.0
    top_p: float = 1.0  # in (0, 1]
    max_tokens: int = 128
    guidance: float = 1.0  # 1: none, 0: sample from `other`

    @property
    def sides(self) -> int:
        """The number of prompts per sample: 1, or 2 with guidance, the one with targets first."""
        return 1 if self.guidance == 1 else 2


class TokenSampler(LogitsProcessor):  # type: ignore[misc]
    """Samples the next token of each row with the random numbers of that row.

    The result does not depend on the other rows of the batch, so a resumed run samples the same tokens. Entropy and
    logprob are summed during sampling; only token ids and their logprobs are stored. As a logits processor of
    `generate`, it leaves one token per row.
    """

    def __init__(self, seeds: Sequence[int], decoding: Decoding, ends: Sequence[int], device: torch.device) -> None:
        self.decoding = decoding
        self.ends = torch.tensor(ends, device=device)
        drawn = [torch.rand(decoding.max_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.uniform = torch.stack(drawn).to(device)  # [rows, max_tokens], in [0, 1)
        self.step = 0
        self.rows = torch.arange(len(seeds), device=device)  # rows still in the batch
        self.open = torch.ones(len(seeds), dtype=torch.bool, device=device)  # rows that have not ended
        self.ids = torch.zeros(len(seeds), decoding.max_tokens, dtype=torch.long, device=device)
        self.tokens = torch.zeros(len(seeds), dtype=torch.long, device=device)
        self.entropy = torch.zeros(len(seeds), device=device)
        self.logprob = torch.zeros(len(seeds), device=device)
        self.logprobs = torch.zeros(len(seeds), decoding.max_tokens, device=device)  # of each token

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [rows, vocabulary] that are -inf except for the sampled token of each row."""
        chosen = self.draw(scores)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen[:, None], 0.0)

    def draw(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the next token of each row in the batch, from scores [rows * sides, vocabulary]."""
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
        """Return which rows of the batch have not ended (bool [rows]); all end at max_tokens."""
        return self.open[self.rows] & (self.step < self.decoding.max_tokens)

    def keep(self, kept: torch.Tensor) -> None:
        """Keep only the rows with these indices in the batch."""
        self.rows = self.rows[kept]

    def _guided(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the guided scores [rows, vocabulary]; the scores of the prompt with targets come first."""
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
    """Zero all but the smallest set of likely tokens with mass `top_p` (Holtzman et al. 2020, arXiv 1904.09751)."""
    ordered, places = shares.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(shares).scatter_(1, places, ordered * (before < top_p))
