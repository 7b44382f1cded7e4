"""Encode requests as token ids, for every backend with a local tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Message
from irlhf.models.prompt_encoding import PromptEncoder, Tokens
from irlhf.policy.escaping import ALLOWED
from irlhf.policy.policy_file import Policy
from irlhf.policy.templates import PLAIN, RequestedValue, find_template
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest


@dataclass(frozen=True)
class Prompts:
    """Encodes prompts for one policy or base model."""

    chat: PromptEncoder
    room: int  # maximum prompt tokens

    def __call__(self, request: SampleRequest, requested: Mapping[str, RequestedValue]) -> list[int]:
        """Return the prompt of a request as token ids, with these rewards. Raises DataError."""
        return self._fitted(request, requested).ids

    def fitted(self, request: SampleRequest) -> tuple[list[Message], int]:
        """Return the turns that fit, without rewards, and the prompt tokens with rewards. Raises DataError."""
        tokens = self._fitted(request, request.prompt_values)
        return tokens.turns, len(tokens.ids)

    def _fitted(self, request: SampleRequest, requested: Mapping[str, RequestedValue]) -> Tokens:
        try:
            return self.chat.prompt(request.prompt, requested, self.room)
        except DataError as error:
            raise DataError(f"{request.id}: {error}") from error


def prompts_for(name: str, tokenizer: Any, policy: Policy | None, context: int, settings: SampleSettings) -> Prompts:
    """Return the prompt encoder of a policy or, if `policy` is None, of a base model. Raises ConfigError."""
    template, names = (policy.template, policy.names) if policy else (find_template(PLAIN), ())
    room = context - settings.max_tokens
    if room <= 0:
        problem = f"--max-tokens {settings.max_tokens} leaves no room in a context of {context} tokens"
        raise ConfigError(f"{name}: {problem}")
    return Prompts(PromptEncoder(tokenizer, template, names, settings.spoof == ALLOWED), room)
