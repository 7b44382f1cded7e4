"""Find the special tokens of a tokenizer, and split them in user text so that they are read as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irlhf.policy.templates import Template


@dataclass(frozen=True)
class Specials:
    """Special tokens, in search order.

    Reward lines that are tokens are stored compactly: the texts `lines` before and after each of `values`.
    """

    words: tuple[str, ...]
    lines: tuple[tuple[str, str], ...] = ()
    values: tuple[str, ...] = ()

    def part(self, text: str) -> str:
        """Insert a space after the first character of every special token, so that it is read as text."""
        for word in self.words:
            if word in text:
                text = text.replace(word, parted(word))
        for before, after in self.lines:
            if before in text:
                for value in self.values:
                    text = text.replace(before + value + after, parted(before) + value + after)
        return text


def parted(token: str) -> str:
    """Return a token with a space inserted after its first non-space character."""
    first = len(token) - len(token.lstrip()) + 1
    return f"{token[:first]} {token[first:]}"


def specials_of(tokenizer: Any, template: Template, names: Sequence[str]) -> Specials:
    """Return the special tokens of a tokenizer, longest first, because a token may contain another."""
    words = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content}
    ends = {end for name in names for end in template.ends(name).values() if end[0].strip()}
    values: set[str] = set()
    lines = []
    for before, after in sorted(ends, key=lambda end: _longest("".join(end))):
        around = len(before) + len(after)
        own = {word for word in words if len(word) > around and word.startswith(before) and word.endswith(after)}
        token_values = {word[len(before) : len(word) - len(after)] for word in own}
        if own and values in (set(), token_values):
            values = token_values
            words -= own
            lines.append((before, after))
    return Specials(tuple(sorted(words, key=_longest)), tuple(lines), tuple(sorted(values, key=_longest)))


def _longest(text: str) -> tuple[int, str]:
    return -len(text), text
