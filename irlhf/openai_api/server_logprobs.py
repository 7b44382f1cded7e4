"""What a server tells of the tokens that it drew, and what can be known from it.

No server tells entropy; the logprobs of the likeliest tokens say what it lies between. A number that a server leaves
out is None here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel

from irlhf.core.entropy_bounds import bracket, likeliest

SEEDS = 2**31  # llama.cpp takes 32 bits and reads the last of those numbers as "any", others 64 with a sign
WHOLE = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}  # nothing cut, nothing punished
TOPS = (20, 5, 1)  # likeliest tokens to ask for: what vLLM gives unless told otherwise, OpenAI's most, and the least
_CENSORED = -9999.0  # what vLLM and OpenAI write for a logprob that they cannot give
_ID = "token_id:"


@dataclass(frozen=True)
class ServedModel:
    """Which model of which server, and how it draws."""

    url: str  # up to and with /v1
    name: str  # that the model is served under; empty where the server holds one
    key: str  # the environment variable that holds the key; empty is OPENAI_API_KEY
    temperature: float
    top_p: float
    max_tokens: int
    vocabulary: int | None = None  # tokens at most; None where nobody says

    @property
    def untouched(self) -> bool:
        """Whether tokens come from the model's own distribution, whose logprobs servers then agree on."""
        return (self.temperature, self.top_p) == (1, 1)


class Completion(NamedTuple):
    """One completion as the server tells it, with what it did not tell left None."""

    text: str
    finish: str
    tokens: int | None  # the end of the turn included, where the server counts it
    logprob: float | None  # the sum over those tokens, at temperature 1, untruncated
    censored: int | None  # of those tokens, without a logprob
    entropy_low: float | None  # what the mean entropy of a token lies between
    entropy_high: float | None
    entropy: float | None = None
    reference: float | None = None
    k3: float | None = None


class FailedCompletion(NamedTuple):
    """A completion that did not come, or is none to go by."""

    reason: str


class Listed(BaseModel):
    """One of the likeliest tokens."""

    logprob: float


class Token(BaseModel):
    """A token as chats tell of it."""

    token: str = ""
    bytes: list[int] | None = None
    logprob: float | None = None
    top_logprobs: list[Listed] | None = None


class Logprobs(BaseModel):
    """What a server tells of all tokens of a completion."""

    token_logprobs: list[float | None] | None = None  # as OpenAI has them, vLLM and SGLang too
    top_logprobs: list[dict[str, float | None] | None] | None = None
    content: list[Token] | None = None  # as llama.cpp has them

    @property
    def numbers(self) -> list[float | None]:
        """The logprobs of the tokens, as they were told."""
        return self.token_logprobs or [token.logprob for token in self.content or ()]

    @property
    def known(self) -> list[float]:
        """The logprobs that are some."""
        return [
            logprob
            for logprob in self.numbers
            if logprob is not None and math.isfinite(logprob) and logprob > _CENSORED
        ]

    def brackets(self, requested: int, vocabulary: int | None) -> list[tuple[float, float | None]]:
        """Return what each token's entropy lies between; none of a token without a list of the likeliest."""
        if self.top_logprobs:
            distinct = all(name.startswith(_ID) for top in self.top_logprobs for name in top or ())
            lists = [[number for number in (top or {}).values() if number is not None] for top in self.top_logprobs]
        else:
            distinct = True
            lists = [[listed.logprob for listed in top.top_logprobs or ()] for top in self.content or ()]
        pairs = zip(self.numbers, lists, strict=False)
        tops = [
            likeliest(top, _CENSORED if drawn is None else drawn, requested, distinct) for drawn, top in pairs if top
        ]
        return [bracket(top, vocabulary, whole) for top, whole in tops]


def mean_bracket(
    brackets: Sequence[tuple[float, float | None]], tokens: int | None
) -> tuple[float | None, float | None]:
    """Return what the mean entropy lies between, where every token has its ends."""
    if not brackets or len(brackets) != tokens:
        return None, None
    highs = [high for _, high in brackets if high is not None]
    low = math.fsum(low for low, _ in brackets) / tokens
    high = math.fsum(highs) / tokens if len(highs) == tokens else None
    return _down(low), None if high is None else -_down(-high)


def _down(number: float) -> float:
    """Return a number with four digits that is no greater."""
    return math.floor(number * 1e4) / 1e4
