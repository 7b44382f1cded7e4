"""Of several samples that were asked for the same, keep one: best-of-n from samples that are scored already."""

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

GroupKey = tuple[Any, ...]  # what the samples of one group have in common


def keep(samples: str | Path, output: str | Path, settings: KeepSettings = KeepSettings()) -> dict[str, Any]:
    """Write one sample of every group and return what was done; no scorer is asked.

    A group is what one policy drew for one prompt and one target. What is kept says from how many
    `candidates`, and how many tokens were `spent` on them. Of equals the first is kept. Raises ConfigError
    where a policy is missing and DataError where a reward is, or where there is nothing to choose from.
    """
    source, out = Path(samples), Path(output)
    _check(settings)
    with resumable_output(out, selection_manifest(source, settings), resumable=False) as book:
        if not book.finished:
            rows = _read(source, settings)
            groups = _groups(rows)
            rankings = _rankings(source, rows, settings)
            kept = {
                best.id: best for best in (_best(group, rankings[group[0].policy], settings.keep) for group in groups)
            }
            _tell_sizes(source, groups)
            for row in rows:
                if row.id in kept:
                    book.write(kept[row.id])
            book.counts["candidates"] = len(rows)
    return book.summary()


def _check(settings: KeepSettings) -> None:
    if settings.keep not in (BEST, NEAREST):
        raise ConfigError(f"unknown --keep '{settings.keep}'{did_you_mean(settings.keep, (BEST, NEAREST))}")
    if settings.keep == NEAREST and settings.weights:
        raise ConfigError("--weights say which sample is best; leave them out of --keep nearest")


def _read(source: Path, settings: KeepSettings) -> list[Example]:
    examples = read_samples(source, settings.limit)
    for example in examples:
        if example.kept:
            was = f"{example.id} was kept from {example.candidates} samples already"
            raise DataError(f"{source}: {was}; keep from the samples themselves")
        if settings.keep == NEAREST and (weights_of(example.target) or not example.prompt_numbers):
            how = "by weights" if example.prompt_numbers else "for nothing"
            raise DataError(f"{source}: {example.id} was asked {how}, so nothing can be nearest; use --keep best")
    return examples


def _groups(rows: Sequence[Example]) -> list[list[Example]]:
    groups: dict[GroupKey, list[Example]] = {}
    for row in rows:
        groups.setdefault(_group_key(row), []).append(row)
    return list(groups.values())


def _group_key(row: Example) -> GroupKey:
    # Asked by weights, the samples of one prompt are shown different rows of the training data for one wish.
    numbers = () if weights_of(row.target) else tuple(sorted(row.wishes.items()))
    return row.policy, row.cluster, tuple(sorted(row.target.items())), numbers


def _tell_sizes(source: Path, groups: Sequence[Sequence[Example]]) -> None:
    """Refuse groups that leave no choice, and say where some leave more choice than others."""
    sizes = Counter(map(len, groups))
    if set(sizes) == {1}:
        raise DataError(f"{source}: nothing to choose from: no two samples were asked for the same; sample with -n 4")
    if len(sizes) > 1:
        sizes_text = ", ".join(f"{count:,} of {size}" for size, count in sorted(sizes.items(), reverse=True))
        console.warn(f"{source}: groups of unequal size ({sizes_text} samples); one kept from more has had more luck")


@dataclass(frozen=True)
class _Ranking:
    """Says how good a sample of one policy is."""

    policy: Policy
    weights: Mapping[str, float]  # that the user gave
    keep: str

    def __call__(self, row: Example) -> float:
        """Return a number of which more is better. Raises DataError where a reward is missing."""
        return self._nearness(row) if self.keep == NEAREST else self._weighted(row)

    def _weighted(self, row: Example) -> float:
        own = {reward.name: reward.weight for reward in self.policy.rewards}
        weights = self.weights or weights_of(row.target) or own
        for name, weight in weights.items():
            if weight:
                reward_of(row, self.policy, name)
        return self.policy.weighted(self.policy.own(row.rewards), weights)

    def _nearness(self, row: Example) -> float:
        """Return the mean absolute distance between asked and actual, negated."""
        actual = {
            name: self.policy.reward(name).scale(reward_of(row, self.policy, name)) for name in row.prompt_numbers
        }
        return -fmean(abs(actual[name] - number) for name, number in row.wishes.items())


def _check_nearest(policy: Policy) -> None:
    if policy.ranked:
        raise ConfigError(
            f"--keep {NEAREST}: {', '.join(policy.ranked)} has scale within, which ranks the samples of a prompt, so no"
            f" sample alone is near a target; use --keep {BEST}"
        )


def _rankings(source: Path, rows: Sequence[Example], settings: KeepSettings) -> dict[str, _Ranking]:
    """Return by digest who judges the samples of each policy."""
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
