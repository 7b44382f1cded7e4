"""Did the policy give what was asked? Runs no model: all figures come from scored samples."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irlhf import console
from irlhf.errors import ConfigError, DataError
from irlhf.files import check_output, read_rows, write_json
from irlhf.policy import Policy, find_policies
from irlhf.records import Example, from_json, unique
from irlhf.registry import resolve
from irlhf.targets import weights_of

VERSION = 1  # of eval.json's shape
FEW_PROMPTS = 30  # below this, clustered intervals are too narrow

Pairs = list[tuple[str, float, float]]  # prompt, asked, actual (both in scale units)


@dataclass(frozen=True)
class EvalSettings:
    """Which policies the samples may come from, and how intervals are drawn."""

    policies: tuple[str, ...] = ()  # folders; empty: those that stand beside the samples
    resamples: int = 1000
    seed: int = 0


def evaluate(
    samples: Sequence[str | Path], output: str | Path, settings: EvalSettings = EvalSettings()
) -> dict[str, Any]:
    """Write eval.json and return it: how well actual follows target, and what asking for a mix brings.

    Every figure stands with its n and a 95% bootstrap interval clustered by prompt. Raises ConfigError
    where a policy of the samples cannot be found and DataError where nothing can be evaluated.
    """
    paths, out = [Path(one) for one in samples], Path(output)
    check_output(out, {f"samples {n}": path for n, path in enumerate(paths, 1)})
    by_policy = _read(paths)
    known = _find_policies(paths, by_policy, settings)
    arms = [(*known[digest], rows) for digest, rows in by_policy.items()]
    found = {policy.digest: _evaluate_policy(name, policy, rows, settings) for name, policy, rows in arms}
    mixes = resolve("irlhf.evaluate.tradeoff:tradeoff")(arms, settings.resamples, settings.seed)
    if not mixes and not any(one["rewards"] for one in found.values()):
        raise DataError(f"{paths[0]}: no sample has both a target and its reward; score the samples first")
    result = {
        "version": VERSION,
        "samples": [str(path) for path in paths],
        "settings": asdict(settings),
        "policies": found,
        "tradeoff": mixes,
    }
    write_json(out, result)
    return result


def _read(paths: Sequence[Path]) -> dict[str, list[Example]]:
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError("a file of samples is named twice; each counts once")
    by_policy: dict[str, list[Example]] = {}
    for path in paths:
        for example in unique((where, from_json(row, where)) for where, row in read_rows(path)):
            if not example.policy:
                raise DataError(f"{path}: {example.id} has no 'policy'; eval reads what `irlhf sample` wrote")
            by_policy.setdefault(example.policy, []).append(example)
    return by_policy


def _find_policies(
    paths: Sequence[Path], wanted: dict[str, list[Example]], settings: EvalSettings
) -> dict[str, tuple[str, Policy]]:
    """Return the name and the card of every policy that the samples came from."""
    cards = find_policies(paths, settings.policies)
    missing = [digest for digest in wanted if digest not in cards]
    if missing:
        raise ConfigError(f"the policy {missing[0]} of these samples is not here; name its folder with --policy")
    return {digest: (folder.name, policy) for digest, (folder, policy) in cards.items()}


def _evaluate_policy(name: str, policy: Policy, rows: Sequence[Example], settings: EvalSettings) -> dict[str, Any]:
    draw = settings.resamples, settings.seed
    rewards: dict[str, Any] = {}
    for reward in policy.names:
        pairs = list(_pairs(reward, policy, rows))
        if pairs:
            rewards[reward] = resolve("irlhf.evaluate.tracking:tracking")(pairs, *draw)
            _warn_of_few(name, reward, rewards[reward]["prompts"])
        gold = [
            (row.cluster, row.asked[reward], row.gold[reward]) for row in _targeted(reward, rows) if reward in row.gold
        ]
        if pairs and gold:
            rewards[reward]["gold"] = resolve("irlhf.evaluate.tracking:rank_tracking")(gold, *draw)
    entropies = [row.entropy for row in rows if row.entropy is not None]
    return {
        "name": name,
        "baseline": policy.baseline,
        "samples": len(rows),
        "rewards": rewards,
        "tokens": sum(row.tokens or 0 for row in rows) / len(rows),
        "entropy": sum(entropies) / len(entropies) if entropies else "not available",
        "unfinished": sum(row.finish == "length" for row in rows),
    }


def _pairs(reward: str, policy: Policy, rows: Sequence[Example]) -> Iterator[tuple[str, float, float]]:
    scale = policy.reward(reward).scale
    for row in _targeted(reward, rows):
        if reward in row.rewards:
            yield row.cluster, row.asked[reward], scale(row.rewards[reward])


def _targeted(reward: str, rows: Sequence[Example]) -> Iterator[Example]:
    """Yield the samples that were asked for this reward itself, not for a mix."""
    return (row for row in rows if reward in row.asked and not weights_of(row.target))


def _warn_of_few(name: str, reward: str, prompts: int) -> None:
    if prompts < FEW_PROMPTS:
        console.warn(f"{name}, {reward}: {prompts} prompts; intervals from fewer than {FEW_PROMPTS} are too narrow")
