"""Sample a policy through a completions API with token ids. Prompts are encoded here, as for a local policy."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock

from irlhf.models.chat_template import AS_WRITTEN
from irlhf.models.chat_template_writer import knows_rewards
from irlhf.models.loading import load_speaker, vocabulary_of
from irlhf.models.turn_probe import turn_format
from irlhf.openai_api.model_client import ModelClient
from irlhf.openai_api.server_logprobs import Completion, FailedCompletion
from irlhf.policy.policy_file import Policy
from irlhf.sampling.messages import MessageWriter, PromptMessages, served_by
from irlhf.sampling.prompts import prompts_for
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest


def writer(folder: Path, policy: Policy, settings: SampleSettings) -> MessageWriter:
    """Return the writer for a chat server that serves the folder: messages as for a local policy, cut to its context.

    If the folder's chat template accepts rewards, each request tells it that they are already written.
    """
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


class CompletionsBackend:
    """A policy on a server. Reads its policy.json and its tokenizer, but no weights."""

    def __init__(self, folder: Path, policy: Policy, settings: SampleSettings, spent: Counter[str]) -> None:
        name = str(folder)
        speaker = load_speaker(name)
        self.prompts = prompts_for(name, speaker, policy, policy.context, settings)
        served = served_by(settings, vocabulary_of(name, speaker))
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
