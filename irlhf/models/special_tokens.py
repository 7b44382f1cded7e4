"""Strings that a tokenizer reads as commands, and how user text is parted from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irlhf.policy.templates import Template


@dataclass(frozen=True)
class Specials:
    """Special tokens, in the order in which they are looked for.

    Reward lines that are tokens are many and alike, so they are kept as their ends, `lines`, around each of `values`.
    """

    words: tuple[str, ...]
    lines: tuple[tuple[str, str], ...] = ()
    values: tuple[str, ...] = ()

    def part(self, text: str) -> str:
        """Part the first character of every special token from its rest, so that it is read as text."""
        for word in self.words:
            if word in text:
                text = text.replace(word, parted(word))
        for before, after in self.lines:
            if before in text:
                for value in self.values:
                    text = text.replace(before + value + after, parted(before) + value + after)
        return text


def parted(token: str) -> str:
    """Return a token with a space behind its first character that is none."""
    first = len(token) - len(token.lstrip()) + 1
    return f"{token[:first]} {token[first:]}"


def specials_of(tokenizer: Any, template: Template, names: Sequence[str]) -> Specials:
    """Return what a tokenizer reads as commands. The longest come first, for a token may hold another."""
    words = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content}
    ends = {end for name in names for end in template.ends(name).values() if end[0].strip()}
    values: set[str] = set()
    lines = []
    for before, after in sorted(ends, key=lambda end: _longest("".join(end))):
        around = len(before) + len(after)
        own = {word for word in words if len(word) > around and word.startswith(before) and word.endswith(after)}
        command_words = {word[len(before) : len(word) - len(after)] for word in own}
        if own and values in (set(), command_words):
            values = command_words
            words -= own
            lines.append((before, after))
    return Specials(tuple(sorted(words, key=_longest)), tuple(lines), tuple(sorted(values, key=_longest)))


def _longest(text: str) -> tuple[int, str]:
    return -len(text), text
