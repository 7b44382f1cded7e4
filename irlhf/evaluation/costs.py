"""Costs of steering: entropy, KL from a reference, length, tokens, diversity."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from irlhf.core.bootstrap import Bootstrap
from irlhf.core.example import LENGTH, as_text
from irlhf.evaluation.arms import Arm
from irlhf.evaluation.entropy import NOT_AVAILABLE, entropy_and_kl, mean_figure

BUDGET = 1000  # words per chunk for distinct-n
UNIQUE_OF = 100  # completions per chunk for the share of distinct completions


def price(arm: Arm, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return entropy, KL, length, candidates and tokens drawn per kept sample, diversity and unfinished samples."""
    rows = arm.drawn
    tokens = [row.tokens for row in rows]
    spent = [row.spent if row.kept else row.tokens for row in rows]
    return {
        **entropy_and_kl(rows, bootstrap),
        "length": {
            "tokens": mean_figure(rows, lambda row: row.tokens, bootstrap) if None not in tokens else NOT_AVAILABLE,
            "words": mean_figure(rows, lambda row: len(as_text(row.completion).split()), bootstrap),
        },
        "cost": {
            "candidates": sum(row.candidates or 1 for row in rows) / len(rows),
            "tokens": sum(filter(None, spent)) / len(spent) if None not in spent else NOT_AVAILABLE,
        },
        "diversity": diversity([as_text(row.completion) for row in rows], bootstrap.seed),
        "unfinished": sum(row.finish == LENGTH for row in rows),
    }


def diversity(texts: Sequence[str], seed: int) -> dict[str, Any]:
    """Return the diversity of completions at a fixed chunk size, so that arms of different sizes can be compared.

    `unique` is the share of distinct completions among UNIQUE_OF. `distinct_n` is the share of distinct n-grams of
    lower-cased words in BUDGET words (Li et al. 2016, arXiv 1510.03055); n-grams do not cross completions. Both are
    means over disjoint random chunks, with the standard error of the mean if there are several. "not available" if
    the completions do not fill one chunk.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    shuffled = [texts[i] for i in order]
    hundreds = [shuffled[i : i + UNIQUE_OF] for i in range(0, len(shuffled) - UNIQUE_OF + 1, UNIQUE_OF)]
    chunks = _chunks([text.lower().split() for text in shuffled])
    return {
        "unique": _mean_and_error([len(set(chunk)) / UNIQUE_OF for chunk in hundreds]),
        "unique_of": UNIQUE_OF,
        "budget": BUDGET,
        "chunks": len(chunks),
        "distinct_1": _mean_and_error([distinct(chunk, 1) for chunk in chunks]),
        "distinct_2": _mean_and_error([distinct(chunk, 2) for chunk in chunks]),
    }


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Return the share of distinct n-grams among all n-grams of the texts (lists of words), 0 to 1."""
    grams = [tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _chunks(texts: Sequence[Sequence[str]]) -> list[list[Sequence[str]]]:
    """Return chunks of texts with exactly BUDGET words each; the last text of a chunk is cut."""
    chunks: list[list[Sequence[str]]] = []
    chunk: list[Sequence[str]] = []
    room = BUDGET
    for words in texts:
        chunk.append(words[:room])
        room -= len(chunk[-1])
        if not room:
            chunks.append(chunk)
            chunk, room = [], BUDGET
    return chunks


def _mean_and_error(shares: Sequence[float]) -> dict[str, Any] | str:
    if not shares:
        return NOT_AVAILABLE
    error = float(np.std(shares, ddof=1) / np.sqrt(len(shares))) if len(shares) > 1 else None
    return {"value": float(np.mean(shares)), "error": error}
