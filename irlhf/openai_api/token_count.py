"""Estimate the tokens of texts for a host: with the base's own tokenizer if it is on this machine, else by bytes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlhf.openai_api.endpoint import BYTES_PER_TOKEN

_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class TokenCounter:
    """Counts the tokens of a text.

    Most providers do not publish their tokenizers. Four bytes of UTF-8 a token is about right for English, and within
    a factor of two for other scripts, where four characters are not.
    """

    tokenizer: Any = None

    def __call__(self, text: str) -> int:
        """Return the number of tokens."""
        if self.tokenizer is None:
            return len(text.encode(errors="replace")) // BYTES_PER_TOKEN
        return len(self.tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False).ids)

    @property
    def accuracy(self) -> str:
        """How the tokens are counted, and how wrong the count may be."""
        if self.tokenizer is None:
            return "estimated from bytes, ± a third in English, up to a factor of 2 in other languages"
        return "counted with the base's tokenizer, plus 4 for each message"


def token_counter(base: str) -> TokenCounter:
    """Return a counter with the tokenizer of a base in a folder or in the Hub's cache, without any network."""
    from huggingface_hub import try_to_load_from_cache

    path: Any = Path(base).expanduser() / _TOKENIZER
    if not path.is_file():
        try:
            path = try_to_load_from_cache(base, _TOKENIZER)
        except ValueError:  # a name that no repository can have, such as ft:gpt-4.1-mini:someone::id
            path = None
    if not isinstance(path, str | Path):
        return TokenCounter()
    from tokenizers import Tokenizer

    return TokenCounter(Tokenizer.from_file(str(path)))
