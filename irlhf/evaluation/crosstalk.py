"""Cross-talk: how far each actual reward moves when one target moves and the others stand still."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from irlhf.core.bootstrap import Bootstrap, Floats, Interval, draws, interval
from irlhf.evaluation.arms import Arm, by_prompt
from irlhf.policy.targets import weights_of


def crosstalk(arm: Arm, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the slopes of every actual reward on every target, by least squares within prompts.

    All targets stand in one regression, because targets drawn from data hang together. Both sides are taken
    as differences from their prompt's mean. On the diagonal 1 is obedience, beside it 0. Targets that never
    move within a prompt, or only together with others, have no slope; with less than one target that moves,
    or only one reward scored, nothing is returned.
    """
    rows = [row for row in arm.rows if row.asked and not weights_of(row.target)]
    targets = [name for name in arm.policy.names if rows and all(name in row.asked for row in rows)]
    rewards = [name for name in arm.policy.names if rows and all(name in row.rewards for row in rows)]
    pairs = zip(rows, arm.policy.scaled_rows(rows), strict=True)
    complete = [(row, own) for row, own in pairs if all(name in own for name in rewards)]
    if not complete:
        return {}
    rows, scaled = map(list, zip(*complete, strict=True))
    prompts = [row.cluster for row in rows]
    asked = np.array([[row.wishes[name] for name in targets] for row in rows]).reshape(len(rows), len(targets))
    moves = np.ptp(_within(prompts, asked), axis=0) > 0 if targets else []
    targets = [name for name, moving in zip(targets, moves, strict=True) if moving]
    asked = asked[:, moves]
    if not targets or len(rewards) < 2 or np.linalg.matrix_rank(_within(prompts, asked)) < len(targets):
        return {}
    given = np.array([[own[name] for name in rewards] for own in scaled])
    found = slopes(prompts, asked, given, bootstrap)
    return {"n": len(rows), "prompts": len(set(prompts)), "targets": targets, "rewards": rewards, "slopes": found}


def slopes(prompts: Sequence[str], asked: Floats, given: Floats, bootstrap: Bootstrap) -> list[list[Interval]]:
    """Return the slopes [targets, rewards], with intervals from sums that add up over prompts."""
    groups = [mine for _, mine in by_prompt(prompts)]
    asked, given = _within(prompts, asked), _within(prompts, given)
    squares = np.array([asked[mine].T @ asked[mine] for mine in groups])  # [prompts, targets, targets]
    products = np.array([asked[mine].T @ given[mine] for mine in groups])  # [prompts, targets, rewards]
    value = np.linalg.solve(squares.sum(0), products.sum(0))
    drawn = np.concatenate(
        [
            # The pseudo-inverse, because a draw may hold but prompts in which a target stood still.
            np.linalg.pinv(np.tensordot(copies, squares, 1)) @ np.tensordot(copies, products, 1)
            for copies in draws(len(groups), len(groups), bootstrap)
        ]
    )
    return [[interval(float(one), drawn[:, i, j]) for j, one in enumerate(row)] for i, row in enumerate(value)]


def _within(prompts: Sequence[str], values: Floats) -> Floats:
    """Return a table [rows, columns] less the mean of each prompt's rows."""
    less = values.copy()
    for _, mine in by_prompt(prompts):
        less[mine] -= less[mine].mean(0)
    return less
