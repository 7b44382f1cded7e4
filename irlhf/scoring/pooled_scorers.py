"""Pools: rewards that several scorers give together."""

import statistics
from collections.abc import Mapping

from irlhf.policy.rewards_file import Reward


def with_members(rewards: Mapping[str, Reward]) -> dict[str, Reward]:
    """Return the rewards, each pool replaced by one reward per scorer with the name `NAME[0]`, `NAME[1]`, …"""
    return {
        member: each
        for name, reward in rewards.items()
        for member, each in (_members(name, reward).items() if reward.members else [(name, reward)])
    }


def member_names(name: str, reward: Reward) -> list[str]:
    """Return the names under which a reward is computed: its own, or one for each scorer of its pool."""
    return [f"{name}[{i}]" for i in range(len(reward.members))] or [name]


def pooled(numbers: Mapping[str, float], rewards: Mapping[str, Reward]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the rewards and, for pools, the standard deviation among their scorers.

    mean     the mean
    min      the worst for the reward's direction
    mean-sd  the mean, made worse by the standard deviation

    `numbers` has the reward of each member. The standard deviation is that of a sample (n - 1).
    """
    values: dict[str, float] = {}
    spread: dict[str, float] = {}
    for name, reward in rewards.items():
        members = [numbers[member] for member in member_names(name, reward) if member in numbers]
        if not members:  # the row was not scored
            continue
        if not reward.members:
            values[name] = members[0]
        else:
            sign = -1 if reward.direction == "lower" else 1
            mean, spread[name] = statistics.fmean(members), statistics.stdev(members)
            worst = sign * min(sign * number for number in members)
            values[name] = {"mean": mean, "min": worst, "mean-sd": mean - sign * spread[name]}[reward.pool]
    return values, spread


def _members(name: str, reward: Reward) -> dict[str, Reward]:
    names = member_names(name, reward)
    return {
        member: reward.model_copy(update={"scorer": scorer, "pool": ""})
        for member, scorer in zip(names, reward.members, strict=True)
    }
