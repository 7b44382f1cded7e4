"""Cross-talk: the change of each actual reward when one target changes and the others are constant."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from irlhf.core.bootstrap import Bootstrap, Floats, Interval, draws, interval
from irlhf.evaluation.arms import Arm, by_prompt
from irlhf.policy.targets import weights_of


def crosstalk(arm: Arm, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the slopes of every actual reward on every target, by least squares within prompts.

    All targets are in one regression, because targets drawn from data are correlated. Targets and rewards are
    differences from the mean of their prompt. Perfect steering gives 1 on the diagonal and 0 elsewhere. Targets that
    are constant within every prompt are left out. Returns {} if no target varies, if the targets are collinear, or if
    fewer than two rewards were scored.
    """
    rows = [row for row in arm.rows if row.prompt_numbers and not weights_of(row.target)]
    targets = [name for name in arm.policy.names if rows and all(name in row.prompt_numbers for row in rows)]
    rewards = [name for name in arm.policy.names if rows and all(name in row.rewards for row in rows)]
    pairs = zip(rows, arm.policy.scaled_rows(rows), strict=True)
    complete = [(row, own) for row, own in pairs if all(name in own for name in rewards)]
    if not complete:
        return {}
    rows, scaled = map(list, zip(*complete, strict=True))
    prompts = [row.cluster for row in rows]
    targets_given = np.array([[row.wishes[name] for name in targets] for row in rows]).reshape(len(rows), len(targets))
    moves = np.ptp(_within(prompts, targets_given), axis=0) > 0 if targets else []
    targets = [name for name, moving in zip(targets, moves, strict=True) if moving]
    targets_given = targets_given[:, moves]
    if not targets or len(rewards) < 2 or np.linalg.matrix_rank(_within(prompts, targets_given)) < len(targets):
        return {}
    given = np.array([[own[name] for name in rewards] for own in scaled])
    intervals = slopes(prompts, targets_given, given, bootstrap)
    return {"n": len(rows), "prompts": len(set(prompts)), "targets": targets, "rewards": rewards, "slopes": intervals}


def slopes(prompts: Sequence[str], targets: Floats, given: Floats, bootstrap: Bootstrap) -> list[list[Interval]]:
    """Return the slopes [targets, rewards] with bootstrap intervals clustered by prompt."""
    groups = [indices for _, indices in by_prompt(prompts)]
    targets, given = _within(prompts, targets), _within(prompts, given)
    squares = np.array([targets[indices].T @ targets[indices] for indices in groups])  # [prompts, targets, targets]
    products = np.array([targets[indices].T @ given[indices] for indices in groups])  # [prompts, targets, rewards]
    value = np.linalg.solve(squares.sum(0), products.sum(0))
    drawn = np.concatenate(
        [
            # Pseudo-inverse: a draw may contain only prompts in which a target is constant.
            np.linalg.pinv(np.tensordot(copies, squares, 1)) @ np.tensordot(copies, products, 1)
            for copies in draws(len(groups), len(groups), bootstrap)
        ]
    )
    return [[interval(float(slope), drawn[:, i, j]) for j, slope in enumerate(row)] for i, row in enumerate(value)]


def _within(prompts: Sequence[str], values: Floats) -> Floats:
    """Return a table [rows, columns] minus the mean of each prompt's rows."""
    less = values.copy()
    for _, indices in by_prompt(prompts):
        less[indices] -= less[indices].mean(0)
    return less
