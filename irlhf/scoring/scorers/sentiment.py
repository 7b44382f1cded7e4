"""The reward `sentiment`, from a lexicon that others keep."""

import re
from collections.abc import Sequence

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from irlhf.core.example import Example, as_text
from irlhf.scoring.scorers.base import Failure, Reply, Traits

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Sentiment:
    """How positive the completion's sentences are on average, from -1 to 1.

    Each sentence's compound score by VADER (Hutto and Gilbert 2014), a lexicon with rules for negation and
    emphasis. The mean over sentences does not run into the ends as a whole text's compound does.
    """

    traits = Traits()

    def __init__(self) -> None:
        self.vader = SentimentIntensityAnalyzer()

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Score each completion; an empty one is neutral."""
        return [{"compound": self._mean(as_text(example.completion))} for example in examples]

    def _mean(self, text: str) -> float:
        scores = [self.vader.polarity_scores(sentence)["compound"] for sentence in _SENTENCE_END.split(text.strip())]
        return float(sum(scores) / len(scores))
