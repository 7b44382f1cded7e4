"""What asking for a reward must beat: the same rows without reward lines, or only the better ones."""

import random
from collections.abc import Iterator, Sequence

from irlhf.core import console
from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, Example, as_text
from irlhf.policy.policy_file import Policy

BLIND = ("plain", "chosen", "top")  # trained on prompts that hold no reward
PROMPTED = "prompted"  # the base itself, asked for rewards and not trained

_TOP = 0.1  # share of the rows that `top` keeps


def baseline_rows(kind: str, rows: Sequence[Example], policy: Policy, seed: int) -> list[Example]:
    """Return the rows that a baseline trains on, dealt out anew until they hold as many words as all rows.

    plain   all rows
    chosen  the rows labelled chosen; without labels the better of two random rows by weighted reward
    top     the best tenth by weighted reward

    Equal words stand for equal completion tokens: no tokenizer is loaded yet, and they agree within a
    few per cent. Raises DataError where a row lacks a reward that must be compared.
    """
    chosen = {"plain": _plain, "chosen": _chosen, "top": _top}[kind](rows, policy, seed)
    if len(chosen) == len(rows):
        return list(rows)
    if not chosen:
        raise DataError(f"{kind}: no row is left to train on; there are {len(rows):,} training rows")
    budget = sum(_words(row) for row in rows)
    dealt: list[Example] = []
    for row in _dealt(chosen, seed):
        if budget <= 0:
            break
        dealt.append(row)
        budget -= _words(row)
    console.note(f"{kind}: {len(chosen):,} rows, dealt out anew to {len(dealt):,} with as many words as all rows")
    return dealt


def _plain(rows: Sequence[Example], policy: Policy, seed: int) -> list[Example]:
    return list(rows)


def _chosen(rows: Sequence[Example], policy: Policy, seed: int) -> list[Example]:
    labelled = [row for row in rows if row.label == CHOSEN]
    if labelled:
        return labelled
    console.note("chosen: no labels, so the better of two random rows by weighted reward")
    value = _weighted(rows, policy)
    order = random.Random(f"{seed}/pairs").sample(range(len(rows)), len(rows))
    pairs = zip(order[::2], order[1::2], strict=False)
    return [rows[max(pair, key=lambda i: value[i])] for pair in pairs]


def _top(rows: Sequence[Example], policy: Policy, seed: int) -> list[Example]:
    value = _weighted(rows, policy)
    order = sorted(range(len(rows)), key=lambda i: value[i], reverse=True)
    return [rows[i] for i in sorted(order[: max(1, round(_TOP * len(rows)))])]


def _weighted(rows: Sequence[Example], policy: Policy) -> list[float]:
    weights = {reward.name: reward.weight for reward in policy.rewards}
    own = [policy.own(row.rewards) for row in rows]
    for row, rewards in zip(rows, own, strict=True):
        for name, weight in weights.items():
            if weight and name not in rewards:
                raise DataError(f"{row.id}: no reward '{name}', so rows cannot be compared; score them all first")
    return [policy.weighted(rewards, weights) for rewards in own]


def _dealt(rows: Sequence[Example], seed: int) -> Iterator[Example]:
    """Yield the rows again and again, each pass in another order."""
    rng = random.Random(f"{seed}/deal")
    while True:
        yield from rng.sample(rows, len(rows))


def _words(row: Example) -> int:
    return len(as_text(row.completion).split()) + 1  # and the end of the turn
