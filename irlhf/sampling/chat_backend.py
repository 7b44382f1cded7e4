"""Draw from a policy that a server holds, over chat: the rewards are written into the messages here, as in training."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import NamedTuple

from irlhf.core.example import Message
from irlhf.core.registry import resolve
from irlhf.openai_api.chat_completions import ChatClient
from irlhf.openai_api.server_logprobs import Completion, FailedCompletion, ServedModel
from irlhf.policy.escaping import ALLOWED
from irlhf.policy.policy_file import Policy
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest

_LONG = 4000  # characters, about the 1,024 tokens from which on hosts keep the beginning of a prompt
_PROMPTS = 1000  # that are remembered; the requests of one come one after the other


class PromptMessages(NamedTuple):
    """What is sent of one ask."""

    messages: list[Message]
    size: int | None = None  # tokens that the model sees of them, where its tokenizer is here


@dataclass(frozen=True)
class MessageWriter:
    """How asks become messages, and what else a server is to know."""

    write: Callable[[SampleRequest], PromptMessages]
    vocabulary: int | None = None  # tokens that the model can say at most; None where nobody tells
    extra: Mapping[str, object] = field(default_factory=dict)  # fields of a request


def served_by(settings: SampleSettings, vocabulary: int | None) -> ServedModel:
    """Return which model of which server is asked, and how it draws."""
    return ServedModel(
        settings.base_url,
        settings.served_name,
        settings.api_key_env,
        settings.temperature,
        settings.top_p,
        settings.max_tokens,
        vocabulary,
    )


class Ahead:
    """Lets one request of a prompt go ahead of its others, so that these find its beginning in the server's cache."""

    def __init__(self) -> None:
        self.answered: dict[str, Event] = {}
        self.lock = Lock()

    @contextmanager
    def turn(self, prompt: str) -> Iterator[None]:
        """Go ahead, or wait until the one that does is back."""
        with self.lock:
            first = prompt not in self.answered
            event = self.answered.setdefault(prompt, Event())
            if len(self.answered) > _PROMPTS:
                del self.answered[next(iter(self.answered))]
        if not first:
            event.wait()
        try:
            yield
        finally:
            event.set()


class ChatBackend:
    """A policy behind a URL. Of its folder the card is read and, where it has one, the tokenizer; and no weights."""

    def __init__(self, folder: Path, policy: Policy, settings: SampleSettings, spent: Counter[str]) -> None:
        door = "irlhf.sampling.chat_backend:hosted" if policy.hosted else "irlhf.sampling.completions_backend:writer"
        writer: MessageWriter = resolve(door)(folder, policy, settings)
        served = served_by(settings, writer.vocabulary)
        self.write = writer.write
        self.client = ChatClient(served, settings.concurrency, writer.extra, spent)
        self.ahead = Ahead()
        self.lock = Lock()  # tokenizers are for one thread at a time

    def __call__(
        self, asks: Sequence[SampleRequest], advance: Callable[[int], None]
    ) -> list[Completion | FailedCompletion]:
        """Return what came of each ask, in their order. All are one request: one prompt, asked for the same."""
        with self.lock:
            written = self.write(asks[0])
        long = sum(len(message.get("content") or "") for message in written.messages) >= _LONG
        with self.ahead.turn(asks[0].source.cluster) if long else nullcontext():
            completions = self.client(written.messages, [ask.seed for ask in asks], written.size)
        advance(len(asks))
        return completions


def hosted(folder: Path, policy: Policy, settings: SampleSettings) -> MessageWriter:
    """Return how a host is asked that trained the policy on messages: with those of the training file."""
    names = () if settings.spoof == ALLOWED else policy.names
    return MessageWriter(lambda ask: PromptMessages(policy.template.render(ask.prompt, ask.prompt_values, names)))
