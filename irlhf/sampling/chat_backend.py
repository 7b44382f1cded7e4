"""Sample a policy on a server with chat messages: the rewards are written into them here, as in training."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Lock

from irlhf.openai_api.model_client import ModelClient
from irlhf.openai_api.server_logprobs import Completion, FailedCompletion
from irlhf.policy.escaping import ALLOWED
from irlhf.policy.policy_file import Policy
from irlhf.sampling.messages import MessageWriter, PromptMessages, served_by
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest

_LONG = 4000  # characters, about the 1,024 tokens from which hosts cache the beginning of a prompt
_PROMPTS = 1000  # that are remembered; requests for one prompt follow each other


class Ahead:
    """Sends one request for a prompt before the others, so that these find its beginning in the server's cache."""

    def __init__(self) -> None:
        self.answered: dict[str, Event] = {}
        self.lock = Lock()

    @contextmanager
    def turn(self, prompt: str) -> Iterator[None]:
        """Go first, or wait until the first request is answered."""
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
    """A policy on a server. Its policy.json and, if there is one, its tokenizer are read; its weights are not."""

    def __init__(self, folder: Path, policy: Policy, settings: SampleSettings, spent: Counter[str]) -> None:
        writer = hosted_writer(policy, settings) if policy.hosted else _local_writer(folder, policy, settings)
        served = served_by(settings, writer.vocabulary)
        self.write = writer.write
        self.client = ModelClient(served, settings.concurrency, spent, extra=writer.extra)
        self.ahead = Ahead()
        self.lock = Lock()  # tokenizers are for one thread at a time

    def __call__(
        self, asks: Sequence[SampleRequest], advance: Callable[[int], None]
    ) -> list[Completion | FailedCompletion]:
        """Return the result of each request, in order. All share one prompt, and are one request."""
        with self.lock:
            written = self.write(asks[0])
        long = sum(len(message.get("content") or "") for message in written.messages) >= _LONG
        with self.ahead.turn(asks[0].source.cluster) if long else nullcontext():
            completions = self.client.chat(written.messages, [ask.seed for ask in asks], written.size)
        advance(len(asks))
        return completions


def _local_writer(folder: Path, policy: Policy, settings: SampleSettings) -> MessageWriter:
    from irlhf.sampling.completions_backend import writer  # loads transformers

    return writer(folder, policy, settings)


def hosted_writer(policy: Policy, settings: SampleSettings) -> MessageWriter:
    """Return the writer for a host that trained the policy: it writes the messages of the training file."""
    names = () if settings.spoof == ALLOWED else policy.names
    return MessageWriter(lambda ask: PromptMessages(policy.template.render(ask.prompt, ask.prompt_values, names)))
