"""Answers of a chat model, and what it tells of the probabilities of its tokens, over OpenAI's /v1/chat/completions."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from threading import Lock

from pydantic import BaseModel, Field

from irlhf.core.example import Message
from irlhf.scoring.scorers.base import Failure
from irlhf.scoring.scorers.endpoint import Server

LISTED = 20  # the likeliest tokens of a place, of which the protocol tells no more
UNTOLD = "the server gave no logprobs"

_CENSORED = -9999.0  # what OpenAI and vLLM write for a logprob that they cannot give

# The most tokens of an answer. Models that want the newer name think first, and their thoughts count.
_OLDER, _NEWER = "max_tokens", "max_completion_tokens"
_ROOM = {_OLDER: 16, _NEWER: 4096}


class _Listed(BaseModel):
    token: str
    logprob: float | None = None


class _TokenPosition(BaseModel):
    token: str
    top_logprobs: list[_Listed] | None = None

    @property
    def known(self) -> dict[str, float]:
        logprobs: dict[str, float] = {}
        for listed in self.top_logprobs or ():
            if listed.logprob is not None and math.isfinite(listed.logprob) and listed.logprob > _CENSORED:
                text = listed.token.strip()
                logprobs[text] = logprobs.get(text, 0.0) + math.exp(min(listed.logprob, 1.0))  # more is no logprob
        return logprobs


class _Logprobs(BaseModel):
    content: list[_TokenPosition] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One of the answers to a question."""

    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None

    @property
    def text(self) -> str:
        """The answer, without the white space around it."""
        return (self.message.content or "").strip()

    @property
    def has_logprobs(self) -> bool:
        """Whether the server tells any probability."""
        return any(position.known for position in self._places)

    @property
    def first(self) -> dict[str, float]:
        """The probabilities of the first place that holds a letter or a digit, white space around tokens aside.

        What is neither may stand before an answer. Thoughts may not, for they have digits of their own. What the server
        could not tell is left out.
        """
        return next((position.known for position in self._places if any(map(str.isalnum, position.token))), {})

    @property
    def _places(self) -> Sequence[_TokenPosition]:
        return (self.logprobs.content if self.logprobs else None) or ()


class _Answer(BaseModel):
    choices: list[Choice] = Field(min_length=1)


class Chats:
    """A chat model on a server, for any number of threads."""

    def __init__(self, server: Server, model: str) -> None:
        self.server, self.model = server, model
        self._limit = _OLDER  # which every server knows but those that refuse it
        self._first = Lock()
        self._begun = False

    def __reduce__(self) -> tuple[type["Chats"], tuple[Server, str]]:
        return Chats, (self.server, self.model)

    def ask(self, messages: Sequence[Message], how: Mapping[str, object]) -> list[Choice] | Failure:
        """Return one or more answers, drawn as `how` says, or why there is none."""
        # One request alone finds out which name the server wants; many at once would all be refused for it.
        with nullcontext() if self._begun else self._first:
            if not self._begun:
                answer = self._request(messages, how)
                self._begun = True
                return answer
        return self._request(messages, how)

    def likeliest(self, messages: Sequence[Message]) -> Choice | Failure:
        """Return the likeliest answer with its probabilities."""
        answer = self.ask(messages, {"temperature": 0, "logprobs": True, "top_logprobs": LISTED})
        if isinstance(answer, Failure):
            return answer
        return self._refusal(answer[0]) or answer[0]

    def drawn(self, messages: Sequence[Message], count: int, seed: int) -> list[Choice] | Failure:
        """Return so many answers at temperature 1, from a server that may give but one at a time."""
        given: list[Choice] = []
        while len(given) < count:
            left = count - len(given)
            several = {"n": left} if left > 1 else {}
            answer = self.ask(messages, {"temperature": 1, "seed": (seed + len(given)) % 2**31, **several})
            if isinstance(answer, Failure):
                return answer
            given += answer
        refused = next(filter(None, map(self._refusal, given[:count])), None)
        return refused or given[:count]

    def unreadable(self, choice: Choice, due: str) -> Failure:
        """Say what came where something else was due."""
        if not choice.text:
            end = f"ended with '{self.server.cleaned(str(choice.finish_reason))}'"
            return Failure(f"no answer: it {end} before there was any, where {due} was due")
        return Failure(f"answered '{self.server.cleaned(choice.text)[:80]}', where {due} was due")

    def _request(self, messages: Sequence[Message], how: Mapping[str, object]) -> list[Choice] | Failure:
        limit = self._limit
        answer = self._posted(messages, how, limit)
        if isinstance(answer, Failure) and limit == _OLDER and _NEWER in answer.reason:
            answer = self._posted(messages, how, _NEWER)
            if not isinstance(answer, Failure):
                self._limit = _NEWER
        return answer

    def _posted(self, messages: Sequence[Message], how: Mapping[str, object], limit: str) -> list[Choice] | Failure:
        body = {"model": self.model, "messages": messages, limit: _ROOM[limit], **how}
        answer = self.server.ask("chat/completions", body, _Answer)
        return answer if isinstance(answer, Failure) else answer.choices

    def _refusal(self, choice: Choice) -> Failure | None:
        if choice.message.refusal:
            return Failure(f"the model refuses: '{self.server.cleaned(choice.message.refusal)[:80]}'")
        if choice.finish_reason == "content_filter":
            return Failure("the server's filter held the answer back (content_filter)")
        return None
