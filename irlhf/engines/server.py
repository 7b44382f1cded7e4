"""Completions of a model that a server holds: token ids in, text and logprobs out, over OpenAI's /v1/completions.

A request says how every token is drawn, because servers have defaults of their own: vLLM and SGLang those of the
model's generation_config.json, llama.cpp a temperature of 0.8 with a cut tail. And what came back is what counts, not
what was asked for: a number that a server leaves out is None here. No server tells entropy; the logprobs of the
likeliest tokens say what it lies between.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import openai
from openai import OpenAI, omit
from pydantic import BaseModel, ValidationError

from irlhf.engines.answers import Shape
from irlhf.engines.host import Models, unknown_model
from irlhf.engines.words import GOES_ON, KEY, NO_KEY, cleaned, key_of, said
from irlhf.errors import BackendError, ConfigError
from irlhf.records import LENGTH, STOP
from irlhf.uncertainty import bracket, likeliest

_RETRIES = 4  # after the first try: half a second to 8 s apart or as the server says
_SEEDS = 2**31  # llama.cpp takes 32 bits and reads the last of those numbers as "any", others 64 with a sign
_CENSORED = -9999.0  # what vLLM and OpenAI write for a logprob that they cannot give
_WHOLE = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}  # nothing cut, nothing punished
TOPS = (20, 5, 1)  # likeliest tokens to ask for: what vLLM gives unless told otherwise, OpenAI's most, and the least
_BY_ID = {"return_tokens_as_token_ids": True}  # to vLLM, so that two tokens of one text are two
_ID = "token_id:"


@dataclass(frozen=True)
class Served:
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


class _Listed(BaseModel):
    logprob: float


class _Token(BaseModel):
    logprob: float | None = None
    top_logprobs: list[_Listed] | None = None


class _Logprobs(BaseModel):
    token_logprobs: list[float | None] | None = None  # as OpenAI has them, vLLM and SGLang too
    top_logprobs: list[dict[str, float | None] | None] | None = None
    content: list[_Token] | None = None  # as llama.cpp has them

    @property
    def numbers(self) -> list[float | None]:
        return self.token_logprobs or [one.logprob for one in self.content or ()]

    def brackets(self, asked: int, vocabulary: int | None) -> list[tuple[float, float | None]]:
        """Return what each token's entropy lies between; none of a token without a list of the likeliest."""
        if self.top_logprobs:
            distinct = all(name.startswith(_ID) for one in self.top_logprobs for name in one or ())
            lists = [[number for number in (one or {}).values() if number is not None] for one in self.top_logprobs]
        else:
            distinct = True
            lists = [[listed.logprob for listed in one.top_logprobs or ()] for one in self.content or ()]
        pairs = zip(self.numbers, lists, strict=False)
        found = [likeliest(top, _CENSORED if drawn is None else drawn, asked, distinct) for drawn, top in pairs if top]
        return [bracket(top, vocabulary, whole) for top, whole in found]


class _Choice(BaseModel):
    text: str
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    completion_tokens: int | None = None


