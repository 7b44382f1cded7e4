"""Draw from a policy that a server holds; prompts are rendered, disarmed and cut here, as for a policy at hand."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

from irlhf.core import console
from irlhf.core.example import LENGTH
from irlhf.models.chat_template import AS_WRITTEN
from irlhf.models.chat_template_writer import knows_rewards
from irlhf.models.loading import load_speaker, vocabulary_of
from irlhf.openai_api.completions import CompletionsClient
from irlhf.openai_api.server_logprobs import TOPS, Completion
from irlhf.policy.policy_file import Policy
from irlhf.sampling.messages import MessageWriter, PromptMessages, served_by
from irlhf.sampling.prompts import prompts_for
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest


def writer(folder: Path, policy: Policy, settings: SampleSettings) -> MessageWriter:
    """Return how a chat's server is asked that holds the folder: as a policy at hand, cut to its context as well.

    Its chat template may be the one of the folder, which takes what looks like a reward for a user's.
    """
    name = str(folder)
    speaker = load_speaker(name)
    prompts = prompts_for(name, speaker, policy, policy.context, settings)

    def write(ask: SampleRequest) -> PromptMessages:
        turns, size = prompts.fitted(ask)
        return PromptMessages(prompts.chat.messages(turns, ask.prompt_values), size)

    extra = {"chat_template_kwargs": dict(AS_WRITTEN)} if knows_rewards(folder) else {}
    return MessageWriter(write, vocabulary_of(name, speaker), extra)


class CompletionsBackend:
    """A policy behind a URL. Of its folder the card and the tokenizer are read, and no weights."""

    def __init__(self, folder: Path, policy: Policy, settings: SampleSettings) -> None:
        name = str(folder)
        speaker = load_speaker(name)
        self.prompts = prompts_for(name, speaker, policy, policy.context, settings)
        self.completions = CompletionsClient(served_by(settings, vocabulary_of(name, speaker)))
        self.lock = Lock()  # tokenizers are for one thread at a time
        self.reported: set[str] = set()

    def __call__(self, asks: Sequence[SampleRequest], advance: Callable[[int], None]) -> list[Completion]:
        """Return one completion for each ask, in their order; `advance` counts them as they come."""
        completions = []
        for ask in asks:
            with self.lock:
                prompt = self.prompts(ask, ask.prompt_values)
            completions.append(self.completions(prompt, ask.seed))
            self._tell(completions[-1])
            advance(1)
        return completions

    def _tell(self, drawn: Completion) -> None:
        """Say once what nobody would look for in the rows."""
        served, top = self.completions.served, self.completions.top
        if served.untouched and drawn.logprob is None:
            self._warn("the server did not give the logprob of every token; rows of which it did not have none")
        elif served.untouched and drawn.entropy_low is None:
            self._warn("the server did not list the likeliest tokens; rows do not say what entropy lies between")
        elif served.untouched and top < TOPS[0]:
            self._warn(f"the server lists {top} of the likeliest tokens at most, so entropy lies between wide bounds")
        if drawn.finish == LENGTH and drawn.tokens is not None and drawn.tokens < served.max_tokens:
            self._warn(f"the server ended completions before {served.max_tokens} tokens: its context is too short")

    def _warn(self, text: str) -> None:
        with self.lock:
            if text not in self.reported:
                self.reported.add(text)
                console.warn(text)
