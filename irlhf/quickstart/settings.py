"""Settings of `irlhf quickstart`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class QuickstartSettings:
    """How large the demonstration is. Its figures hold for these values; smaller ones show the way alone."""

    seed: int = 0
    rows: int = 10_000  # dialogues
    epochs: float = 6
    prompts: int = 120  # held-out prompts that are asked, eight targets each


DECODING = "--temperature 0.7 --guidance 2 --against opposite"  # of a pretrained policy's answers


@dataclass(frozen=True)
class PretrainedSettings:
    """How large the demonstration is. `limit` takes the first prompts only; 0 is all."""

    seed: int = 0
    limit: int = 0
    samples: int = 8  # of each prompt
    max_tokens: int = 48
    epochs: float = 0.8
