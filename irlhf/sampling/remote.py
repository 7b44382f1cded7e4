"""Sample a policy on a server: through a chat API with messages, or a completions API with token ids.

The rewards are written into the prompts here, as in training, and no weights are loaded.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import Any, NamedTuple

from irlhf.core.errors import DataError
from irlhf.core.example import Message
from irlhf.openai_api.model_client import ModelClient
from irlhf.openai_api.server_logprobs import Completion, FailedCompletion, ServedModel
from irlhf.policy.escaping import ALLOWED
from irlhf.policy.policy_file import Policy
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest

_LONG = 4000  # characters, about 1,024 tokens, the minimum that hosts cache
_PROMPTS = 1000  # number of prompts remembered; the requests of one prompt are consecutive


class PromptMessages(NamedTuple):
    """The messages of one request."""

    messages: list[Message]
    size: int | None = None  # prompt tokens, if the tokenizer is local
    tools: Sequence[Any] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MessageWriter:
    """Writes the messages of a request, with extra fields for the server."""

    write: Callable[[SampleRequest], PromptMessages | FailedCompletion]
    vocabulary: int | None = None  # size of the vocabulary; None if unknown
    extra: Mapping[str, object] = field(default_factory=dict)  # extra fields of a request
    answer: Callable[[str], str] = str  # removes what the chat template adds to an answer


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


def folder_writer(folder: Path, policy: Policy, settings: SampleSettings) -> MessageWriter:
    """Return the writer for a chat server that serves the folder: messages as for a local policy, cut to its context.

    If the folder's chat template accepts rewards, each request tells it that they are already written.
    """
    from irlhf.models.chat_template import AS_WRITTEN
    from irlhf.models.chat_template_writer import knows_rewards
    from irlhf.models.loading import load_speaker, vocabulary_of
    from irlhf.models.turn_probe import turn_format
    from irlhf.sampling.prompts import prompts_for

    name = str(folder)
    speaker = load_speaker(name)
    # The chat template of a base, or of a policy of an earlier version, does not open an answer.
    turns = policy.turns or replace(turn_format(speaker), thoughts=True)
    prompts = prompts_for(name, speaker, replace(policy, turns=turns), policy.context, settings)

    def write(request: SampleRequest) -> PromptMessages | FailedCompletion:
        encoded = prompts.encoded(request)
        if isinstance(encoded, FailedCompletion):
            return encoded
        messages = prompts.chat.messages(encoded.turns, request.prompt_values)
        return PromptMessages(messages, len(encoded.ids), request.source.tools, encoded.notes)

    extra = {"chat_template_kwargs": dict(AS_WRITTEN)} if knows_rewards(folder) else {}
    return MessageWriter(write, vocabulary_of(name, speaker), extra, turns.answer)


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
    """A policy on a chat server. Reads its policy.json and its tokenizer, if there is one."""

    def __init__(self, folder: Path, policy: Policy, settings: SampleSettings, spent: Counter[str]) -> None:
        self.writer = hosted_writer(policy, settings) if policy.hosted else folder_writer(folder, policy, settings)
        served = _served(settings, self.writer.vocabulary)
        self.client = ModelClient(served, settings.concurrency, spent, extra=self.writer.extra)
        self.ahead = Ahead()
        self.lock = Lock()  # tokenizers are not thread-safe

    def __call__(
        self, requests: Sequence[SampleRequest], advance: Callable[[int], None]
    ) -> list[Completion | FailedCompletion]:
        """Return the result of each request, in order. All have the same prompt and are sent as one API request."""
        with self.lock:
            written = self.writer.write(requests[0])
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
            else each._replace(text=self.writer.answer(each.text), notes=written.notes)
            for each in completions
        ]


class CompletionsBackend:
    """A policy on a server of completions. Reads its policy.json and its tokenizer, and encodes the prompts."""

    def __init__(self, folder: Path, policy: Policy, settings: SampleSettings, spent: Counter[str]) -> None:
        from irlhf.models.loading import load_speaker, vocabulary_of
        from irlhf.sampling.prompts import prompts_for

        name = str(folder)
        speaker = load_speaker(name)
        self.prompts = prompts_for(name, speaker, policy, policy.context, settings)
        served = _served(settings, vocabulary_of(name, speaker))
        self.client = ModelClient(served, settings.concurrency, spent, chat=False)
        self.lock = Lock()  # tokenizers are not thread-safe

    def __call__(
        self, requests: Sequence[SampleRequest], advance: Callable[[int], None]
    ) -> list[Completion | FailedCompletion]:
        """Return one completion per request, in order; `advance` is called for each."""
        completions: list[Completion | FailedCompletion] = []
        for request in requests:
            with self.lock:
                prompt = self.prompts.encoded(request)
            if isinstance(prompt, FailedCompletion):
                completions.append(prompt)
            else:
                drawn = self.client.complete(prompt.ids, request.seed)
                text = self.prompts.chat.turn_format.answer(drawn.text)
                completions.append(drawn._replace(text=text, notes=prompt.notes))
            advance(1)
        return completions


def _served(settings: SampleSettings, vocabulary: int | None) -> ServedModel:
    return ServedModel(
        settings.base_url,
        settings.served_name,
        settings.api_key_env,
        settings.temperature,
        settings.top_p,
        settings.max_tokens,
        vocabulary,
    )
