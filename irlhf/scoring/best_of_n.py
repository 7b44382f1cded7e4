"""Best-of-n: keep one of several scored samples that have the same prompt and target."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example
from irlhf.core.registry import did_you_mean
from irlhf.io.resumable import resumable_output
from irlhf.policy.policy_file import Policy, read_weights
from irlhf.policy.targets import weights_of
from irlhf.scoring.samples import policies_of, read_samples, reward_of, selection_manifest
from irlhf.scoring.settings import BEST, NEAREST, KeepSettings

GroupKey = tuple[Any, ...]  # equal for all samples of a group


def keep(samples: str | Path, output: str | Path, settings: KeepSettings = KeepSettings()) -> dict[str, Any]:
    """Write one sample of every group and return the counts. No scorer runs.

    A group has the samples of one policy for one prompt and one target. A kept sample records the number of
    `candidates` and the tokens `spent` on them. The first of equally good samples is kept. Raises ConfigError if a
    policy is missing, and DataError if a reward is missing or if every group has a single sample.
    """
    source, out = Path(samples), Path(output)
    _check(settings)
    with resumable_output(out, selection_manifest(source, settings), resumable=False) as writer:
        if not writer.finished:
            rows = _read(source, settings)
            groups = _groups(rows)
            rankings = _rankings(source, rows, settings)
            kept = {
                best.id: best for best in (_best(group, rankings[group[0].policy], settings.keep) for group in groups)
            }
            _check_sizes(source, groups)
            for row in rows:
                if row.id in kept:
                    writer.write(kept[row.id])
            writer.counts["candidates"] = len(rows)
    return writer.summary()


def _check(settings: KeepSettings) -> None:
    if settings.keep not in (BEST, NEAREST):
        raise ConfigError(f"unknown --keep '{settings.keep}'{did_you_mean(settings.keep, (BEST, NEAREST))}")
    if settings.keep == NEAREST and settings.weights:
        raise ConfigError("--weights does not apply to --keep nearest; remove it")


def _read(source: Path, settings: KeepSettings) -> list[Example]:
    examples = read_samples(source, settings.limit)
    for example in examples:
        if example.kept:
            was = f"{example.id} was already kept from {example.candidates} samples"
            raise DataError(f"{source}: {was}; use the original samples")
        if settings.keep == NEAREST and (weights_of(example.target) or not example.prompt_numbers):
            how = "weights instead of targets" if example.prompt_numbers else "no target"
            raise DataError(f"{source}: {example.id} has {how}, so no sample is nearest; use --keep best")
    return examples


def _groups(rows: Sequence[Example]) -> list[list[Example]]:
    groups: dict[GroupKey, list[Example]] = {}
    for row in rows:
        groups.setdefault(_group_key(row), []).append(row)
    return list(groups.values())


def _group_key(row: Example) -> GroupKey:
    # With weights, the samples of one prompt have different numbers in their prompts for the same request.
    numbers = () if weights_of(row.target) else tuple(sorted(row.wishes.items()))
    return row.policy, row.cluster, tuple(sorted(row.target.items())), numbers


def _check_sizes(source: Path, groups: Sequence[Sequence[Example]]) -> None:
    """Raise DataError if all groups have one sample; warn if the sizes differ."""
    sizes = Counter(map(len, groups))
    if set(sizes) == {1}:
        raise DataError(
            f"{source}: nothing to choose from: no two samples have the same prompt and target; sample with -n 4"
        )
    if len(sizes) > 1:
        sizes_text = ", ".join(f"{count:,} of {size}" for size, count in sorted(sizes.items(), reverse=True))
        console.warn(f"{source}: groups of unequal size ({sizes_text} samples); larger groups have an advantage")


@dataclass(frozen=True)
class _Ranking:
    """Ranks the samples of one policy."""

    policy: Policy
    weights: Mapping[str, float]  # given by the user
    keep: str

    def __call__(self, row: Example) -> float:
        """Return a number that is higher for better samples. Raises DataError if a reward is missing."""
        return self._nearness(row) if self.keep == NEAREST else self._weighted(row)

    def _weighted(self, row: Example) -> float:
        own = {reward.name: reward.weight for reward in self.policy.rewards}
        weights = self.weights or weights_of(row.target) or own
        for name, weight in weights.items():
            if weight:
                reward_of(row, self.policy, name)
        return self.policy.weighted(self.policy.own(row.rewards), weights)

    def _nearness(self, row: Example) -> float:
        """Return the negative mean absolute distance between target and actual reward."""
        actual = {
            name: self.policy.reward(name).scale(reward_of(row, self.policy, name)) for name in row.prompt_numbers
        }
        return -fmean(abs(actual[name] - number) for name, number in row.wishes.items())


def _check_nearest(policy: Policy) -> None:
    if policy.ranked:
        raise ConfigError(
            f"--keep {NEAREST}: {', '.join(policy.ranked)} has scale within, which has no number for a single sample;"
            f" use --keep {BEST}"
        )


def _rankings(source: Path, rows: Sequence[Example], settings: KeepSettings) -> dict[str, _Ranking]:
    """Return the ranking of each policy's samples, by digest. Raises ConfigError."""
    policies = policies_of(source, rows, settings.policies)
    for policy in policies.values() if settings.keep == NEAREST else ():
        _check_nearest(policy)
    return {
        digest: _Ranking(policy, read_weights(settings.weights, policy), settings.keep)
        for digest, policy in policies.items()
    }


def _best(group: Sequence[Example], ranking: _Ranking, how: str) -> Example:
    tokens = [row.tokens for row in group if row.tokens is not None]
    spent = sum(tokens) if len(tokens) == len(group) else None
    return replace(max(group, key=ranking), kept=how, candidates=len(group), spent=spent)
