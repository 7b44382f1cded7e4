"""The reward `sentiment`, from the VADER lexicon."""

import re
from collections.abc import Sequence

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from irlhf.core.example import Example, as_text
from irlhf.scoring.scorers.base import Failure, Reply, Traits

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Sentiment:
    """The mean sentiment of the completion's sentences, from -1 (negative) to 1 (positive).

    The compound score of VADER (Hutto and Gilbert 2014), a lexicon with rules for negation and emphasis. The mean over
    sentences does not saturate as the compound score of a long text does.
    """

    traits = Traits()

    def __init__(self) -> None:
        self.vader = SentimentIntensityAnalyzer()

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Return the score of each completion; an empty one is neutral (0)."""
        return [{"compound": self._mean(as_text(example.completion))} for example in examples]

    def _mean(self, text: str) -> float:
        scores = [self.vader.polarity_scores(sentence)["compound"] for sentence in _SENTENCE_END.split(text.strip())]
        return float(sum(scores) / len(scores))
