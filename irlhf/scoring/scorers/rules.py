"""Rewards that a rule computes from the text alone."""

import json
from collections.abc import Callable, Mapping, Sequence

import regex

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, as_text
from irlhf.core.registry import did_you_mean
from irlhf.scoring.scorers.base import Failure, Reply, Traits

_LONGEST = 9  # largest n of n-grams
_PATIENCE = 2.0  # time limit in seconds of a pattern on one text; usual patterns take microseconds

_WORD = regex.compile(r"\w+(?:['\u2019]\w+)*")


class Length:
    """The number of words of the completion, separated by white space."""

    traits = Traits()

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        return [{"words": float(len(as_text(example.completion).split()))} for example in examples]


class Distinct:
    """The share of distinct n-grams among all n-grams of words, in (0, 1]; 1 if none is repeated.

    distinct-n of Li et al. (2016), who divide by the number of words of a corpus. `distinct:1` counts words and
    `distinct:2`, the default, pairs of words, in lower case and without punctuation. A text of fewer than n words has
    no n-grams and fails.
    """

    traits = Traits()

    def __init__(self, size: str) -> None:
        sizes = {str(size): size for size in range(1, _LONGEST + 1)}
        if size and size not in sizes:
            raise ConfigError(f"distinct needs the size of the n-grams, 1 to {_LONGEST}, not '{size}'")
        self.size = sizes.get(size, 2)

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        return [self._share(as_text(example.completion)) for example in examples]

    def _share(self, text: str) -> Reply | Failure:
        words = _WORD.findall(text.lower())
        grams = list(zip(*(words[start:] for start in range(self.size)), strict=False))
        if not grams:
            return Failure(f"{len(words)} words are too few for distinct:{self.size}", DataError)
        return {f"distinct-{self.size}": len(set(grams)) / len(grams)}


class Regex:
    """The number of non-overlapping matches of a pattern in the completion.

    The syntax is that of the regex package, an extension of Python's. White space before the pattern is ignored. A
    pattern with nested repeats can take exponential time on some texts; such a text fails after a time limit.
    """

    traits = Traits()

    def __init__(self, pattern: str) -> None:
        written = pattern.lstrip()
        if not written:
            raise ConfigError("regex needs the pattern to count, as in 'regex:(?i)sorry'")
        if "\b" in written:
            raise ConfigError(r"the pattern contains a backspace; in YAML, put \b in 'single quotes'")
        try:
            self.pattern = regex.compile(written)
        except (regex.error, RecursionError, OverflowError) as error:
            raise ConfigError(f"invalid pattern: {error}") from error

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        return [self._count(as_text(example.completion)) for example in examples]

    def _count(self, text: str) -> Reply | Failure:
        try:
            return {"found": float(sum(1 for _ in self.pattern.finditer(text, timeout=_PATIENCE)))}
        except TimeoutError:
            return Failure(f"the pattern takes over {_PATIENCE:g} s on this text; remove nested repeats")


class Format:
    """1 if the whole completion is valid in a format, else 0.

    `format:json` requires one JSON value (a plain number is one) surrounded only by white space. A code fence or text
    before it gives 0, and so does NaN, which Python's parser accepts.
    """

    traits = Traits()

    def __init__(self, name: str) -> None:
        if name not in _FORMATS:
            raise ConfigError(f"no format '{name}'{did_you_mean(name, _FORMATS)}")
        self.name = name

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        return [{self.name: float(_FORMATS[self.name](as_text(example.completion)))} for example in examples]


def _is_json(text: str) -> bool:
    try:
        # Keep numbers as text, because Python limits the digits of integers.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):  # RecursionError: nested too deeply
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_FORMATS: Mapping[str, Callable[[str], bool]] = {"json": _is_json}
