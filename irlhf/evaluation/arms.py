"""Samples that stand together in a comparison: those of one policy, or those kept from several of its samples."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example
from irlhf.policy.policy_file import Policy, check_known_policies, find_policies
from irlhf.policy.targets import parse_value, weighs, weights_of

_WAYS = ("temperature", "top_p", "guidance")  # what decides which distribution a token comes from
ROUNDING = 1e-6  # of `prompt_numbers`, which a sample holds with six digits


class Pair(NamedTuple):
    """What one sample was asked for and gave, both in the units of the policy's scale."""

    prompt: str
    target: float
    actual: float
    least: float  # what at least was asked for: the threshold of an at-least target, else `target`
    row: Example
    gold: float | None = None  # on its scorer's own scale, negated where less of the reward is better
    most: float = math.inf  # what at most was asked for

    @property
    def enough(self) -> bool:
        """Whether at least what was asked for came back, and no more than was asked for at most."""
        return self.least - ROUNDING <= self.actual <= self.most + ROUNDING


@dataclass(frozen=True)
class Arm:
    """One side of a comparison, as eval.json names it."""

    key: str
    name: str
    policy: Policy
    rows: Sequence[Example]
    folder: Path = Path()  # the policy's

    @property
    def answers_all(self) -> bool:
        """Whether every sample answers every weighting: nothing was shown, and nothing was picked."""
        return self.policy.blind and not self.rows[0].kept

    @property
    def drawn(self) -> Sequence[Example]:
        """The samples, each once: without rewards in its prompt a policy draws the same whatever is asked."""
        if not self.policy.blind:
            return self.rows
        return list({(row.id, row.seed, row.kept): row for row in reversed(self.rows)}.values())[::-1]

    @property
    def decodings(self) -> list[dict[str, float]]:
        """The ways in which the samples were drawn, each once; samples of an older irlhf do not say."""
        decodings: list[dict[str, float]] = []
        for row in self.rows:
            if row.decoding and row.decoding not in decodings:
                decodings.append(dict(row.decoding))
        return decodings

    @property
    def mixed(self) -> bool:
        """Whether some samples were drawn otherwise than others."""
        return len({tuple(decoding.get(name) for name in _WAYS) for decoding in self.decodings}) > 1

    def pairs(self, reward: str) -> list[Pair]:
        """Return the scored samples that were asked for this reward itself, not for a mix.

        On the scale `within` the actual is the rank among the samples of the prompt. Samples that it says nothing of
        are left out, see `_comparable`.
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
        """Return the scored samples whose target names this reward itself, not a mix."""
        return [
            row
            for row in self.rows
            if reward in row.prompt_numbers and reward in row.rewards and not _mixed(row, reward)
        ]

    def answers(self, weights: Mapping[str, float]) -> list[Example]:
        """Return the scored samples that were asked for this weighting, or answer every one."""
        return [
            row
            for row in (self.drawn if self.answers_all else self.rows)
            if (self.answers_all or weights_of(row.target) == weights) and all(name in row.rewards for name in weights)
        ]


def arms_of(
    samples: Iterable[Example], paths: Sequence[Path], policies: Sequence[str], another: Sequence[str] = ()
) -> list[Arm]:
    """Return the arms of the samples in the order they appear, baselines last.

    Policies are found in the folders `policies`, else beside the files; `another` names folders that count besides.
    Raises ConfigError where a policy cannot be found.
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
    """Return every weighting that some sample was asked with, in the order they appear.

    Left out are those of rewards that the first arm's policy, whose training data measures all, does not know.
    """
    distinct = {tuple(weights_of(row.target).items()): None for arm in arms for row in arm.rows}
    known = set(arms[0].policy.names)
    return [dict(weighting) for weighting in distinct if weighting and set(dict(weighting)) <= known]


def by_prompt(prompts: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    """Yield each prompt with the numbers of its rows."""
    rows: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(i)
    yield from rows.items()


def mean_of(rows: Iterable[Example], measure: Callable[[Example], float | None]) -> float | None:
    """Return the mean over the rows that have the measure; nothing where none has."""
    there = [number for row in rows if (number := measure(row)) is not None]
    return sum(there) / len(there) if there else None


def divergence(row: Example) -> float | None:
    """Return a sample's share in KL(policy || reference), in nats.

    What was kept from several samples is no sample of the policy, and says nothing of its KL.
    """
    if row.logprob is None or row.reference is None or row.kept:
        return None
    return row.logprob - row.reference


def costs(rows: Sequence[Example]) -> dict[str, float | None]:
    """Return the means of entropy, of what it lies between where only the likeliest tokens are known, and of KL."""
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
    """Return whether a reward was asked for on behalf of a mix: by its weight, or beside the weights of others."""
    text = row.target.get(reward, "")
    return weighs(text) or (not text and any(map(weighs, row.target.values())))


def _comparable(rows: Sequence[Example], reward: str) -> list[Example]:
    """Return the samples whose rank in their prompt can be held against a target.

    A rank among samples that were all asked for the same, or for bounds, is another one than the rank among
    completions of the training data that the target names.
    """
    exact = [row for row in rows if not row.target.get(reward) or not parse_value(reward, row.target[reward]).ranged]
    targets: dict[str, set[float]] = {}
    for row in exact:
        targets.setdefault(row.cluster, set()).add(row.wishes[reward])
    return [row for row in exact if len(targets[row.cluster]) > 1]


def _bounds(row: Example, reward: str) -> tuple[float, float]:
    """Return what at least and at most was asked for."""
    try:
        target = parse_value(reward, row.target[reward]) if row.target.get(reward) else None
    except ConfigError as error:
        raise DataError(f"{row.id}: {error}") from error
    if target is None or not target.ranged:
        return row.wishes[reward], math.inf
    return -math.inf if target.low is None else target.low, math.inf if target.high is None else target.high
