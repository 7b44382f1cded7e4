"""Read the scored samples for `score --keep`, and the policies that drew them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from irlhf.core.errors import DataError
from irlhf.core.example import Example, from_json, unique
from irlhf.io.files import read_rows
from irlhf.io.resumable import RunManifest
from irlhf.policy.policy_file import Policy, check_known_policies, find_policies
from irlhf.policy.recorded_rewards import read_recorded
from irlhf.scoring.settings import KeepSettings, SelectSettings


def selection_manifest(source: Path, settings: KeepSettings | SelectSettings) -> RunManifest:
    """Return the manifest of a run."""
    weights = {"weights": Path(settings.weights)} if Path(settings.weights).is_file() else {}
    recorded = read_recorded(source).to_json()
    return RunManifest("score --keep", {"samples": source, **weights}, asdict(settings), recorded=recorded)


def read_samples(source: Path, limit: int) -> list[Example]:
    """Return up to `limit` samples (0 means all). Raises DataError for a row that was not drawn by a policy."""
    rows = islice(read_rows(source), limit or None)
    examples = list(unique((where, from_json(row, where)) for where, row in rows))
    for example in examples:
        if not example.policy:
            raise DataError(f"{source}: {example.id} has no 'policy'; --keep needs samples from `irlhf sample`")
    return examples


def policies_of(source: Path, rows: Sequence[Example], folders: Sequence[str]) -> dict[str, Policy]:
    """Return the policies that drew the rows, by digest, in order. Raises ConfigError if one is missing."""
    known = find_policies([source], folders)
    check_known_policies(rows, known)
    return {digest: known[digest][1] for digest in dict.fromkeys(row.policy for row in rows)}


def zscores(row: Example, policy: Policy) -> list[float]:
    """Return a row's oriented z-scores, in the order of the policy's rewards. Raises DataError."""
    return [policy.reward(name).zscore(reward_of(row, policy, name)) for name in policy.names]


def weighted_reward(row: Example, policy: Policy, weights: Mapping[str, float]) -> float:
    """Return the weighted mean of a row's oriented z-scores; without `weights`, by the policy's. Raises DataError."""
    weights = weights or {reward.name: reward.weight for reward in policy.rewards}
    for name, weight in weights.items():
        if weight:
            reward_of(row, policy, name)
    return policy.weighted(policy.own(row.rewards), weights)


def reward_of(row: Example, policy: Policy, name: str) -> float:
    """Return a row's raw reward. Raises DataError if it is missing, ConfigError if the policy lacks it."""
    # An unknown name is a ConfigError, a missing reward a DataError.
    reward = policy.reward(name).read(row.rewards)
    if reward is None:
        raise DataError(f"{row.id}: no reward '{name}', so the samples cannot be compared; score all of them first")
    return reward