class _Answer(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


class Completions:
    """A served model, which any number of threads may ask. Raises ConfigError and BackendError."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.key = key_of(served.key, "--api-key-env")
        self.client = OpenAI(base_url=served.url, api_key=self.key or NO_KEY, max_retries=_RETRIES)
        self.name = served.name or self._only()
        self.top = TOPS[0]  # likeliest tokens that the server tells, as far as is known

    def __call__(self, prompt: Sequence[int], seed: int) -> Completion:
        """Return what the model says behind these token ids."""
        top = self.top
        try:
            raw = self._asked(prompt, seed, top)
        except openai.APIError as error:
            if not self._takes_less(error, top):
                self._fail(error)
            return self(prompt, seed)
        answer = self._parsed(raw, _Answer)
        if not answer.choices:
            raise BackendError(f"{self.served.url}: an answer without a completion in it; {GOES_ON}")
        return self._completion(answer.choices[0], answer.usage, top)

    def _asked(self, prompt: Sequence[int], seed: int, top: int) -> bytes:
        untouched = self.served.untouched
        return self.client.completions.with_raw_response.create(
            model=self.name,
            prompt=list(prompt),
            n=1,
            seed=seed % _SEEDS,
            max_tokens=self.served.max_tokens,
            temperature=self.served.temperature,
            top_p=self.served.top_p,
            presence_penalty=0,
            frequency_penalty=0,
            logprobs=top if untouched else omit,
            extra_body={**_WHOLE, **(_BY_ID if untouched else {})},
        ).content

    def _takes_less(self, error: openai.APIError, top: int) -> bool:
        """Return whether a server that refused so many likeliest tokens may give fewer, and ask for these from now."""
        if not isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
            return False
        if not self.served.untouched or top == TOPS[-1] or "logprobs" not in error.response.text:
            return False
        self.top = min(self.top, TOPS[TOPS.index(top) + 1])
        return True

    def _completion(self, choice: _Choice, usage: _Usage | None, top: int) -> Completion:
        if choice.finish_reason not in (STOP, LENGTH):
            raise BackendError(
                f"{self.served.url}: a completion ended with '{choice.finish_reason}', which is neither the model's"
                f" own end nor the most tokens asked for; {GOES_ON}"
            )
        given = choice.logprobs if choice.logprobs and self.served.untouched else _Logprobs()
        numbers = given.numbers
        told = usage.completion_tokens if usage else None
        tokens = told if told is not None else len(numbers) or None
        known = [one for one in numbers if one is not None and math.isfinite(one) and one > _CENSORED]
        logprob = round(math.fsum(known), 4) if known and len(known) == len(numbers) == tokens else None
        low, high = _mean_bracket(given.brackets(top, self.served.vocabulary), tokens)
        censored = len(numbers) - len(known) or None
        return Completion(choice.text.strip(), choice.finish_reason, tokens, logprob, censored, low, high)

    def _only(self) -> str:
        """Return the name of the one model that the server holds."""
        names = self._names()
        if len(names) != 1:
            offered = f"one of {', '.join(names)}" if names else "the model, for the server tells of none"
            raise ConfigError(f"{self.served.url}: name {offered} with --served-name")
        return names[0]

    def _names(self) -> list[str]:
        try:
            raw = self.client.models.with_raw_response.list()
        except openai.APIError as error:
            self._fail(error)
        return sorted({model.id for model in self._parsed(raw.content, Models).data})

    def _parsed(self, content: bytes, shape: type[Shape]) -> Shape:
        try:
            return shape.model_validate_json(content)
        except ValidationError as error:
            told = cleaned(content.decode(errors="replace"), self.key) or "nothing"
            raise BackendError(
                f"{self.served.url}: the answer is not what OpenAI's protocol says: {told}; is it the server's address,"
                " up to and with /v1?"
            ) from error

    def _fail(self, error: openai.APIError) -> NoReturn:
        """Raise what went wrong as one line that says what to do."""
        url = self.served.url
        if not isinstance(error, openai.APIStatusError):
            reason = cleaned(str(error.__cause__ or error), self.key)
            raise BackendError(
                f"{url}: no answer in {_RETRIES + 1} tries ({reason}); is the server up?"
                " The same command goes on from here"
            ) from error
        status, told = error.status_code, f"{url}: {error.status_code} ({said(error.response.text, self.key)})"
        if status in (408, 409, 429) or status >= 500:
            raise BackendError(f"{told}; when it has room again, {GOES_ON}") from error
        if status in (401, 403):
            raise ConfigError(f"{told}; put a key of this server's into {self.served.key or KEY}") from error
        mend = f"; does --base-url end in /v1, and does the server take token ids at {url}/completions?"
        raise ConfigError(unknown_model(self.client, url, getattr(self, "name", "")) or told + mend) from error


def _mean_bracket(
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
