"""Samples from a model on a server, over OpenAI's /v1/chat/completions (messages) or /v1/completions (token ids).

A request says how every token is drawn, because servers have defaults of their own: vLLM and SGLang those of the
model's generation_config.json, llama.cpp a temperature of 0.8 with a truncated tail. Servers also leave things out of
replies, so what counts is what a reply holds: how many choices, how each ended, whether its logprobs are complete.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError
from irlhf.core.example import LENGTH, STOP
from irlhf.core.example import Message as ChatMessage
from irlhf.openai_api.api_client import ApiClient, RequestFailed
from irlhf.openai_api.capabilities import Negotiator, ServerCapabilities
from irlhf.openai_api.endpoint import CACHED, CENSORED, GOES_ON, PROMPT
from irlhf.openai_api.server_logprobs import (
    SEEDS,
    TOPS,
    WHOLE,
    Choice,
    Completion,
    CompletionReply,
    FailedCompletion,
    Logprobs,
    ServedModel,
    Usage,
    mean_bracket,
)

_FIRST = 16  # completions of which one must be usable
_TIMEOUT = 600.0  # seconds until a reply begins, which is when it is complete
_BY_ID = {"return_tokens_as_token_ids": True}  # for vLLM, so that two tokens with one text are two


class ModelClient:
    """A model on a server, for any number of threads, with at most `concurrency` requests at a time.

    `extra` holds fields for servers that know them. Tokens are counted in `spent`. Raises ConfigError and BackendError.
    """

    def __init__(
        self,
        served: ServedModel,
        concurrency: int,
        spent: Counter[str],
        *,
        chat: bool = True,
        extra: Mapping[str, object] = {},
    ) -> None:
        self.served, self.spent = served, spent
        client = ApiClient(served.url, served.key, _TIMEOUT, concurrency)
        self.name = served.name or _only_model(client)
        self.server = Negotiator(client, "chat/completions" if chat else "completions", strict=not chat)
        self.extra = {**WHOLE, **extra}
        self.kept = self.lost = 0  # completions
        self.reason = ""  # why one of them was lost
        self.lock = Lock()
        self.reported: set[str] = set()

    def chat(
        self,
        messages: Sequence[ChatMessage],
        seeds: Sequence[int],
        size: int | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[Completion | FailedCompletion]:
        """Return a completion for each seed. `size` is the number of tokens in the messages, if known."""
        prompt = {"messages": list(messages), **({"tools": list(tools)} if tools else {})}
        completions: list[Completion | FailedCompletion] = []
        while len(completions) < len(seeds):
            try:
                completions += self._some(prompt, seeds[len(completions) :], size)
            except RequestFailed as failure:
                completions += [FailedCompletion(str(failure))] * (len(seeds) - len(completions))
        return completions

    def complete(self, prompt: Sequence[int], seed: int) -> Completion:
        """Return a completion of these token ids. Raises ConfigError and BackendError if there is none."""
        url = self.served.url

        def body(capabilities: ServerCapabilities) -> dict[str, Any]:
            logprobs = {"logprobs": capabilities.top, **_BY_ID} if self._wants_logprobs(capabilities) else {}
            return self._body(capabilities, {"prompt": list(prompt)}, {"n": 1, "seed": seed % SEEDS, **logprobs})

        try:
            reply, capabilities = self.server.ask(body, CompletionReply)
        except RequestFailed as failure:
            if failure.refused:
                fix = f"if {url}/completions does not accept token ids or these settings, use --api chat"
                raise ConfigError(f"{url}: {failure}; {fix}") from None
            raise BackendError(f"{url}: {failure}; {GOES_ON}") from None
        choice, usage = reply.choices[0], reply.usage or Usage()
        if choice.finish_reason not in (STOP, LENGTH):
            ended = f"a completion ended with '{choice.finish_reason}' instead of '{STOP}' or '{LENGTH}'"
            raise BackendError(f"{url}: {ended}; {GOES_ON}")
        self._count(usage)
        count = len(choice.logprobs.numbers) if choice.logprobs else 0
        whole = usage.completion_tokens in (None, count)
        return self._completion(choice, usage.completion_tokens, capabilities, whole)

    def _some(
        self, prompt: Mapping[str, object], seeds: Sequence[int], size: int | None
    ) -> list[Completion | FailedCompletion]:
        """Return as many of the completions as one request brings."""

        def body(capabilities: ServerCapabilities) -> dict[str, Any]:
            wants = self._wants_logprobs(capabilities) or None
            optional = {
                "n": len(seeds) if capabilities.plural and len(seeds) > 1 else None,
                "seed": seeds[0] % SEEDS,
                "logprobs": wants,
                "top_logprobs": wants and capabilities.top,
            }
            return self._body(capabilities, prompt, optional)

        self._check_usable()  # another thread may have seen the last failure that was needed to stop
        reply, capabilities = self.server.ask(body, CompletionReply)
        choices = reply.choices[: len(seeds)]
        if capabilities.plural and len(choices) < len(seeds):
            self.server.learn(capabilities, capabilities.singly())
        usage = reply.usage or Usage()
        self._count(usage, size)
        tokens = usage.completion_tokens if len(reply.choices) == 1 else None
        completions: list[Completion | FailedCompletion] = []
        for choice in choices:
            reason = self._unusable(choice)
            whole = choice.spells_text()
            completions.append(
                FailedCompletion(reason) if reason else self._completion(choice, tokens, capabilities, whole)
            )
        self._check_usable(completions)
        return completions

    def _body(
        self, capabilities: ServerCapabilities, prompt: Mapping[str, object], optional: Mapping[str, object]
    ) -> dict[str, Any]:
        served = self.served
        drawn = {"temperature": served.temperature, "top_p": served.top_p, capabilities.limit: served.max_tokens}
        fields = {**optional, "presence_penalty": 0, "frequency_penalty": 0, **self.extra}
        return {"model": self.name, **prompt, **drawn, **capabilities.accepted(fields)}

    def _wants_logprobs(self, capabilities: ServerCapabilities) -> bool:
        return self.served.untouched and capabilities.logprobs

    def _completion(
        self, choice: Choice, counted: int | None, capabilities: ServerCapabilities, whole: bool
    ) -> Completion:
        """Return a choice as a completion of `counted` tokens; `whole` if its logprobs are those of all its tokens."""
        wanted = self._wants_logprobs(capabilities)
        given = choice.logprobs if choice.logprobs and wanted else Logprobs()
        numbers, known = given.numbers, given.known
        whole = whole and bool(numbers)
        brackets = given.brackets(capabilities.top, self.served.vocabulary) if whole else []
        censored = len(numbers) - len(known)
        with self.lock:
            self.spent[CENSORED] += censored
        if wanted and not whole:
            why = "the logprob of every token"
            if numbers and choice.message:
                why = "tokens that spell the text of a completion"
            self._warn(f"the server did not return {why}; such rows have no logprob and no entropy bounds")
        elif wanted and not brackets:
            self._warn("the server did not list the likeliest tokens, so rows have no entropy bounds")
        elif wanted and capabilities.top < TOPS[0]:
            self._warn(f"the server lists at most {capabilities.top} of the likeliest tokens: entropy bounds are wide")
        tokens = counted if counted is not None else len(numbers) or None
        if choice.finish_reason == LENGTH and tokens is not None and tokens < self.served.max_tokens:
            self._warn(f"the server ended completions before {self.served.max_tokens} tokens: its context is too short")
        logprob = round(math.fsum(known), 4) if whole and not censored else None
        low, high = mean_bracket(brackets, len(numbers))
        return Completion(choice.stripped, choice.finish_reason or "", tokens, logprob, censored or None, low, high)

    def _unusable(self, choice: Choice) -> str:
        """Return why a choice is not a sample, or ""."""
        finish = choice.finish_reason
        if choice.refusal:
            return f"the model refused: {self.server.client.cleaned(choice.refusal)}"
        if finish is None:
            return "the completion has no finish_reason"
        if finish not in (STOP, LENGTH):
            return f"the completion ended with '{self.server.client.cleaned(finish)}'"
        return "" if choice.stripped else f"the completion is empty and ended with '{finish}'"

    def _check_usable(self, completions: Sequence[Completion | FailedCompletion] = ()) -> None:
        """Raise BackendError if no completion so far was usable: they may have been paid for."""
        with self.lock:
            lost = [completion.reason for completion in completions if isinstance(completion, FailedCompletion)]
            self.lost += len(lost)
            self.kept += len(completions) - len(lost)
            self.reason = lost[0] if lost else self.reason
            hopeless = self.lost >= _FIRST and not self.kept
        if hopeless:
            problem = f"none of {self.lost} completions is usable ({self.reason})"
            raise BackendError(f"{self.served.url}: {problem}; check the prompts and the model")

    def _count(self, usage: Usage, size: int | None = None) -> None:
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
        with self.lock:
            self.spent[PROMPT] += usage.prompt_tokens or 0
            self.spent[CACHED] += cached or 0
        if size is not None and usage.prompt_tokens not in (None, size):
            text = (
                f"the server reads {usage.prompt_tokens} tokens where the prompt has {size}: its chat template differs"
                " from the one used in training, so the policy may not see its rewards"
            )
            self._warn(text, "size")

    def _warn(self, text: str, topic: str = "") -> None:
        """Warn once about each topic."""
        with self.lock:
            new = (topic or text) not in self.reported
            self.reported.add(topic or text)
        if new:
            console.warn(text)


def _only_model(client: ApiClient) -> str:
    """Return the name of the server's only model."""
    try:
        names = client.models()
    except RequestFailed as failure:
        raise ConfigError(f"{client.url}: cannot list models ({failure}); name one with --served-name") from None
    if len(names) != 1:
        offered = f"has the models {', '.join(names)}" if names else "lists no models"
        raise ConfigError(f"{client.url} {offered}; name one with --served-name")
    return names[0]
