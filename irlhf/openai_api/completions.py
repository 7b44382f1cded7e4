"""Completions of a model that a server holds: token ids in, text and logprobs out, over OpenAI's /v1/completions.

A request says how every token is drawn, because servers have defaults of their own: vLLM and SGLang those of the
model's generation_config.json, llama.cpp a temperature of 0.8 with a cut tail. And what came back is what counts, not
what was asked for.
"""

import math
from collections.abc import Sequence
from typing import NoReturn

import openai
from openai import OpenAI, omit
from pydantic import BaseModel, ValidationError

from irlhf.core.errors import BackendError, ConfigError
from irlhf.core.example import LENGTH, STOP
from irlhf.openai_api.api_client import Models, unknown_model
from irlhf.openai_api.endpoint import GOES_ON, KEY, NO_KEY, cleaned, error_text, key_of
from irlhf.openai_api.responses import Shape
from irlhf.openai_api.server_logprobs import SEEDS, TOPS, WHOLE, Completion, Logprobs, ServedModel, mean_bracket

_RETRIES = 4  # after the first try: half a second to 8 s apart or as the server says
_BY_ID = {"return_tokens_as_token_ids": True}  # to vLLM, so that two tokens of one text are two


class _Choice(BaseModel):
    text: str
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class _Usage(BaseModel):
    completion_tokens: int | None = None


class _Answer(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


class CompletionsClient:
    """A served model, which any number of threads may ask. Raises ConfigError and BackendError."""

    def __init__(self, served: ServedModel) -> None:
        self.served = served
        self.key = key_of(served.key, "--api-key-env")
        self.client = OpenAI(base_url=served.url, api_key=self.key or NO_KEY, max_retries=_RETRIES)
        self.name = served.name or self._only()
        self.top = TOPS[0]  # likeliest tokens that the server tells, as far as is known

    def __call__(self, prompt: Sequence[int], seed: int) -> Completion:
        """Return what the model says behind these token ids."""
        top = self.top
        try:
            raw = self._request(prompt, seed, top)
        except openai.APIError as error:
            if not self._takes_less(error, top):
                self._fail(error)
            return self(prompt, seed)
        answer = self._parsed(raw, _Answer)
        if not answer.choices:
            raise BackendError(f"{self.served.url}: an answer without a completion in it; {GOES_ON}")
        return self._completion(answer.choices[0], answer.usage, top)

    def _request(self, prompt: Sequence[int], seed: int, top: int) -> bytes:
        untouched = self.served.untouched
        return self.client.completions.with_raw_response.create(
            model=self.name,
            prompt=list(prompt),
            n=1,
            seed=seed % SEEDS,
            max_tokens=self.served.max_tokens,
            temperature=self.served.temperature,
            top_p=self.served.top_p,
            presence_penalty=0,
            frequency_penalty=0,
            logprobs=top if untouched else omit,
            extra_body={**WHOLE, **(_BY_ID if untouched else {})},
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
        given = choice.logprobs if choice.logprobs and self.served.untouched else Logprobs()
        numbers, known = given.numbers, given.known
        reported_tokens = usage.completion_tokens if usage else None
        tokens = reported_tokens if reported_tokens is not None else len(numbers) or None
        logprob = round(math.fsum(known), 4) if known and len(known) == len(numbers) == tokens else None
        low, high = mean_bracket(given.brackets(top, self.served.vocabulary), tokens)
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
            text = cleaned(content.decode(errors="replace"), self.key) or "nothing"
            raise BackendError(
                f"{self.served.url}: the answer is not what OpenAI's protocol says: {text}; is it the server's address,"
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
        status, text = error.status_code, f"{url}: {error.status_code} ({error_text(error.response.text, self.key)})"
        if status in (408, 409, 429) or status >= 500:
            raise BackendError(f"{text}; when it has room again, {GOES_ON}") from error
        if status in (401, 403):
            raise ConfigError(f"{text}; put a key of this server's into {self.served.key or KEY}") from error
        mend = f"; does --base-url end in /v1, and does the server take token ids at {url}/completions?"
        raise ConfigError(unknown_model(self.client, url, getattr(self, "name", "")) or text + mend) from error
