"""Draw from a policy that a server holds, over chat: the rewards are written into the messages here, as in training."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Lock

from irlhf.openai_api.chat_completions import ChatClient
from irlhf.openai_api.server_logprobs import Completion, FailedCompletion
from irlhf.policy.escaping import ALLOWED
from irlhf.policy.policy_file import Policy
from irlhf.sampling.messages import MessageWriter, PromptMessages, served_by
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest

_LONG = 4000  # characters, about the 1,024 tokens from which on hosts keep the beginning of a prompt
_PROMPTS = 1000  # that are remembered; the requests of one come one after the other


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
        writer = hosted_writer(policy, settings) if policy.hosted else _local_writer(folder, policy, settings)
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


def _local_writer(folder: Path, policy: Policy, settings: SampleSettings) -> MessageWriter:
    from irlhf.sampling.completions_backend import writer  # loads transformers

    return writer(folder, policy, settings)


def hosted_writer(policy: Policy, settings: SampleSettings) -> MessageWriter:
    """Return how a host is asked that trained the policy on messages: with those of the training file."""
    names = () if settings.spoof == ALLOWED else policy.names
    return MessageWriter(lambda ask: PromptMessages(policy.template.render(ask.prompt, ask.prompt_values, names)))
