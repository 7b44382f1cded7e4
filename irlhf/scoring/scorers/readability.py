"""The reward `readability`: an index of textstat."""

from collections.abc import Sequence

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, as_text
from irlhf.scoring.scorers.base import Failure, Reply, Traits

try:
    import textstat
except ModuleNotFoundError as missing:
    raise ConfigError("readability needs textstat: pip install 'irlhf[text]'") from missing

# Indices of textstat that count letters, words and sentences. Those that count syllables, such as Flesch's, are left
# out because textstat downloads a dictionary for them.
_INDICES = ("automated_readability_index", "coleman_liau_index", "lix", "mcalpine_eflaw", "rix")


class Readability:
    """A readability index of textstat; higher means harder to read.

    textstat does not count sentences of one or two words. The indices are for English (lix and rix: for many languages)
    and for texts of several sentences. A text without words fails.
    """

    traits = Traits()

    def __init__(self, index: str) -> None:
        if index not in _INDICES:
            raise ConfigError(f"readability:INDEX must be one of {', '.join(_INDICES)}, not '{index}'")
        self.index = index

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        return [self._index(as_text(example.completion)) for example in examples]

    def _index(self, text: str) -> Reply | Failure:
        if not textstat.lexicon_count(text):
            return Failure("no words to read", DataError)
        return {self.index: float(getattr(textstat, self.index)(text))}
