"""Best-of-n: keep one of several scored samples that have the same prompt and target."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from irlhf.scoring.samples import policies_of, read_samples, reward_of, selection_manifest, weighted_reward
from irlhf.scoring.settings import BEST, NEAREST, KeepSettings


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
            policies = _checked_policies(source, rows, settings)
            weights = {digest: read_weights(settings.weights, policy) for digest, policy in policies.items()}
            kept: dict[str, Example] = {}
            for group in groups:
                digest = group[0].policy
                best = _best(group, policies[digest], weights[digest], settings.keep)
                kept[best.id] = best
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
    """Return the samples of each policy, prompt and target."""
    groups: dict[tuple[Any, ...], list[Example]] = {}
    for row in rows:
        # With weights, the samples of one prompt have different numbers in their prompts for the same request.
        numbers = () if weights_of(row.target) else tuple(sorted(row.wishes.items()))
        key = row.policy, row.cluster, tuple(sorted(row.target.items())), numbers
        groups.setdefault(key, []).append(row)
    return list(groups.values())


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


def _checked_policies(source: Path, rows: Sequence[Example], settings: KeepSettings) -> dict[str, Policy]:
    """Return the policies of the samples, by digest. Raises ConfigError."""
    policies = policies_of(source, rows, settings.policies)
    for policy in policies.values():
        if settings.keep == NEAREST and policy.ranked:
            raise ConfigError(
                f"--keep {NEAREST}: {', '.join(policy.ranked)} has scale within, which has no number for a single"
                f" sample; use --keep {BEST}"
            )
    return policies


def _best(group: Sequence[Example], policy: Policy, weights: Mapping[str, float], keep: str) -> Example:
    """Return the best sample of a group, with the size and the tokens of the group. Raises DataError."""

    def value(row: Example) -> float:
        if keep == BEST:
            return weighted_reward(row, policy, weights or weights_of(row.target))
        actual = {name: policy.reward(name).scale(reward_of(row, policy, name)) for name in row.prompt_numbers}
        return -fmean(abs(actual[name] - number) for name, number in row.wishes.items())

    tokens = [row.tokens for row in group if row.tokens is not None]
    spent = sum(tokens) if len(tokens) == len(group) else None
    return replace(max(group, key=value), kept=keep, candidates=len(group), spent=spent)
