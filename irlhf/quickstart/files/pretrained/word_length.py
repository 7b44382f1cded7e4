"""A reward of your own: a function that takes examples and returns one number for each. Change it and run again."""

import re

WORD = re.compile(r"[^\W\d_]+")


def plain(examples):
    """Minus the mean number of letters in a word: an answer in short everyday words gets a higher reward."""
    return [_plain(example.completion) for example in examples]


def _plain(text):
    words = WORD.findall(text)
    return -sum(map(len, words)) / len(words) if words else 0.0
