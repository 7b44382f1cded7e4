"""Group samples into arms: the samples of one policy, or those that `score --keep` kept of them."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example
from irlhf.policy.policy_file import Policy, check_known_policies, find_policies
from irlhf.policy.targets import parse_value, weighs, weights_of

_WAYS = ("temperature", "top_p", "guidance")  # settings that change the distribution of a token
ROUNDING = 1e-6  # samples store `prompt_numbers` with six digits


class Pair(NamedTuple):
    """The target and the actual reward of one sample, in the units of the policy's scale."""

    prompt: str
    target: float
    actual: float
    least: float  # lower bound that was requested; `target` unless it is a range
    row: Example
    gold: float | None = None  # in the gold scorer's units, negated if lower rewards are better
    most: float = math.inf  # upper bound that was requested

    @property
    def enough(self) -> bool:
        """Whether the actual reward lies within the requested bounds."""
        return self.least - ROUNDING <= self.actual <= self.most + ROUNDING


@dataclass(frozen=True)
class Arm:
    """The samples of one entry of eval.json's `policies`."""

    key: str
    name: str
    policy: Policy
    rows: Sequence[Example]
    folder: Path = Path()  # the policy's

    @property
    def answers_all(self) -> bool:
        """Whether every sample counts for every weighting: prompts without rewards, and no sample was selected."""
        return self.policy.blind and not self.rows[0].kept

    @property
    def drawn(self) -> Sequence[Example]:
        """The distinct samples. A policy without rewards in its prompts draws the same sample for every target."""
        if not self.policy.blind:
            return self.rows
        return list({(row.id, row.seed, row.kept): row for row in reversed(self.rows)}.values())[::-1]

    @property
    def decodings(self) -> list[dict[str, float]]:
        """The distinct decoding settings of the samples. Samples of older versions have none."""
        decodings: list[dict[str, float]] = []
        for row in self.rows:
            if row.decoding and row.decoding not in decodings:
                decodings.append(dict(row.decoding))
        return decodings

    @property
    def mixed(self) -> bool:
        """Whether samples were drawn with different decoding settings."""
        return len({tuple(decoding.get(name) for name in _WAYS) for decoding in self.decodings}) > 1

    def pairs(self, reward: str) -> list[Pair]:
        """Return the scored samples with a target for this reward itself, not for a mix.

        On the scale `within` the actual is the rank among the samples of the prompt; `_comparable` removes samples
        whose rank cannot be compared with a target.
        """
        sign = -1 if self.policy.reward(reward).scale.direction == "lower" else 1
        rows = self.requested(reward)
        if reward in self.policy.ranked:
            rows = _comparable(rows, reward)
        pairs = []
        for row, actual in zip(rows, self.policy.actual(reward, rows), strict=True):
            if actual is not None:
                gold = sign * row.gold[reward] if reward in row.gold else None
                least, most = _bounds(row, reward)
                pairs.append(Pair(row.cluster, row.wishes[reward], actual, least, row, gold, most))
        return pairs

    def requested(self, reward: str) -> list[Example]:
        """Return the scored samples with a target for this reward itself, not for a mix."""
        return [
            row
            for row in self.rows
            if reward in row.prompt_numbers and reward in row.rewards and not _mixed(row, reward)
        ]

    def answers(self, weights: Mapping[str, float]) -> list[Example]:
        """Return the scored samples that count for a weighting: those that requested it, or all if `answers_all`."""
        return [
            row
            for row in (self.drawn if self.answers_all else self.rows)
            if (self.answers_all or weights_of(row.target) == weights) and all(name in row.rewards for name in weights)
        ]


