"""The rewards and scorers that the manifest of a scored file records, and warnings if others are used later."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.io.resumable import recorded_facts, recorded_input
from irlhf.policy.policy_file import FILE, read_policy
from irlhf.policy.rewards_file import Reward, Rewards, parse_rewards, read_rewards

_REWARDS, _SCORERS = "rewards", "scorers"  # keys of the recorded facts


@dataclass(frozen=True)
class RecordedRewards:
    """The rewards.yaml that rows were scored with, and the identity of each reward's scorer."""

    rewards: Rewards | None = None
    scorers: Mapping[str, str] = field(default_factory=dict)

    def with_later(self, rewards: Rewards, scorers: Mapping[str, str]) -> "RecordedRewards":
        """Return these rewards after the rows were scored again; rewards that are not named again are kept."""
        before = self.rewards.rewards if self.rewards else {}
        merged = rewards.model_copy(update={"rewards": {**before, **rewards.rewards}})
        return RecordedRewards(merged, {**self.scorers, **scorers})

    def to_json(self) -> dict[str, Any]:
        """Return the facts as stored in a manifest."""
        if self.rewards is None:
            return {}
        tree = self.rewards.model_dump(mode="json", exclude_defaults=True)
        return {_REWARDS: tree, _SCORERS: dict(self.scorers)}


def read_recorded(scored: Path) -> RecordedRewards:
    """Return what the manifest of a scored file records; nothing if there is no manifest, or an earlier one."""
    facts = recorded_facts(scored)
    if not isinstance(facts.get(_REWARDS), dict):
        return RecordedRewards()
    try:
        rewards = parse_rewards(facts[_REWARDS], f"{scored}.run.json")
    except ConfigError:  # written by another version
        return RecordedRewards()
    return RecordedRewards(rewards, {str(name): str(value) for name, value in facts.get(_SCORERS, {}).items()})


def rewards_file_of(policy: Path) -> str:
    """Return the path of the rewards.yaml for samples of a policy; empty if none is known.

    It is the file that the policy was trained with. Otherwise it is rewards.yaml in the current folder, if it has the
    rewards of the policy, or if this is a base model.
    """
    given = recorded_input(policy, "rewards")
    if given and Path(given).is_file():
        return given
    usual = Path("rewards.yaml")
    if not usual.is_file():
        return ""
    try:
        names = read_rewards(usual).rewards.keys()
        parts = [part for reward in read_policy(policy).rewards for part in (reward.parts or (reward,))]
    except (ConfigError, DataError):  # an invalid rewards.yaml, or a base model
        return "" if (policy / FILE).is_file() else str(usual)
    return str(usual) if {part.name for part in parts} <= names else ""


def scorer_identity(reward: Reward, state: str) -> str:
    """Return the identity of a reward's scorer: its name and a digest of its settings and its `state`."""
    digest = hashlib.sha256(json.dumps([reward.numbers, state], sort_keys=True, default=str).encode()).hexdigest()
    return f"{_name(reward)}@{digest[:12]}"


def warn_of_other_scorers(scales: Mapping[str, str], scored: Path) -> None:
    """Warn about each reward of a file that was computed by another scorer than the reward's scale was fitted on.

    `scales` maps names of rewards to identities of the scorers that their scales were fitted on.
    """
    used = read_recorded(scored).scorers
    for name, fitted in scales.items():
        if used.get(name, fitted) != fitted:
            was, now = fitted.rpartition("@")[0], used[name].rpartition("@")[0]
            now = "other weights or settings of it" if was == now else now
            console.warn(
                f"{name}: the scale was fitted on the scorer {was}, but the rewards in {scored} are of {now}; their"
                " numbers cannot be compared, so score again with the same scorer"
            )


def warn_of_other_spec(named: Rewards, scored: Path) -> None:
    """Warn if a rewards.yaml names other scorers than those that a file was scored with."""
    recorded = read_recorded(scored).rewards
    for name, reward in named.rewards.items():
        before = recorded.rewards.get(name) if recorded else None
        if before and before.numbers != reward.numbers:
            was, now = _name(before), _name(reward)
            now = "other settings of it" if was == now else now
            console.warn(f"{name}: {scored} was scored by {was}, but the rewards file names {now}; score it again")


def _name(reward: Reward) -> str:
    if reward.members:
        return f"{reward.pool} of {', '.join(reward.members)}"
    return reward.single or f"column {reward.column}"
