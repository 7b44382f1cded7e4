"""Scorers on a server: a classifier in vLLM, a moderation endpoint, any HTTP server that returns numbers.

For each example, a failed request or a reply without a reward becomes a `Failure`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

from pydantic import BaseModel, Field, RootModel, model_validator
from pydantic_core import PydanticCustomError

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError, IrlhfError
from irlhf.core.example import Example, as_messages, as_text
from irlhf.openai_api.api_client import ApiClient, RequestFailed
from irlhf.openai_api.endpoint import OPENAI
from irlhf.scoring.scorers.base import Failure, Reply, Traits, is_number

_CHAT, _COMPLETION = "chat", "completion"
_LOOKED_AT = 20  # replies after which a warning is due if all numbers lie within 0 to 1
_SUMS = 2e-3  # how far from 1 the sum of probabilities in half precision may be
_MODERATION = "omni-moderation-latest"
_MAXIMUM = "max"
_REWARD = "reward"


class NoReward(Exception):
    """The reply to one example has no reward."""

    def __init__(self, reason: str, error: type[IrlhfError] = BackendError) -> None:
        super().__init__(reason)
        self.error = error


def score_each(score: Callable[[Example], Reply], examples: Sequence[Example]) -> list[Reply | Failure]:
    """Return a reply or a failure per example. Raises ConfigError and BackendError if the run cannot continue."""
    replies: list[Reply | Failure] = []
    for example in examples:
        try:
            replies.append(score(example))
        except RequestFailed as failure:
            replies.append(Failure(str(failure)))
        except NoReward as missing:
            replies.append(Failure(str(missing), missing.error))
    return replies


class _Probs(BaseModel):
    probs: list[float] = Field(min_length=1)


class _Classes(BaseModel):
    data: list[_Probs] = Field(min_length=1, max_length=1)


class Served:
    """All logits of a sequence classifier in vLLM, by the number of the label: "0", "1", ….

    vLLM names only the likeliest label. Logits are requested with `use_activation` of its /classify; an older vLLM
    ignores that field and returns probabilities. Several labels show it, because they sum to 1, and such a row has no
    reward. One label does not: a warning follows if the first twenty numbers all lie between 0 and 1.
    """

    def __init__(
        self, model: str, *, input: str = "", base_url: str = "", api_key_env: str = "", timeout: float = 60.0
    ) -> None:
        if not model:
            raise ConfigError("name the model behind the colon, as vLLM serves it")
        if not base_url:
            raise ConfigError("name the server as `base_url:`, such as http://127.0.0.1:8000/v1")
        _check_input(input)
        self.model, self.input = model, input
        self.client = ApiClient(base_url.rstrip("/"), api_key_env, timeout)
        self.root = self.client.url.removesuffix("/v1")
        self.within = _Within(self.root)
        self.traits = Traits(f"vllm {self.root} {model} {input}", link="softmax", waits=True)

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        return score_each(self._reply, examples)

    def _reply(self, example: Example) -> Reply:
        numbers = self.client.ask(f"{self.root}/classify", self._body(example), _Classes).data[0].probs
        if len(numbers) > 1 and min(numbers) >= 0 and abs(sum(numbers) - 1) < _SUMS:
            raise NoReward(
                "the server returned probabilities, not logits; does this vLLM know `use_activation`?", ConfigError
            )
        self.within.see(numbers)
        return {str(position): number for position, number in enumerate(numbers)}

    def _body(self, example: Example) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "use_activation": False}
        if self.input == _COMPLETION:
            return {**body, "input": as_text(example.completion)}
        # Chat templates write the BOS token; the tokenizer must not add a second one.
        messages = as_messages(example.prompt) + as_messages(example.completion, "assistant")
        return {**body, "messages": messages, "add_special_tokens": False}


class _Within:
    """Warns once if all of the first numbers could be probabilities."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._lock = Lock()
        self._seen = 0

    def __reduce__(self) -> tuple[type["_Within"], tuple[str]]:
        return _Within, (self.where,)

    def see(self, numbers: Sequence[float]) -> None:
        """Check the numbers of one more reply."""
        with self._lock:
            if self._seen >= _LOOKED_AT:
                return
            inside = all(0 <= number <= 1 for number in numbers)
            self._seen = self._seen + 1 if inside else _LOOKED_AT
            odd = inside and self._seen == _LOOKED_AT
        if odd:
            console.warn(
                f"{self.where}: the first {_LOOKED_AT} numbers all lie between 0 and 1; unless the model's logits do,"
                " this vLLM ignores `use_activation` and returns probabilities"
            )


