"""Choose, of the scored samples of one round, those that are worth training on: rules, one after the other.

distinct         of equal completions of one prompt the first
front            of a prompt's samples those that no other exceeds in every reward
top=0.5          the best half of all by weighted reward
entropy=1.2      guard: the least sure samples, as many as have this mean entropy (nats a token) together
entropy-floor=1  guard: no sample of less entropy
entropy-share=.3 guard: all but the three tenths of least entropy
kl=0.5           guard: the samples nearest to the reference, as many as have this mean distance (nats) together
random=0.3       all but three tenths by lot: what a guard of that share must beat

Shares are rounded, a half upwards. A share or a mean leaves one sample at least; `entropy-floor` may leave none, which
is an error.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from irlhf.scoring.samples import policies_of, read_samples, reward_of, selection_manifest
from irlhf.scoring.settings import BEST, NEAREST, SelectSettings

GUARDS = ("entropy", "entropy-floor", "entropy-share", "kl")
RANDOM = "random"


@dataclass(frozen=True)
class Rule:
    """One rule as it was written."""

    name: str
    number: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}={self.number:g}" if self.name in _NUMBERED else self.name


@dataclass(frozen=True)
class _Ruler:
    """What samples are compared by."""

    policies: Mapping[str, Policy]
    weights: Mapping[str, Mapping[str, float]]  # by the digest of the policy
    seed: int

    def vector(self, row: Example) -> list[float]:
        """Return a row's rewards in standard deviations of the training data, more is better. Raises DataError."""
        policy = self.policies[row.policy]
        return [policy.reward(name).zscore(reward_of(row, policy, name)) for name in policy.names]

    def weighted(self, row: Example) -> float:
        """Return a row's weighted reward. Raises DataError."""
        policy, weights = self.policies[row.policy], self.weights[row.policy]
        for name, weight in weights.items():
            if weight:
                reward_of(row, policy, name)
        return policy.weighted(policy.own(row.rewards), weights)


_Choose = Callable[[list[Example], float, _Ruler], list[bool]]


def select(samples: str | Path, output: str | Path, settings: SelectSettings) -> dict[str, Any]:
    """Write the rows that all rules keep, in their order, and return what was done.

    What a rule drops stands in `<output>.rejected.jsonl` with the rule as its reason; the counts say how many each
    rule saw and dropped. Of equals the first is kept. Raises ConfigError for an unknown rule or a policy that is not
    here, and DataError where a row lacks what a rule goes by.
    """
    source, out = Path(samples), Path(output)
    rules = parse_rules(settings.rules)
    with resumable_output(out, selection_manifest(source, settings), resumable=False) as book:
        if not book.finished:
            left = read_samples(source, settings.limit)
            ruler = _ruler(source, left, (rules, settings))
            book.counts["candidates"] = len(left)
            for rule in rules:
                left = _chosen(left, rule, ruler, book)
                if not left:
                    raise DataError(f"{source}: no sample is left after {rule}; keep more")
            for row in left:
                book.write(row)
    return book.summary()


def _ruler(source: Path, rows: Sequence[Example], how: tuple[Sequence[Rule], SelectSettings]) -> _Ruler:
    """Return what the rows are compared by. Raises ConfigError where that differs from row to row."""
    rules, settings = how
    policies = policies_of(source, rows, settings.policies)
    cards = [policy.rewards for policy in policies.values()]
    for rule in rules:
        if rule.name in _COMPARING and any(reward != cards[0] for reward in cards):
            problem = "policies that measure rewards otherwise drew these samples, so they cannot be compared"
            raise ConfigError(f"{source}: {problem}; choose from each policy's own (--keep {rule})")
    own = {digest: {reward.name: reward.weight for reward in policy.rewards} for digest, policy in policies.items()}
    given = {digest: read_weights(settings.weights, policy) or own[digest] for digest, policy in policies.items()}
    return _Ruler(policies, given, settings.seed)


def _chosen(rows: list[Example], rule: Rule, ruler: _Ruler, book: ResumableWriter) -> list[Example]:
    """Return the rows that a rule keeps, and set the others aside."""
    kept = _RULES[rule.name](rows, rule.number, ruler)
    for row, stays in zip(rows, kept, strict=True):
        if not stays:
            book.reject(row.id, str(rule), row.to_json())
    book.counts[f"seen by {rule.name}"] = len(rows)
    book.counts[f"dropped by {rule.name}"] = kept.count(False)
    return [row for row, stays in zip(rows, kept, strict=True) if stays]


