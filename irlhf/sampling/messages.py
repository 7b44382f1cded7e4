"""Messages and model settings of requests to a server."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from irlhf.core.example import Message
from irlhf.openai_api.server_logprobs import FailedCompletion, ServedModel
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest


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


def served_by(settings: SampleSettings, vocabulary: int | None) -> ServedModel:
    """Return the server, the model and the sampling parameters of the settings."""
    return ServedModel(
        settings.base_url,
        settings.served_name,
        settings.api_key_env,
        settings.temperature,
        settings.top_p,
        settings.max_tokens,
        vocabulary,
    )
