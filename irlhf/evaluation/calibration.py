"""Measure the targets that a policy reaches, for its policy.json."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from irlhf.core import console
from irlhf.core.bootstrap import Bootstrap
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import TEST, TRAIN, VALIDATION, Example
from irlhf.evaluation.arms import Arm, Pair, by_prompt
from irlhf.evaluation.target_range import Reached, find_reach
from irlhf.policy.policy_file import Achieved, Calibration, Policy, read_policy
from irlhf.policy.targets import parse_value, weights_of

LEAST_PROMPTS = 20  # for values that later sampling relies on

_BOUNDS = ("at-least", "at-most", "between")  # kinds of targets that are ranges


class Measured(NamedTuple):
    """The calibration for policy.json, and its summary for eval.json."""

    arm: str  # its key
    calibration: Calibration
    summary: dict[str, Any]


def calibrate(arms: Sequence[Arm], folder: Path, bootstrap: Bootstrap) -> Measured:
    """Return the calibration of the policy in `folder` from its samples.

    Only samples with exact targets count, not those with ranges or mixes, nor those kept by `score --keep`. If there
    are samples of validation prompts, only these are used. Raises ConfigError if there are no samples of this policy
    or it cannot be calibrated, and DataError for too few samples, samples of training prompts, or different decoding
    settings.
    """
    arm = _arm(arms, folder)
    rows = _rows(arm)
    pairs = _pairs(replace(arm, rows=rows))
    if not pairs:
        reason = f"too few scored samples with exact targets; at least {LEAST_PROMPTS} prompts are needed"
        raise DataError(f"{folder}: cannot be calibrated: {reason}; sample with -t {arm.policy.names[0]}=0:1:0.1")
    reached = {name: find_reach(reward_pairs, bootstrap) for name, reward_pairs in pairs.items()}
    measured = Calibration(
        reach={name: reach.reach for name, reach in reached.items() if reach.reach},
        achieved=tuple(_achieved(rows, arm.policy)),
        decoding=_decoding(rows, folder),
        samples=len(rows),
        prompts=len({row.cluster for row in rows}),
        splits=dict(Counter(row.split or "none" for row in rows)),
    )
    return Measured(arm.key, measured, _summary(measured, pairs, reached))


def _arm(arms: Sequence[Arm], folder: Path) -> Arm:
    policy = read_policy(folder)
    if policy.blind:
        raise ConfigError(f"{folder}: its prompts contain no rewards, so there is nothing to calibrate")
    if policy.ranked:
        names = ", ".join(policy.ranked)
        raise ConfigError(
            f"{folder}: {names} has scale within, and the rank of a sample depends on the other targets in the file, so"
            " it cannot be calibrated; remove --calibrate"
        )
    for arm in arms:
        if arm.policy.digest == policy.digest and not arm.rows[0].kept:
            return arm
    raise ConfigError(f"{folder}: no samples of it (policy {policy.digest}); draw and score some")


def _rows(arm: Arm) -> list[Example]:
    """Return the samples to calibrate on. Raises DataError for samples of training prompts."""
    rows = [
        row for row in arm.rows if not weights_of(row.target) and any(_exact(row, name) for name in row.prompt_numbers)
    ]
    counts = Counter(row.split for row in rows)
    if counts[TRAIN]:
        warning = f"{counts[TRAIN]:,} samples are of prompts of the {TRAIN} split, which it may have memorised"
        raise DataError(f"{arm.name}: cannot be calibrated: {warning}; sample with --split {VALIDATION}")
    if counts[VALIDATION]:
        return [row for row in rows if row.split == VALIDATION]
    if counts[TEST]:
        warning = f"on {counts[TEST]:,} samples of the {TEST} split"
        console.warn(f"{arm.name} is calibrated {warning}; evaluate it on other prompts")
    return rows


def _pairs(arm: Arm) -> dict[str, list[Pair]]:
    """Return the pairs with an exact target, by reward, for rewards with enough prompts."""
    # Calibration maps the number in the prompt to the actual reward, so the target is the number in the prompt.
    pairs = {
        name: [
            pair._replace(target=pair.row.prompt_numbers[name]) for pair in arm.pairs(name) if _exact(pair.row, name)
        ]
        for name in arm.policy.names
    }
    return {
        name: reward_pairs
        for name, reward_pairs in pairs.items()
        if len({pair.prompt for pair in reward_pairs}) >= LEAST_PROMPTS
    }


def _exact(row: Example, reward: str) -> bool:
    """Return whether the sample has an exact target for this reward, written or drawn, and not a range."""
    text = row.target.get(reward)
    return not text or parse_value(reward, text).kind not in _BOUNDS


def _achieved(rows: Iterable[Example], policy: Policy) -> Iterable[Achieved]:
    """Yield every request with enough prompts, and its raw rewards: the mean over prompts of the mean per prompt."""
    requests: dict[tuple[tuple[str, float], ...], list[Example]] = {}
    for row in rows:
        if row.prompt_numbers and not weights_of(row.target) and all(_exact(row, name) for name in row.prompt_numbers):
            requests.setdefault(tuple(sorted(row.prompt_numbers.items())), []).append(row)
    for numbers, answers in sorted(requests.items()):
        scored = [row for row in answers if len(policy.own(row.rewards)) == len(policy.names)]
        prompts = [indices for _, indices in by_prompt([row.cluster for row in scored])]
        if len(prompts) >= LEAST_PROMPTS and set(dict(numbers)) <= set(policy.names):
            means = [_means([policy.own(scored[i].rewards) for i in indices]) for indices in prompts]
            yield Achieved(dict(numbers), _means(means), len(prompts))


def _means(rewards: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(row_rewards[name] for row_rewards in rewards) / len(rewards) for name in rewards[0]}


def _decoding(rows: Sequence[Example], folder: Path) -> dict[str, float]:
    """Return the decoding settings of all rows. Raises DataError if they differ."""
    first = rows[0].decoding
    for row in rows:
        if row.decoding != first:
            both = f"{dict(first) or 'unknown'} and {dict(row.decoding) or 'unknown'}"
            raise DataError(
                f"{folder}: cannot be calibrated on samples with different decoding settings: {both}; use one setting"
            )
    return dict(first)


def _summary(
    measured: Calibration, pairs: Mapping[str, Sequence[Pair]], reached: Mapping[str, Reached]
) -> dict[str, Any]:
    """Return the summary for eval.json: reachable range and intervals of each reward."""
    return {
        "samples": measured.samples,
        "prompts": measured.prompts,
        "splits": dict(measured.splits),
        "decoding": dict(measured.decoding),
        "requests": len(measured.achieved),
        "rewards": {
            name: {
                "n": len(pairs[name]),
                "asked": [min(pair.target for pair in pairs[name]), max(pair.target for pair in pairs[name])],
                "reach": [reach.reach.low, reach.reach.high] if reach.reach else None,
                "map": bool(reach.reach and reach.reach.xs),
                "rise": reach.rise,
                "dip": reach.dip,
                "fall": reach.fall,
                "gain": reach.gain,
            }
            for name, reach in reached.items()
        },
    }