class _Categories(BaseModel):
    category_scores: dict[str, float | None]


class _Moderated(BaseModel):
    results: list[_Categories] = Field(min_length=1, max_length=1)


class Moderation:
    """The scores of a moderation endpoint by category; "max" is the largest of them.

    It reads the completion, or with `input: chat` the whole conversation as text. A reward without a `label:` is
    "max". Higher is worse, so use `direction: lower`.
    """

    def __init__(
        self, model: str, *, input: str = "", base_url: str = OPENAI, api_key_env: str = "", timeout: float = 60.0
    ) -> None:
        _check_input(input)
        self.model, self.input = model or _MODERATION, input
        self.client = ApiClient(base_url.rstrip("/"), api_key_env, timeout)
        known = f"moderation {self.client.url} {self.model} {input == _CHAT}"
        self.traits = Traits(known, waits=True, usual=_MAXIMUM, varies=True)

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        return score_each(self._reply, examples)

    def _reply(self, example: Example) -> Reply:
        shown = as_text(example.completion)
        if self.input == _CHAT:
            turns = as_messages(example.prompt) + as_messages(example.completion, "assistant")
            shown = "\n\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in turns)
        reply = self.client.ask("moderations", {"model": self.model, "input": shown}, _Moderated)
        scores = _without_missing(reply.results[0].category_scores)
        if not scores:
            raise NoReward("the server scored no category")
        return {**scores, _MAXIMUM: math.nan if any(map(math.isnan, scores.values())) else max(scores.values())}


class _Numbers(RootModel[dict[str, float]]):
    """A number, {"reward": 0.3} or {"score": 0.3}, or an object of numbers, alone or as "rewards" or "scores"."""

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, body: Any) -> Any:
        if is_number(body):
            return {_REWARD: body}
        if isinstance(body, dict):
            inner = next((body[name] for name in ("rewards", "scores") if isinstance(body.get(name), dict)), body)
            known = _without_missing(inner)
            if known and all(map(is_number, known.values())):
                return known
            single = {name: body[name] for name in (_REWARD, "score") if is_number(body.get(name))}
            if len(single) == 1:
                return single
        raise PydanticCustomError("numbers", "expected a number or an object of numbers")


class Endpoint:
    """A server that gets a prompt, a completion and an id as JSON, and returns one number or several.

    The prompt is messages; the completion is text or, if the example has them, messages. Equal texts are sent once,
    with one of their ids.
    """

    def __init__(self, address: str, *, api_key_env: str = "", timeout: float = 60.0) -> None:
        self.address = address
        self.client = ApiClient(address, api_key_env, timeout)
        self.traits = Traits(f"endpoint {address}", waits=True, usual=_REWARD, varies=True)

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        return score_each(self._reply, examples)

    def _reply(self, example: Example) -> Reply:
        body = {"prompt": as_messages(example.prompt), "completion": example.completion, "id": example.id}
        return self.client.ask(self.address, body, _Numbers).root


def _check_input(given: str) -> None:
    if given not in ("", _CHAT, _COMPLETION):
        raise ConfigError(f"`input: {given}` is unknown to this scorer; use `input: {_CHAT}` or `{_COMPLETION}`")


def _without_missing(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores without those that are null."""
    return {name: number for name, number in scores.items() if number is not None}
