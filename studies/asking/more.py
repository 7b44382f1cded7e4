"""One more reward for the studies of asking: how long the words are."""

import re
from collections.abc import Sequence

from irlhf.core.example import Example, as_text


def letters(examples: Sequence[Example]) -> list[float]:
    """Return the mean number of letters in a word."""
    words = [re.findall(r"[a-z']+", as_text(example.completion).lower()) for example in examples]
    return [sum(map(len, mine)) / max(1, len(mine)) for mine in words]
