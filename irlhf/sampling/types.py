"""The request for one sample, and one generated completion."""

from typing import NamedTuple, Protocol

from irlhf.core.example import Content, Example
from irlhf.policy.templates import RequestedValue

CUT = "shortened at the beginning to fit the context"  # note on a prompt


class SampleRequest(NamedTuple):
    """The request for one sample."""

    id: str
    seed: int
    source: Example
    prompt_values: dict[str, RequestedValue]
    target: dict[str, str]
    wanted: dict[str, float]

    @property
    def prompt(self) -> Content:
        """The prompt without rewards."""
        return self.source.prompt


class Generation(Protocol):
    """One completion; values that the engine does not know are None."""

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
    notes: tuple[str, ...]  # what happened to the prompt
