"""A custom reward: a function that takes examples and returns one number per example. Change it and run again."""

import re

WORD = re.compile(r"[^\W\d_]+")


def plain(examples):
    """Minus the mean number of letters per word: short everyday words get a higher reward."""
    return [_plain(example.completion) for example in examples]


def _plain(text):
    words = WORD.findall(text)
    return -sum(map(len, words)) / len(words) if words else 0.0
