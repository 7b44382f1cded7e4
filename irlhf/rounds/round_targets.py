"""Choose the targets of a round."""

from pathlib import Path

from irlhf.io.files import read_rows
from irlhf.policy.policy_file import Policy
from irlhf.policy.scales import percentile
from irlhf.rounds.types import Loop, RequestedTargets

ASKS = ("uniform", "data", "high", "weighted", "past")

_HIGH = 70  # percentile from which `high` draws targets, if enough training rows exceed it in every reward
_LOWER = 5  # step by which the percentile is lowered otherwise
_ENOUGH = 20  # rows
_PAST = 90  # percentile of the rewards of the last round that `past` requests


def round_targets(loop: Loop, folder: Path, number: int) -> RequestedTargets:
    """Return the targets of round `number` with the folder `folder`."""
    names = loop.policy.names
    if loop.settings.ask == "weighted":
        return RequestedTargets(weights=mix(loop.policy))
    if loop.settings.ask in ("uniform", "data"):
        return same_target(loop.policy, loop.settings.ask)
    if loop.settings.ask == "high":
        bounds = _high(loop.policy)
        return RequestedTargets(tuple(f"{name}=~{bounds[name]:.6g}.." for name in names))
    reached = _reached(loop, folder.parent / f"round-{number - 1}", number)
    return RequestedTargets(tuple(f"{name}={reached[name]:.6g}" for name in names))


def same_target(policy: Policy, target: str) -> RequestedTargets:
    """Return the same target for all rewards."""
    return RequestedTargets(tuple(f"{name}={target}" for name in policy.names))


def mix(policy: Policy) -> str:
    """Return the reward weights of the policy in the format of `--weights`."""
    return "+".join(f"{reward.weight:g}*{reward.name}" for reward in policy.rewards)


def _high(policy: Policy) -> dict[str, float]:
    """Return the lower bounds of high rewards: the highest percentile that enough training rows reach in all."""
    rows = [policy.numbers(vector) for vector in policy.reservoir]
    columns = {name: sorted(row[name] for row in rows) for name in policy.names}
    bounds: dict[str, float] = {}
    for rank in range(_HIGH, -1, -_LOWER):
        bounds = {name: percentile(columns[name], rank) for name in policy.names}
        if sum(all(row[name] >= bounds[name] for name in bounds) for row in rows) >= min(_ENOUGH, len(rows)):
            break
    return bounds


def _reached(loop: Loop, folder: Path, number: int) -> dict[str, float]:
    """Return the 90th percentile of each reward in the previous round; in round 1, of the training rows."""
    if number == 1:
        scaled = [loop.policy.numbers(vector) for vector in loop.policy.reservoir]
    else:
        scaled = [loop.policy.scaled(row["rewards"]) for _, row in read_rows(folder / "scored.jsonl")]
    return {name: percentile(sorted(numbers[name] for numbers in scaled), _PAST) for name in loop.policy.names}
