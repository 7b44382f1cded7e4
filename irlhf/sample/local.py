"""Draw from a policy's own weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irlhf.engines.chat import Chat
from irlhf.engines.generate import Decoding, Drawn, generate
from irlhf.engines.local import fitting_threads, load_causal
from irlhf.errors import ConfigError, DataError
from irlhf.policy import Policy

if TYPE_CHECKING:
    from irlhf.sample import Ask, SampleSettings


class LocalEngine:
    """A policy loaded into this process."""

    def __init__(self, folder: Path, policy: Policy, settings: "SampleSettings") -> None:
        self.model, self.tokenizer = load_causal(str(folder))
        self.model.eval()
        self.chat = Chat(self.tokenizer, policy.template, policy.names)
        self.batch = settings.batch
        self.decoding = Decoding(settings.temperature, settings.top_p, settings.max_tokens)
        self.room = policy.context - settings.max_tokens
        if self.room < 1:
            raise ConfigError(
                f"--max-tokens {settings.max_tokens} leaves no room in a context of {policy.context} tokens"
            )

    def __call__(self, asks: Sequence["Ask"], advance: Callable[[int], None]) -> list[Drawn]:
        """Return one completion for each ask, in their order; `advance` counts them as they come."""
        prompts = [self._tokens(ask) for ask in asks]
        order = sorted(range(len(asks)), key=lambda i: len(prompts[i]))
        drawn: dict[int, Drawn] = {}
        for start in range(0, len(order), self.batch):
            batch = order[start : start + self.batch]
            seeds = [asks[i].seed for i in batch]
            with fitting_threads(self.model):
                found = generate(self.model, self.tokenizer, [prompts[i] for i in batch], seeds, self.decoding)
            drawn.update(zip(batch, found, strict=True))
            advance(len(batch))
        return [drawn[i] for i in range(len(asks))]

    def _tokens(self, ask: "Ask") -> list[int]:
        try:
            return self.chat.prompt(ask.prompt, ask.asked, self.room).ids
        except DataError as error:
            raise DataError(f"{ask.id}: {error}") from error
