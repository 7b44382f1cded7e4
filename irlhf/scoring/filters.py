"""Filter scored samples for training with a list of rules, applied in order.

distinct         keep the first of equal completions of one prompt
front            keep the samples of a prompt that no other sample dominates in all rewards
top=0.5          keep the half with the highest weighted reward
entropy=1.2      guard: drop low-entropy samples until the mean entropy is 1.2 nats per token
entropy-floor=1  guard: drop samples with an entropy below 1 nat per token
entropy-share=.3 guard: drop the 30% with the lowest entropy
kl=0.5           guard: drop the samples farthest from the reference until the mean distance is 0.5 nats
random=0.3       drop a random 30%, as a control for a guard of the same share

Counts are rounded half up. All rules keep at least one sample, except `entropy-floor`, which is an error if it keeps
none.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import moocore
import numpy as np

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, as_text
from irlhf.core.registry import did_you_mean
from irlhf.io.resumable import ResumableWriter, resumable_output
from irlhf.policy.policy_file import Policy, read_weights
from irlhf.scoring.samples import policies_of, read_samples, selection_manifest, weighted_reward, zscores
from irlhf.scoring.settings import BEST, NEAREST, SelectSettings

GUARDS = ("entropy", "entropy-floor", "entropy-share", "kl")

# The range of each rule's number, or None for a rule without a number.
_RULES = {
    "distinct": None,
    "front": None,
    "top": (0, 1),
    "entropy": (0, 100),
    "entropy-floor": (0, 100),
    "entropy-share": (0, 1),
    "kl": (0, 1000),
    "random": (0, 1),
}


@dataclass(frozen=True)
class Rule:
    """One parsed rule."""

    name: str
    number: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}={self.number:g}" if _RULES[self.name] else self.name


def select(samples: str | Path, output: str | Path, settings: SelectSettings) -> dict[str, Any]:
    """Write the rows that all rules keep, in their order, and return the counts.

    Dropped rows are written to `<output>.rejected.jsonl` with the rule as the reason. The counts include how many rows
    each rule saw and dropped. In ties, the first row is kept. Raises ConfigError for an unknown rule or a missing
    policy, and DataError if a row lacks a value that a rule needs, or if no row is left.
    """
    source, out = Path(samples), Path(output)
    rules = parse_rules(settings.rules)
    with resumable_output(out, selection_manifest(source, settings), resumable=False) as writer:
        if not writer.finished:
            left = read_samples(source, settings.limit)
            policies = policies_of(source, left, settings.policies)
            _check_comparable(source, policies.values(), rules)
            weights = {digest: read_weights(settings.weights, policy) for digest, policy in policies.items()}
            writer.counts["candidates"] = len(left)
            for rule in rules:
                left = _chosen(left, rule, writer, policies=policies, weights=weights, seed=settings.seed)
                if not left:
                    raise DataError(f"{source}: no sample is left after {rule}; use a weaker rule")
            for row in left:
                writer.write(row)
    return writer.summary()


def _check_comparable(source: Path, policies: Iterable[Policy], rules: Sequence[Rule]) -> None:
    """Raise ConfigError if a rule compares rows whose policies measure rewards differently."""
    rewards = [policy.rewards for policy in policies]
    for rule in rules:
        if rule.name in ("front", "top") and any(other != rewards[0] for other in rewards):
            problem = "the policies of these samples have different rewards or scales, so they cannot be compared"
            raise ConfigError(f"{source}: {problem}; run --keep {rule} for each policy separately")


def _chosen(
    rows: list[Example],
    rule: Rule,
    writer: ResumableWriter,
    *,
    policies: Mapping[str, Policy],
    weights: Mapping[str, Mapping[str, float]],
    seed: int,
) -> list[Example]:
    """Return the rows that a rule keeps, and reject the others. Policies and weights are by the policy's digest."""
    match rule.name:
        case "distinct":
            first: dict[tuple[str, str], str] = {}
            kept = [first.setdefault((row.cluster, as_text(row.completion)), row.id) == row.id for row in rows]
        case "front":
            kept = _undominated(rows, policies)
        case "top":
            values = [weighted_reward(row, policies[row.policy], weights[row.policy]) for row in rows]
            kept = _drop_lowest(values, len(rows) - _share(rule.number, rows))
        case "entropy":
            kept = _drop_until(_known(rows, "entropy"), rule.number, f"a mean entropy of {rule.number:g}")
        case "entropy-floor":
            kept = [entropy >= rule.number for entropy in _known(rows, "entropy")]
        case "entropy-share":
            kept = _drop_lowest(_known(rows, "entropy"), _share(rule.number, rows))
        case "kl":
            pairs = zip(_known(rows, "reference"), _known(rows, "logprob"), strict=True)
            nearness = [reference - logprob for reference, logprob in pairs]
            kept = _drop_until(nearness, -rule.number, f"a mean distance of {rule.number:g}")
        case _:  # random
            draws = [int(hashlib.sha256(f"{seed}/{row.id}".encode()).hexdigest(), 16) for row in rows]
            kept = _drop_lowest(draws, _share(rule.number, rows))
    for row, stays in zip(rows, kept, strict=True):
        if not stays:
            writer.reject(row.id, str(rule), row.to_json())
    writer.counts[f"seen by {rule.name}"] = len(rows)
    writer.counts[f"dropped by {rule.name}"] = kept.count(False)
    return [row for row, stays in zip(rows, kept, strict=True) if stays]


