"""One sample to draw, and one completion that was drawn."""

from typing import NamedTuple, Protocol

from irlhf.core.example import Content, Example
from irlhf.policy.templates import RequestedValue


class SampleRequest(NamedTuple):
    """One sample that is to be drawn, all but the completion known."""

    id: str
    seed: int
    source: Example
    prompt_values: dict[str, RequestedValue]
    target: dict[str, str]
    wanted: dict[str, float]

    @property
    def prompt(self) -> Content:
        """The prompt, without rewards."""
        return self.source.prompt


class Generation(Protocol):
    """What an engine says of one completion; None is what it does not know."""

    text: str
    finish: str
    tokens: int | None
    entropy: float | None
    entropy_low: float | None
    entropy_high: float | None
    logprob: float | None
    censored: int | None
    reference: float | None
    k3: float | None
