"""Replies with completions, and bounds of the entropy from the logprobs in them.

No server returns entropies; the logprobs of the likeliest tokens bound them. A number that a server leaves out is None.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

from pydantic import BaseModel, Field

from irlhf.core.entropy_bounds import bracket, likeliest

SEEDS = 2**31  # llama.cpp takes 32 bits, the highest number means "any"; others take 64 signed
WHOLE = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}  # no truncation, no penalty
TOPS = (20, 5, 1)  # likeliest tokens to request: the most of vLLM's default, of OpenAI's completions, and the least
_CENSORED = -9999.0  # what vLLM and OpenAI send for a logprob that they do not have
_ID = "token_id:"


@dataclass(frozen=True)
class ServedModel:
    """A model on a server, and how it samples."""

    url: str  # up to and including /v1
    name: str  # of the model; empty if the server has only one
    key: str  # the environment variable with the key; empty is OPENAI_API_KEY
    temperature: float
    top_p: float
    max_tokens: int
    vocabulary: int | None = None  # at most; None if unknown

    @property
    def untouched(self) -> bool:
        """Whether tokens come from the model's own distribution; else servers disagree on what a logprob is."""
        return (self.temperature, self.top_p) == (1, 1)


class Completion(NamedTuple):
    """One completion; what the server left out is None."""

    text: str
    finish: str
    tokens: int | None  # including the end of the turn, if the server counts it
    logprob: float | None  # the sum over those tokens, at temperature 1, untruncated
    censored: int | None  # tokens without a logprob
    entropy_low: float | None  # bounds of the mean entropy of a token
    entropy_high: float | None
    entropy: float | None = None
    reference: float | None = None
    k3: float | None = None
    notes: tuple[str, ...] = ()  # what happened to the prompt


class FailedCompletion(NamedTuple):
    """A completion that is missing or unusable."""

    reason: str


class ListedToken(BaseModel):
    """One of the likeliest tokens at a position."""

    token: str = ""
    logprob: float | None = None


class Token(BaseModel):
    """A token of a chat completion."""

    token: str = ""
    bytes: list[int] | None = None
    logprob: float | None = None
    top_logprobs: list[ListedToken] | None = None


class Logprobs(BaseModel):
    """What a server returns about the tokens of a completion."""

    token_logprobs: list[float | None] | None = None  # completions of OpenAI, vLLM and SGLang
    top_logprobs: list[dict[str, float | None] | None] | None = None
    content: list[Token] | None = None  # chats, and completions of llama.cpp

    @property
    def numbers(self) -> list[float | None]:
        """The logprobs of the tokens as the server sent them."""
        return self.token_logprobs or [token.logprob for token in self.content or ()]

    @property
    def known(self) -> list[float]:
        """The logprobs that are numbers."""
        return [logprob for logprob in self.numbers if is_known(logprob)]

    def brackets(self, requested: int, vocabulary: int | None) -> list[tuple[float, float | None]]:
        """Return the bounds of the entropy of each token that has a list of the likeliest."""
        if self.top_logprobs:
            distinct = all(name.startswith(_ID) for top in self.top_logprobs for name in top or ())
            lists = [[number for number in (top or {}).values() if number is not None] for top in self.top_logprobs]
        else:
            distinct = True
            lists = [
                [listed.logprob for listed in token.top_logprobs or () if listed.logprob is not None]
                for token in self.content or ()
            ]
        pairs = zip(self.numbers, lists, strict=False)
        tops = [
            likeliest(top, _CENSORED if drawn is None else drawn, requested, distinct) for drawn, top in pairs if top
        ]
        return [bracket(top, vocabulary, whole) for top, whole in tops]


def is_known(logprob: float | None) -> TypeGuard[float]:
    """Return whether a server sent a number, and not what stands for a missing one."""
    return logprob is not None and math.isfinite(logprob) and logprob > _CENSORED


class Message(BaseModel):
    """The message of a chat completion."""

    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One completion in a reply: a message from a chat, else a text."""

    message: Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None

    @property
    def stripped(self) -> str:
        """The text without surrounding white space."""
        return ((self.message.content if self.message else self.text) or "").strip()

    @property
    def refusal(self) -> str:
        """Why the model refuses, if it does."""
        return (self.message.refusal if self.message else "") or ""

    def spells_text(self) -> bool:
        """Return whether the tokens make the text; the last one may be the end of the turn, which is not shown."""
        tokens = (self.logprobs.content if self.logprobs else None) or []
        pieces = [token.token.encode() if token.bytes is None else bytes(token.bytes) for token in tokens]
        spelled = (b"".join(pieces), b"".join(pieces[:-1]))
        return any(each.decode(errors="replace").strip() == self.stripped for each in spelled)


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None


class Usage(BaseModel):
    """Tokens that a request used."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class CompletionReply(BaseModel):
    """A reply of /chat/completions or /completions."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


def mean_bracket(
    brackets: Sequence[tuple[float, float | None]], tokens: int | None
) -> tuple[float | None, float | None]:
    """Return the bounds of the mean entropy, if every token has bounds."""
    if not brackets or len(brackets) != tokens:
        return None, None
    highs = [high for _, high in brackets if high is not None]
    low = math.fsum(low for low, _ in brackets) / tokens
    high = math.fsum(highs) / tokens if len(highs) == tokens else None
    return _down(low), None if high is None else -_down(-high)


def _down(number: float) -> float:
    """Return a number rounded down to four digits."""
    return math.floor(number * 1e4) / 1e4
