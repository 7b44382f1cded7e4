"""Sample a policy through a chat API. The rewards are written into the messages here, as in training."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Lock

from irlhf.core.errors import DataError
from irlhf.openai_api.model_client import ModelClient
from irlhf.openai_api.server_logprobs import Completion, FailedCompletion
from irlhf.policy.escaping import ALLOWED
from irlhf.policy.policy_file import Policy
from irlhf.sampling.messages import MessageWriter, PromptMessages, served_by
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest

_LONG = 4000  # characters, about 1,024 tokens, the minimum that hosts cache
_PROMPTS = 1000  # number of prompts remembered; the requests of one prompt are consecutive


class Ahead:
    """Sends the first request of a prompt before the others, so that these hit the server's prompt cache."""

    def __init__(self) -> None:
        self.answered: dict[str, Event] = {}
        self.lock = Lock()

    @contextmanager
    def turn(self, prompt: str) -> Iterator[None]:
        """Return at once for the first request of a prompt; for the others, wait until it is answered."""
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
    """A policy on a server. Reads its policy.json and its tokenizer, if there is one, but no weights."""

    def __init__(self, folder: Path, policy: Policy, settings: SampleSettings, spent: Counter[str]) -> None:
        writer = hosted_writer(policy, settings) if policy.hosted else _local_writer(folder, policy, settings)
        served = served_by(settings, writer.vocabulary)
        self.write, self.answer = writer.write, writer.answer
        self.client = ModelClient(served, settings.concurrency, spent, extra=writer.extra)
        self.ahead = Ahead()
        self.lock = Lock()  # tokenizers are not thread-safe

    def __call__(
        self, requests: Sequence[SampleRequest], advance: Callable[[int], None]
    ) -> list[Completion | FailedCompletion]:
        """Return the result of each request, in order. All have the same prompt and are sent as one API request."""
        with self.lock:
            written = self.write(requests[0])
        if isinstance(written, FailedCompletion):
            advance(len(requests))
            return [written] * len(requests)
        long = sum(len(message.get("content") or "") for message in written.messages) >= _LONG
        with self.ahead.turn(requests[0].source.cluster) if long else nullcontext():
            seeds = [request.seed for request in requests]
            completions = self.client.chat(written.messages, seeds, written.size, written.tools)
        advance(len(requests))
        return [
            each
            if isinstance(each, FailedCompletion)
            else each._replace(text=self.answer(each.text), notes=written.notes)
            for each in completions
        ]


def _local_writer(folder: Path, policy: Policy, settings: SampleSettings) -> MessageWriter:
    from irlhf.sampling.completions_backend import writer  # loads transformers

    return writer(folder, policy, settings)


def hosted_writer(policy: Policy, settings: SampleSettings) -> MessageWriter:
    """Return the writer for a hosted policy, whose messages are those of the training file."""
    names = () if settings.spoof == ALLOWED else policy.names

    def write(request: SampleRequest) -> PromptMessages | FailedCompletion:
        try:
            messages = policy.template.render(request.prompt, request.prompt_values, names)
            return PromptMessages(messages, tools=request.source.tools)
        except DataError as error:
            return FailedCompletion(str(error))

    return MessageWriter(write)
