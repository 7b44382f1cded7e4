"""What is asked as token ids, whoever draws from a policy whose tokenizer is here."""

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
    """How prompts are put to one policy or base."""

    chat: PromptEncoder
    room: int  # tokens that a prompt may fill

    def __call__(self, ask: SampleRequest, requested: Mapping[str, RequestedValue]) -> list[int]:
        """Return the ask's prompt as token ids, with these rewards in it."""
        return self._fitted(ask, requested).ids

    def fitted(self, ask: SampleRequest) -> tuple[list[Message], int]:
        """Return what fits of the ask's conversation, without rewards, and how many tokens it is with them."""
        tokens = self._fitted(ask, ask.prompt_values)
        return tokens.turns, len(tokens.ids)

    def _fitted(self, ask: SampleRequest, requested: Mapping[str, RequestedValue]) -> Tokens:
        try:
            return self.chat.prompt(ask.prompt, requested, self.room)
        except DataError as error:
            raise DataError(f"{ask.id}: {error}") from error


def prompts_for(name: str, tokenizer: Any, policy: Policy | None, context: int, settings: SampleSettings) -> Prompts:
    """Return the way to ask a policy, or a base, which has no card and gets plain prompts. Raises ConfigError."""
    template, names = (policy.template, policy.names) if policy else (find_template(PLAIN), ())
    room = context - settings.max_tokens
    if room <= 0:
        problem = f"--max-tokens {settings.max_tokens} leaves no room in a context of {context} tokens"
        raise ConfigError(f"{name}: {problem}")
    return Prompts(PromptEncoder(tokenizer, template, names, settings.spoof == ALLOWED), room)