def arms_of(
    samples: Iterable[Example], paths: Sequence[Path], policies: Sequence[str], another: Sequence[str] = ()
) -> list[Arm]:
    """Return the arms of the samples in order of appearance, baselines last.

    Policies are searched in the folders `policies`, or beside the files if there are none, and in the folders
    `another`. Raises ConfigError if a policy is missing.
    """
    groups: dict[tuple[str, str], list[Example]] = {}
    rows = list(samples)
    for example in rows:
        groups.setdefault((example.policy, _kept(example)), []).append(example)
    known = {**find_policies(paths, policies), **find_policies((), another)}
    check_known_policies(rows, known)
    arms = [_arm(known[digest], kept, drawn) for (digest, kept), drawn in groups.items()]
    return sorted(arms, key=lambda arm: bool(arm.policy.baseline))


def weightings(arms: Sequence[Arm]) -> list[dict[str, float]]:
    """Return the requested weightings in order of appearance.

    Weightings of rewards that the first arm's policy lacks are left out, because its training data defines the units.
    """
    distinct = {tuple(weights_of(row.target).items()): None for arm in arms for row in arm.rows}
    known = set(arms[0].policy.names)
    return [dict(weighting) for weighting in distinct if weighting and set(dict(weighting)) <= known]


def by_prompt(prompts: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    """Yield each prompt with the positions of its rows."""
    rows: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(i)
    yield from rows.items()


def mean_of(rows: Iterable[Example], measure: Callable[[Example], float | None]) -> float | None:
    """Return the mean over the rows that have a value; None if no row has one."""
    there = [number for row in rows if (number := measure(row)) is not None]
    return sum(there) / len(there) if there else None


def divergence(row: Example) -> float | None:
    """Return log p(policy) - log p(reference) of a sample, in nats; its mean estimates KL(policy || reference).

    None without both, and for samples kept by `score --keep`, which are not distributed like the policy's samples.
    """
    if row.logprob is None or row.reference is None or row.kept:
        return None
    return row.logprob - row.reference


def costs(rows: Sequence[Example]) -> dict[str, float | None]:
    """Return mean entropy (nats a token), its bounds if only the top tokens are known, and KL (nats a completion)."""
    closed = all(row.entropy_high is not None for row in rows if row.entropy_low is not None)
    return {
        "entropy": mean_of(rows, lambda row: row.entropy),
        "entropy_low": mean_of(rows, lambda row: row.entropy_low),
        "entropy_high": mean_of(rows, lambda row: row.entropy_high) if closed else None,
        "kl": mean_of(rows, divergence),
    }


def _arm(located: tuple[Path, Policy], kept: str, rows: Sequence[Example]) -> Arm:
    folder, policy = located
    own = [replace(row, rewards={**row.rewards, **policy.own(row.rewards)}) for row in rows]
    return Arm(f"{policy.digest}{kept}", f"{folder.resolve().name}{kept}", policy, own, folder)


def _kept(row: Example) -> str:
    return f", {row.kept} of {row.candidates}" if row.kept else ""


def _mixed(row: Example, reward: str) -> bool:
    """Return whether the sample requested a mix: a weight for this reward, or no target beside weights of others."""
    text = row.target.get(reward, "")
    return weighs(text) or (not text and any(map(weighs, row.target.values())))


def _comparable(rows: Sequence[Example], reward: str) -> list[Example]:
    """Return the samples whose rank within their prompt can be compared with their target.

    A target is a rank among completions of the training data. Samples of one prompt that all have the same target,
    or a range, do not have comparable ranks.
    """
    exact = [row for row in rows if not row.target.get(reward) or not parse_value(reward, row.target[reward]).ranged]
    targets: dict[str, set[float]] = {}
    for row in exact:
        targets.setdefault(row.cluster, set()).add(row.wishes[reward])
    return [row for row in exact if len(targets[row.cluster]) > 1]


def _bounds(row: Example, reward: str) -> tuple[float, float]:
    """Return the requested lower and upper bound."""
    try:
        target = parse_value(reward, row.target[reward]) if row.target.get(reward) else None
    except ConfigError as error:
        raise DataError(f"{row.id}: {error}") from error
    if target is None or not target.ranged:
        return row.wishes[reward], math.inf
    return -math.inf if target.low is None else target.low, math.inf if target.high is None else target.high
