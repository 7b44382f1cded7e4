"""The reward `readability`, by indices that others keep."""

from collections.abc import Sequence

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, as_text
from irlhf.scoring.scorers.base import Failure, Reply, Traits

try:
    import textstat
except ModuleNotFoundError as missing:
    raise ConfigError("readability needs textstat: pip install 'irlhf[text]'") from missing

# What textstat computes of letters, words and sentences. Flesch's and its kin count syllables, for which textstat
# fetches a dictionary from the network, and nothing here may need one.
_INDICES = ("automated_readability_index", "coleman_liau_index", "lix", "mcalpine_eflaw", "rix")


class Readability:
    """How hard the completion is to read by an index of textstat: the higher, the harder.

    Sentences of one or two words do not count as sentences there, and the indices were made for English (lix and rix:
    for many languages) and for texts of some sentences. A text without words fails.
    """

    traits = Traits()

    def __init__(self, index: str) -> None:
        if index not in _INDICES:
            raise ConfigError(f"readability:INDEX takes one of {', '.join(_INDICES)}, not '{index}'")
        self.index = index

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Return each completion's index."""
        return [self._index(as_text(example.completion)) for example in examples]

    def _index(self, text: str) -> Reply | Failure:
        if not textstat.lexicon_count(text):
            return Failure("no words to read", DataError)
        return {self.index: float(getattr(textstat, self.index)(text))}
