"""Encode requests as token ids, for every backend with a local tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Message
from irlhf.models.prompt_encoding import PromptEncoder
from irlhf.openai_api.server_logprobs import FailedCompletion
from irlhf.policy.escaping import ALLOWED
from irlhf.policy.policy_file import Policy
from irlhf.policy.templates import PLAIN, RequestedValue, find_template
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import CUT, SampleRequest


class EncodedPrompt(NamedTuple):
    """The prompt of a request as token ids, and what the user should know about it."""

    ids: list[int]
    turns: list[Message]  # that fit, without rewards
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Prompts:
    """Encodes prompts for one policy or base model."""

    chat: PromptEncoder
    room: int  # maximum prompt tokens

    def __call__(self, request: SampleRequest, requested: Mapping[str, RequestedValue]) -> list[int]:
        """Return the prompt of a request as token ids, with these rewards. Raises DataError."""
        try:
            return self.chat.prompt(request.prompt, requested, self.room, request.source.tools).ids
        except DataError as error:
            raise DataError(f"{request.id}: {error}") from error

    def encoded(self, request: SampleRequest) -> EncodedPrompt | FailedCompletion:
        """Return the prompt of a request with its rewards, or the reason why there is none."""
        try:
            tools = request.source.tools
            tokens = self.chat.prompt(request.prompt, request.prompt_values, self.room, tools)
            dropped = self.chat.dropped(request.prompt, tools)
        except DataError as error:
            return FailedCompletion(str(error))
        lost = (f"without {what}, which the chat template drops" for what in dropped)
        return EncodedPrompt(tokens.ids, tokens.turns, (*([CUT] if tokens.cut else []), *lost))


def prompts_for(name: str, tokenizer: Any, policy: Policy | None, context: int, settings: SampleSettings) -> Prompts:
    """Return the prompt encoder of a policy or, if `policy` is None, of a base model. Raises ConfigError."""
    template, names = (policy.template, policy.names) if policy else (find_template(PLAIN), ())
    room = context - settings.max_tokens
    if room <= 0:
        problem = f"--max-tokens {settings.max_tokens} leaves no room in a context of {context} tokens"
        raise ConfigError(f"{name}: {problem}")
    turns = policy.turns if policy else None
    return Prompts(PromptEncoder(tokenizer, template, names, settings.spoof == ALLOWED, turns), room)
