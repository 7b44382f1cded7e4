"""Answers of a model that a server holds: messages in, texts and logprobs out, over OpenAI's /v1/chat/completions.

    first request, alone ──▶ refused for a field ──▶ the same without it … ──▶ answered ──▶ all others, side by side

Servers differ in what they take: what one refuses is not sent again. They differ in what they tell as well, and what
came back is what counts: how many choices, how each ended, whether there are logprobs, whether tokens make the text.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from threading import Lock
from typing import Any

from pydantic import BaseModel, Field

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError
from irlhf.core.example import LENGTH, STOP, Message
from irlhf.openai_api.api_client import ApiClient, RequestFailed
from irlhf.openai_api.capabilities import ServerCapabilities, downgrade
from irlhf.openai_api.endpoint import CACHED, CENSORED, PROMPT, cleaned, key_of
from irlhf.openai_api.server_logprobs import (
    SEEDS,
    WHOLE,
    Completion,
    FailedCompletion,
    Logprobs,
    ServedModel,
    Token,
    mean_bracket,
)

_PATH = "chat/completions"
_FIRST = 16  # completions of which one must be of use
_TIMEOUT = 600.0  # seconds until an answer begins, which is when it is whole


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Answer(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class ChatClient:
    """A served model, which any number of threads may ask, `most` at a time. Raises ConfigError and BackendError.

    `extra` are fields for servers that know them. What answers cost is counted in `spent`.
    """

    def __init__(self, served: ServedModel, most: int, extra: Mapping[str, object], spent: Counter[str]) -> None:
        self.served = served
        self.key = key_of(served.key, "--api-key-env")
        self.host = ApiClient(served.url, served.key, _TIMEOUT, most)
        self.name = served.name or self._only()
        self.extra = {**WHOLE, **extra}
        self.spent = spent
        self.kept = self.lost = 0  # completions
        self.reason = ""  # why one of them was lost
        self.capabilities = ServerCapabilities()
        self.met = False  # whether the server has said yes or no to what it is asked
        self.first = Lock()  # of those who ask before that
        self.lock = Lock()
        self.reported: set[str] = set()

    def __call__(
        self, messages: Sequence[Message], seeds: Sequence[int], size: int | None = None
    ) -> list[Completion | FailedCompletion]:
        """Return a completion for each seed. `size` is how many tokens the messages are, where somebody knows."""
        completions: list[Completion | FailedCompletion] = []
        while len(completions) < len(seeds):
            try:
                completions += self._some(messages, seeds[len(completions) :], size)
            except RequestFailed as reason:
                completions += [FailedCompletion(str(reason))] * (len(seeds) - len(completions))
        return completions

    def _some(
        self, messages: Sequence[Message], seeds: Sequence[int], size: int | None
    ) -> list[Completion | FailedCompletion]:
        """Return as many of the completions as one request brings."""
        self._check_usable()  # another thread may have seen the last that was needed to give up
        answer, capabilities = self._answer(messages, seeds)
        choices = answer.choices[: len(seeds)]
        if capabilities.plural and len(choices) < len(seeds):
            self._learn(capabilities, capabilities.singly())
        self._count(answer.usage or _Usage(), size)
        alone = answer.usage.completion_tokens if answer.usage and len(answer.choices) == 1 else None
        completions = [self._completion(choice, alone, capabilities) for choice in choices]
        self._check_usable(completions)
        return completions

    def _check_usable(self, completions: Sequence[Completion | FailedCompletion] = ()) -> None:
        """Raise BackendError where nothing that came was of use: it may have been paid for."""
        with self.lock:
            lost = [completion.reason for completion in completions if isinstance(completion, FailedCompletion)]
            self.lost += len(lost)
            self.kept += len(completions) - len(lost)
            self.reason = lost[0] if lost else self.reason
            hopeless = self.lost >= _FIRST and not self.kept
        if hopeless:
            problem = f"none of {self.lost} completions is one to go by ({self.reason})"
            raise BackendError(f"{self.served.url}: {problem}; look at what they are asked")

    def _answer(self, messages: Sequence[Message], seeds: Sequence[int]) -> tuple[_Answer, ServerCapabilities]:
        """Return an answer, and what was known of the server when it was asked."""
        with nullcontext() if self.met else self.first:
            while True:
                capabilities = self.capabilities
                body = self._body(capabilities, messages, seeds)
                try:
                    answer = self.host.ask(_PATH, body, _Answer)
                except RequestFailed as reason:
                    taught = downgrade(capabilities, body, str(reason)) if reason.refused else capabilities
                    if not self._learn(capabilities, taught):
                        self.met = True
                        raise
                    self.host.forgive()
                else:
                    self.met = True
                    return answer, capabilities

    def _body(
        self, capabilities: ServerCapabilities, messages: Sequence[Message], seeds: Sequence[int]
    ) -> dict[str, Any]:
        served = self.served
        optional: dict[str, Any] = {
            "n": len(seeds) if capabilities.plural and len(seeds) > 1 else None,
            "seed": seeds[0] % SEEDS,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "logprobs": True if served.untouched and capabilities.tells else None,
            "top_logprobs": capabilities.top if served.untouched and capabilities.tells else None,
            **self.extra,
        }
        drawn = {"temperature": served.temperature, "top_p": served.top_p, capabilities.limit: served.max_tokens}
        kept = {
            name: value for name, value in optional.items() if value is not None and name not in capabilities.refused
        }
        return {"model": self.name, "messages": list(messages), **drawn, **kept}

    def _learn(self, before: ServerCapabilities, after: ServerCapabilities) -> bool:
        """Take up what a request taught, unless others taught more; return whether another try would be another."""
        with self.lock:
            if self.capabilities == before:
                self.capabilities = after
            changed = self.capabilities != before
        for text in after.changes_since(before):
            self._note(text)
        return changed

    def _completion(
        self, choice: _Choice, alone: int | None, capabilities: ServerCapabilities
    ) -> Completion | FailedCompletion:
        """Return what a choice is worth; `alone` is the number of its tokens, where it is the only one."""
        text = (choice.message.content or "").strip()
        if reason := self._unusable(choice, text):
            return FailedCompletion(reason)
        wants_logprobs = self.served.untouched and capabilities.tells
        given = choice.logprobs if choice.logprobs and wants_logprobs else Logprobs()
        numbers, known = given.numbers, given.known
        has_logprobs = bool(numbers) and _makes(given.content or (), text)
        censored = len(numbers) - len(known)
        with self.lock:
            self.spent[CENSORED] += censored
        if wants_logprobs and not has_logprobs:
            why = "the tokens that the server tells do not make its text" if numbers else "the server gives no logprobs"
            self._warn(f"{why}; rows of which it does not have none, nor what entropy lies between")
        tokens = alone if alone is not None else len(numbers) or None
        if choice.finish_reason == LENGTH and tokens is not None and tokens < self.served.max_tokens:
            self._warn(f"the server ended completions before {self.served.max_tokens} tokens: its context is too short")
        logprob = round(math.fsum(known), 4) if has_logprobs and not censored else None
        brackets = given.brackets(capabilities.top, self.served.vocabulary) if has_logprobs else []
        low, high = mean_bracket(brackets, len(numbers))
        return Completion(text, choice.finish_reason or "", tokens, logprob, censored or None, low, high)

    def _unusable(self, choice: _Choice, text: str) -> str:
        """Return why a choice is no sample, if it is none."""
        if choice.message.refusal:
            return f"the model refused: {cleaned(choice.message.refusal, self.key)}"
        if choice.finish_reason is None:
            return "the completion does not say how it ended"
        if choice.finish_reason not in (STOP, LENGTH):
            return f"the completion ended with '{cleaned(str(choice.finish_reason), self.key)}'"
        return "" if text else f"a completion without text, ended with '{choice.finish_reason}'"

    def _count(self, usage: _Usage, size: int | None) -> None:
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
        with self.lock:
            self.spent[PROMPT] += usage.prompt_tokens or 0
            self.spent[CACHED] += cached or 0
        if size is not None and usage.prompt_tokens not in (None, size):
            self._warn(
                f"the server reads {usage.prompt_tokens} tokens where the prompt has {size}: its chat template writes"
                " messages otherwise than training did, so the policy may not see what is asked",
                "size",
            )

    def _only(self) -> str:
        """Return the name of the one model that the server holds."""
        try:
            names = self.host.models()
        except RequestFailed as reason:
            raise ConfigError(
                f"{self.served.url}: name the model with --served-name; there is no list: {reason}"
            ) from None
        if len(names) != 1:
            offered = f"one of {', '.join(names)}" if names else "the model, for the server tells of none"
            raise ConfigError(f"{self.served.url}: name {offered} with --served-name")
        return names[0]

    def _note(self, text: str) -> None:
        if self._is_new(text):
            console.note(text)

    def _warn(self, text: str, matter: str = "") -> None:
        if self._is_new(matter or text):
            console.warn(text)

    def _is_new(self, matter: str) -> bool:
        with self.lock:
            new = matter not in self.reported
            self.reported.add(matter)
        return new


def _makes(tokens: Sequence[Token], text: str) -> bool:
    """Return whether tokens make a text; the last one may be the end of the turn, which is not seen."""
    return any(joined.decode(errors="replace").strip() == text for joined in _joined(tokens))


def _joined(tokens: Sequence[Token]) -> Iterator[bytes]:
    pieces = [token.token.encode() if token.bytes is None else bytes(token.bytes) for token in tokens]
    yield b"".join(pieces)
    yield b"".join(pieces[:-1])
