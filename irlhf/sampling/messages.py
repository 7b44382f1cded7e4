"""What is sent to a server that holds a policy: the messages of a request and the name of the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from irlhf.core.example import Message
from irlhf.openai_api.server_logprobs import ServedModel
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest


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
