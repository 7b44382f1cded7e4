"""Rewards that a rule computes from the text alone."""

import json
from collections.abc import Callable, Mapping, Sequence

import regex

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, as_text
from irlhf.core.registry import did_you_mean
from irlhf.scoring.scorers.base import Failure, Reply, Traits

_LONGEST = 9  # words of an n-gram
_PATIENCE = 2.0  # seconds that a pattern has for one text; an honest one takes microseconds

_WORD = regex.compile(r"\w+(?:['\u2019]\w+)*")


class Length:
    """The number of words of the completion."""

    traits = Traits()

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Count the words, parted by white space."""
        return [{"words": float(len(as_text(example.completion).split()))} for example in examples]


class Distinct:
    """The share of different n-grams among the completion's n-grams of words: 1 where none stands twice.

    distinct-n after Li et al. 2016 (who divide by the words of a whole corpus). `distinct:1` looks at words and
    `distinct:2`, the default, at pairs, in lower case and without punctuation. A text of fewer than n words has no
    n-gram: 1 would reward silence, 0 punish it, and neither was measured, so it fails.
    """

    traits = Traits()

    def __init__(self, size: str) -> None:
        sizes = {str(size): size for size in range(1, _LONGEST + 1)}
        if size and size not in sizes:
            raise ConfigError(f"distinct takes how many words are looked at together, 1 to {_LONGEST}, not '{size}'")
        self.size = sizes.get(size, 2)

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Return each completion's share."""
        return [self._share(as_text(example.completion)) for example in examples]

    def _share(self, text: str) -> Reply | Failure:
        words = _WORD.findall(text.lower())
        grams = list(zip(*(words[start:] for start in range(self.size)), strict=False))
        if not grams:
            return Failure(f"{len(words)} words are too few for distinct:{self.size}", DataError)
        return {f"distinct-{self.size}": len(set(grams)) / len(grams)}


class Regex:
    """How many times a pattern is found in the completion, places that do not overlap.

    Patterns are those of the regex package: Python's, and some more. White space before the pattern is not part of
    it. A pattern of nested repeats can take years on a text that somebody made for it, so a text that it takes too
    long on fails.
    """

    traits = Traits()

    def __init__(self, pattern: str) -> None:
        written = pattern.lstrip()
        if not written:
            raise ConfigError("regex needs the pattern to count, as in 'regex:(?i)sorry'")
        if "\b" in written:
            raise ConfigError(r"a backspace stands in the pattern; in YAML, \b wants 'single quotes'")
        try:
            self.pattern = regex.compile(written)
        except (regex.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"the pattern cannot be read: {error}") from error

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Count the places in each completion."""
        return [self._count(as_text(example.completion)) for example in examples]

    def _count(self, text: str) -> Reply | Failure:
        try:
            return {"found": float(sum(1 for _ in self.pattern.finditer(text, timeout=_PATIENCE)))}
        except TimeoutError:
            return Failure(f"the pattern takes over {_PATIENCE:g} s on this text; write it without nested repeats")


class Format:
    """1 where the whole completion is of a format, else 0.

    `format:json` is one JSON value with nothing but white space about it: a fence or a word before it makes it 0, and
    so does NaN, which Python's own parser takes. A bare number is JSON too.
    """

    traits = Traits()

    def __init__(self, name: str) -> None:
        if name not in _FORMATS:
            raise ConfigError(f"no format '{name}'{did_you_mean(name, _FORMATS)}")
        self.name = name

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Look at each completion."""
        return [{self.name: float(_FORMATS[self.name](as_text(example.completion)))} for example in examples]


def _is_json(text: str) -> bool:
    try:
        # Numbers stay text: how many digits Python would take is not the question.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):  # nested beyond what most readers take
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_FORMATS: Mapping[str, Callable[[str], bool]] = {"json": _is_json}
