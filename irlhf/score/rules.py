"""Rewards that a rule computes from the text alone."""

from collections.abc import Sequence

from irlhf.records import Example, as_text
from irlhf.rewards import Reward
from irlhf.score.scorers import Answer, Failure


class Length:
    """The number of words of the completion."""

    def __init__(self, name: str, argument: str, reward: Reward) -> None:
        self.name = name

    def __call__(self, examples: Sequence[Example]) -> list[Answer | Failure]:
        """Count the words, parted by white space."""
        return [{self.name: float(len(as_text(example.completion).split()))} for example in examples]