def parse_rules(text: str) -> list[Rule]:
    """Read different rules parted by commas: "distinct,top=0.5". Raises ConfigError."""
    rules = [_parse_rule(rule_text.strip(), text) for rule_text in text.split(",")]
    for name, times in Counter(rule.name for rule in rules).items():
        if times > 1:
            raise ConfigError(f"--keep {text}: {name} stands twice; write each rule once")
    return rules


def _parse_rule(text: str, whole: str) -> Rule:
    name, equals, number = text.partition("=")
    if name in (BEST, NEAREST):
        raise ConfigError(f"--keep {whole}: {name} stands alone, for it keeps one sample of each prompt and target")
    if name not in _RULES:
        raise ConfigError(f"--keep {whole}: unknown rule '{name}'{did_you_mean(name, (BEST, NEAREST, *_RULES))}")
    if name not in _NUMBERED:
        if equals:
            raise ConfigError(f"--keep {whole}: {name} takes no number; write {name}")
        return Rule(name)
    low, high = _NUMBERED[name]
    try:
        given = float(number)
    except ValueError:
        given = float("nan")
    if not low <= given <= high:
        raise ConfigError(f"--keep {whole}: write {name}= and a number from {low:g} to {high:g}")
    return Rule(name, given)


def _distinct(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    first: dict[tuple[str, str], str] = {}
    return [first.setdefault((row.cluster, as_text(row.completion)), row.id) == row.id for row in rows]


def _front(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    prompts: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        prompts.setdefault(row.cluster, []).append(index)
    kept = [False] * len(rows)
    for places in prompts.values():
        points = np.array([ruler.vector(rows[index]) for index in places])
        # Equal ones stay together: which of them is worth training on, the rewards do not say.
        stays = moocore.is_nondominated(points, maximise=True, keep_weakly=True)
        for index, stay in zip(places, stays, strict=True):
            kept[index] = bool(stay)
    return kept


def _top(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    return _but_lowest([ruler.weighted(row) for row in rows], len(rows) - _share(number, rows))


def _entropy(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    """Drop the samples of least entropy, as few as bring the mean of the rest to the target."""
    return _until([_known(row, "entropy") for row in rows], number, f"an entropy of {number:g}")


def _entropy_floor(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    return [_known(row, "entropy") >= number for row in rows]


def _entropy_share(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    return _but_lowest([_known(row, "entropy") for row in rows], _share(number, rows))


def _kl(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    """Drop the samples that the reference finds least likely, as few as bring the mean distance down to the limit."""
    nearness = [_known(row, "reference") - _known(row, "logprob") for row in rows]
    return _until(nearness, -number, f"a distance of {number:g}")


def _random(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    lots = [int(hashlib.sha256(f"{ruler.seed}/{row.id}".encode()).hexdigest(), 16) for row in rows]
    return _but_lowest(lots, _share(number, rows))


_RULES: dict[str, _Choose] = {
    "distinct": _distinct,
    "front": _front,
    "top": _top,
    "entropy": _entropy,
    "entropy-floor": _entropy_floor,
    "entropy-share": _entropy_share,
    "kl": _kl,
    RANDOM: _random,
}
# The rules that take a number, and what it lies between.
_NUMBERED = {
    "top": (0, 1),
    "entropy": (0, 100),
    "entropy-floor": (0, 100),
    "entropy-share": (0, 1),
    "kl": (0, 1000),
    RANDOM: (0, 1),
}
_COMPARING = ("front", "top")  # the rules that go by the rewards of one row and another


def _known(row: Example, name: str) -> float:
    number = getattr(row, name)
    if number is None:
        mend = "sample with --reference" if name == "reference" else "no server tells it; take another rule"
        raise DataError(f"{row.id}: no {name}, which the guard goes by; {mend}")
    return float(number)


def _share(share: float, rows: Sequence[Example]) -> int:
    return int(share * len(rows) + 0.5)


def _but_lowest(numbers: Sequence[float], count: int) -> list[bool]:
    """Drop the lowest `count`, but the last one; of equals the later ones."""
    order = sorted(range(len(numbers)), key=lambda index: (numbers[index], -index))
    dropped = set(order[: min(count, len(numbers) - 1)])
    return [index not in dropped for index in range(len(numbers))]


def _until(numbers: Sequence[float], mean: float, problem: str) -> list[bool]:
    """Drop the lowest, as few as bring the mean of the rest up to `mean`; where none can, all but the highest."""
    # Exactly, for rounding would drop rows that all have just this number.
    order = sorted(map(Fraction, numbers))
    total, count, least = sum(order), 0, Fraction(mean)
    while count < len(order) - 1 and total < least * (len(order) - count):
        total -= order[count]
        count += 1
    if total < least * (len(order) - count):
        console.warn(f"no samples have {problem} together; the nearest to it is kept, alone")
    return _but_lowest(numbers, count)