def parse_rules(text: str) -> list[Rule]:
    """Parse rules separated by commas: "distinct,top=0.5". Raises ConfigError."""
    rules = [_parse_rule(rule_text.strip(), text) for rule_text in text.split(",")]
    for name, times in Counter(rule.name for rule in rules).items():
        if times > 1:
            raise ConfigError(f"--keep {text}: {name} occurs twice; write each rule once")
    return rules


def _parse_rule(text: str, whole: str) -> Rule:
    name, equals, number = text.partition("=")
    if name in (BEST, NEAREST):
        raise ConfigError(
            f"--keep {whole}: {name} keeps one sample per prompt and target, and cannot be combined with rules"
        )
    if name not in _RULES:
        raise ConfigError(f"--keep {whole}: unknown rule '{name}'{did_you_mean(name, (BEST, NEAREST, *_RULES))}")
    if (limits := _RULES[name]) is None:
        if equals:
            raise ConfigError(f"--keep {whole}: {name} has no number; write {name}")
        return Rule(name)
    low, high = limits
    try:
        given = float(number)
    except ValueError:
        given = float("nan")
    if not low <= given <= high:
        raise ConfigError(f"--keep {whole}: write {name}= with a number from {low:g} to {high:g}")
    return Rule(name, given)


def _undominated(rows: list[Example], policies: Mapping[str, Policy]) -> list[bool]:
    """Keep the rows that no other row of the prompt dominates in all oriented z-scores. Raises DataError."""
    prompts: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        prompts.setdefault(row.cluster, []).append(index)
    kept = [False] * len(rows)
    for places in prompts.values():
        points = np.array([zscores(rows[index], policies[rows[index].policy]) for index in places])
        # Samples with equal rewards are all kept, because their rewards do not rank them.
        stays = moocore.is_nondominated(points, maximise=True, keep_weakly=True)
        for index, stay in zip(places, stays, strict=True):
            kept[index] = bool(stay)
    return kept


def _known(rows: Sequence[Example], name: str) -> list[float]:
    """Return a measured field of each row. Raises DataError if a row lacks it."""
    for row in rows:
        if getattr(row, name) is None:
            fix = "sample with --reference" if name == "reference" else "servers do not return it; use another rule"
            raise DataError(f"{row.id}: no {name}, which the guard needs; {fix}")
    return [float(getattr(row, name)) for row in rows]


def _share(share: float, rows: Sequence[Example]) -> int:
    return int(share * len(rows) + 0.5)


def _drop_lowest(numbers: Sequence[float], count: int) -> list[bool]:
    """Drop the lowest `count` numbers but keep at least one; in ties, drop the later ones."""
    order = sorted(range(len(numbers)), key=lambda index: (numbers[index], -index))
    dropped = set(order[: min(count, len(numbers) - 1)])
    return [index not in dropped for index in range(len(numbers))]


def _drop_until(numbers: Sequence[float], mean: float, problem: str) -> list[bool]:
    """Drop the fewest lowest numbers such that the mean of the rest is at least `mean`, or all but the highest."""
    # Exact arithmetic: rounding errors would drop rows that all equal the mean.
    order = sorted(map(Fraction, numbers))
    total, count, least = sum(order), 0, Fraction(mean)
    while count < len(order) - 1 and total < least * (len(order) - count):
        total -= order[count]
        count += 1
    if total < least * (len(order) - count):
        console.warn(f"no set of samples has {problem}; only the nearest sample is kept")
    return _drop_lowest(numbers, count)
