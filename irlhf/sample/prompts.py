"""What is asked as token ids, whoever draws from a policy whose tokenizer is here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from irlhf.engines.chat import Chat, Tokens
from irlhf.errors import ConfigError, DataError
from irlhf.policy import Policy
from irlhf.records import Message
from irlhf.spoof import ALLOWED
from irlhf.templates import PLAIN, Wish, find_template

if TYPE_CHECKING:
    from irlhf.sample import Ask, SampleSettings


@dataclass(frozen=True)
class Prompts:
    """How prompts are put to one policy or base."""

    chat: Chat
    room: int  # tokens that a prompt may fill

    def __call__(self, ask: "Ask", asked: Mapping[str, Wish]) -> list[int]:
        """Return the ask's prompt as token ids, with these rewards in it."""
        return self._fitted(ask, asked).ids

    def fitted(self, ask: "Ask") -> tuple[list[Message], int]:
        """Return what fits of the ask's conversation, without rewards, and how many tokens it is with them."""
        tokens = self._fitted(ask, ask.asked)
        return tokens.turns, len(tokens.ids)

    def _fitted(self, ask: "Ask", asked: Mapping[str, Wish]) -> Tokens:
        try:
            return self.chat.prompt(ask.prompt, asked, self.room)
        except DataError as error:
            raise DataError(f"{ask.id}: {error}") from error


def prompts_for(name: str, tokenizer: Any, policy: Policy | None, context: int, settings: "SampleSettings") -> Prompts:
    """Return the way to ask a policy, or a base, which has no card and gets plain prompts. Raises ConfigError."""
    template, names = (policy.template, policy.names) if policy else (find_template(PLAIN), ())
    room = context - settings.max_tokens
    if room <= 0:
        told = f"--max-tokens {settings.max_tokens} leaves no room in a context of {context} tokens"
        raise ConfigError(f"{name}: {told}")
    return Prompts(Chat(tokenizer, template, names, settings.spoof == ALLOWED), room)
