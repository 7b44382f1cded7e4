"""Rewards that a rule computes from the text alone."""

from collections.abc import Sequence

from irlhf.records import Example, as_text
from irlhf.score.scorers import Failure, Reply, Traits


class Length:
    """The number of words of the completion."""

    traits = Traits()

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Count the words, parted by white space."""
        return [{"words": float(len(as_text(example.completion).split()))} for example in examples]
