"""Rows of the baselines: all rows without reward lines, or only the better rows."""

import random
from collections.abc import Sequence

from irlhf.core import console
from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, Example, as_text
from irlhf.policy.policy_file import Policy

BLIND = ("plain", "chosen", "top")  # trained on prompts without reward lines
PROMPTED = "prompted"  # the untrained base model, prompted for rewards

_TOP = 0.1  # share of the rows kept by `top`


def baseline_rows(kind: str, rows: Sequence[Example], policy: Policy, seed: int) -> list[Example]:
    """Return the rows that a baseline trains on, repeated until they hold as many words as all rows.

    plain   all rows
    chosen  the rows labelled chosen; without labels the better of two random rows by weighted reward
    top     the best tenth by weighted reward

    Words approximate completion tokens to within a few percent, without a tokenizer. Raises DataError if a row lacks
    a reward with a non-zero weight.
    """
    if kind == "plain":
        return list(rows)
    chosen = _chosen(rows, policy, seed) if kind == "chosen" else _top(rows, policy)
    if len(chosen) == len(rows):
        return list(rows)
    if not chosen:
        raise DataError(f"baseline {kind}: no rows to train on, out of {len(rows):,} training rows")
    budget = sum(_words(row) for row in rows)
    repeated: list[Example] = []
    rng = random.Random(f"{seed}/deal")
    while budget > 0:
        for row in rng.sample(chosen, len(chosen)):
            if budget > 0:
                repeated.append(row)
                budget -= _words(row)
    console.note(f"baseline {kind}: {len(chosen):,} rows, repeated to {len(repeated):,} to match the words of all rows")
    return repeated


def _chosen(rows: Sequence[Example], policy: Policy, seed: int) -> list[Example]:
    labelled = [row for row in rows if row.label == CHOSEN]
    if labelled:
        return labelled
    console.note("baseline chosen: no labels; using the better of two random rows by weighted reward")
    value = _weighted(rows, policy)
    order = random.Random(f"{seed}/pairs").sample(range(len(rows)), len(rows))
    pairs = zip(order[::2], order[1::2], strict=False)
    return [rows[max(pair, key=lambda i: value[i])] for pair in pairs]


def _top(rows: Sequence[Example], policy: Policy) -> list[Example]:
    value = _weighted(rows, policy)
    order = sorted(range(len(rows)), key=lambda i: value[i], reverse=True)
    return [rows[i] for i in sorted(order[: max(1, round(_TOP * len(rows)))])]


def _weighted(rows: Sequence[Example], policy: Policy) -> list[float]:
    weights = {reward.name: reward.weight for reward in policy.rewards}
    own = [policy.own(row.rewards) for row in rows]
    for row, rewards in zip(rows, own, strict=True):
        for name, weight in weights.items():
            if weight and name not in rewards:
                raise DataError(f"{row.id}: no reward '{name}', so rows cannot be compared; score all rows first")
    return [policy.weighted(rewards, weights) for rewards in own]


def _words(row: Example) -> int:
    return len(as_text(row.completion).split()) + 1  # plus the end of the turn
