"""Compute eval.json from scored samples or preference pairs. Runs no model."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.bootstrap import Bootstrap, few_prompts
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import TRAIN, Example
from irlhf.evaluation.arms import Arm, arms_of
from irlhf.evaluation.bounds import bounds
from irlhf.evaluation.calibration import calibrate
from irlhf.evaluation.comparison import comparisons
from irlhf.evaluation.costs import price
from irlhf.evaluation.crosstalk import crosstalk
from irlhf.evaluation.curve import curve
from irlhf.evaluation.fronts import fronts
from irlhf.evaluation.gold import gold_tracking
from irlhf.evaluation.inputs import read_all
from irlhf.evaluation.preferences import preferences, read_specs
from irlhf.evaluation.settings import EvalSettings
from irlhf.evaluation.tracking import ordered_error, tracking
from irlhf.evaluation.tradeoff import tradeoff
from irlhf.io.files import STREAM, check_output, digest, write_json
from irlhf.policy.evaluation_file import VERSION, read_evaluation
from irlhf.policy.model_card import fill_model_card
from irlhf.policy.policy_file import Calibration, read_policy, write_calibration
from irlhf.policy.recorded_rewards import warn_of_other_scorers
from irlhf.policy.scales import WITHIN
from irlhf.policy.targets import weights_of

_NO_REQUESTS: Mapping[str, Any] = {"policies": {}, "tradeoff": [], "fronts": {}, "comparisons": []}


def evaluate(
    samples: Sequence[str | Path], output: str | Path, settings: EvalSettings = EvalSettings()
) -> dict[str, Any]:
    """Write eval.json to `output` and return its content: tracking, mixes, costs and comparisons.

    Every metric has its n and a 95% bootstrap interval clustered by prompt. The model cards in the policy folders get
    the same metrics. With `settings.calibrate`, the policy.json of that folder gets the reachable range of targets.
    Rows without a policy that are labelled chosen and rejected are preference pairs: the metrics are then how often
    each reward prefers the chosen completion. Raises ConfigError if a policy of the samples is missing and DataError
    if there is nothing to evaluate.
    """
    paths, out = [Path(sample_path) for sample_path in samples], Path(output)
    _check(paths, out, settings)
    specs, bootstrap = read_specs(settings.rewards), Bootstrap(settings.resamples, settings.seed)
    rows, counts = read_all(paths)
    _check_kind(rows[0], settings)
    another = [settings.calibrate] if settings.calibrate else []
    arms = arms_of(rows, paths, settings.policies, another) if rows[0].policy else []
    for path in paths:
        for arm in arms:
            warn_of_other_scorers(arm.policy.scorers, path)
    measured = calibrate(arms, Path(settings.calibrate), bootstrap) if settings.calibrate else None
    if arms:
        figures = _request_metrics(arms, settings, bootstrap, paths[0])
    else:
        figures = {**_NO_REQUESTS, "pairs": preferences(rows, specs, bootstrap, paths[0])}
    if measured:
        figures["policies"][measured.arm]["calibration"] = measured.summary
        _remember(Path(settings.calibrate), measured.calibration)
    result = {
        "version": VERSION,
        "samples": [str(path) for path in paths],
        "settings": asdict(settings),
        "provenance": _provenance(paths, counts),
        **figures,
    }
    write_json(out, result)
    for arm in arms:
        if os.access(arm.folder, os.W_OK):
            fill_model_card(arm.folder, result, arm.policy.digest)
    return result


def _request_metrics(arms: Sequence[Arm], settings: EvalSettings, bootstrap: Bootstrap, path: Path) -> dict[str, Any]:
    """Return the metrics of samples. Raises DataError if no sample has both a target and its reward."""
    _warn_unranked(arms)
    policies = {arm.key: _arm_metrics(arm, settings.tolerance, bootstrap) for arm in arms}
    mixes = tradeoff(arms, bootstrap)
    if not mixes and not any(policy["rewards"] or policy["bounds"] for policy in policies.values()):
        raise DataError(f"{path}: no sample has both a target and its reward; score the samples first")
    _warn_unscored(arms)
    _warn(arms, policies.values())
    return {
        "policies": policies,
        "tradeoff": mixes,
        "fronts": fronts(arms, bootstrap),
        "comparisons": comparisons(arms, bootstrap),
    }


def _remember(folder: Path, calibration: Calibration) -> None:
    """Write a calibration to policy.json, and to the chat template that serves the policy."""
    write_calibration(folder, calibration)
    from irlhf.models.chat_template_writer import write_chat_template  # loads transformers

    write_chat_template(folder, read_policy(folder))


def _provenance(paths: Sequence[Path], counts: Sequence[int]) -> dict[str, Any]:
    inputs = [
        {"path": str(path), "sha256": digest(path), "rows": rows} for path, rows in zip(paths, counts, strict=True)
    ]
    return {"irlhf": version("irlhf"), "inputs": inputs}


def _check(paths: Sequence[Path], out: Path, settings: EvalSettings) -> None:
    check_output(out, {f"samples {n}": path for n, path in enumerate(paths, 1)})
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name a file")
    if out.is_file() and out.stat().st_size:
        _check_other_run(paths, out)
    if not math.isfinite(settings.tolerance):
        raise ConfigError(f"a tolerance of {settings.tolerance} makes every sample a success; use a finite number")


def _check_other_run(paths: Sequence[Path], out: Path) -> None:
    """Raise ConfigError if a file holds anything but an evaluation of the same samples."""
    try:
        before = read_evaluation(out)
    except DataError as error:
        raise ConfigError(f"{out} is not an eval.json of this version; choose another output, or delete it") from error
    written, known = before["samples"], [entry.get("sha256") for entry in before["provenance"].get("inputs", [])]
    same_paths = list(map(os.path.realpath, written)) == list(map(os.path.realpath, paths))
    if STREAM in paths:
        console.warn(f"{out} is overwritten; samples from stdin cannot be compared with those that it evaluates")
    elif not same_paths and known != list(map(digest, paths)):
        raise ConfigError(f"{out} evaluates {', '.join(written)}; choose another output with -o, or delete it")


def _check_kind(row: Example, settings: EvalSettings) -> None:
    """Raise ConfigError for options that do not apply to this kind of rows."""
    if row.policy and settings.rewards:
        raise ConfigError("-r applies to preference pairs; for samples, policy.json has the direction of each reward")
    given = {"--policy": bool(settings.policies), "--calibrate": bool(settings.calibrate)}
    wrong = [option for option, there in given.items() if there and not row.policy]
    if wrong:
        raise ConfigError(f"{' and '.join(wrong)}: does not apply to preference pairs, which have no policy; remove it")


def _warn(arms: Sequence[Arm], policies: Iterable[Mapping[str, Any]]) -> None:
    """Warn about samples that make the metrics unreliable."""
    learnt = sum(row.split == TRAIN for arm in arms for row in arm.rows)
    if learnt:
        console.warn(f"{learnt:,} samples are of prompts of the {TRAIN} split, which a policy may have memorised")
    unknown = sorted({name for arm in arms for name in arm.policy.names} - set(arms[0].policy.names))
    if unknown and any(weights_of(row.target) for arm in arms[1:] for row in arm.rows):
        mixes = f"mixes with {', '.join(unknown)} are not compared"
        console.warn(f"{mixes}: {arms[0].name}, whose training data defines the units, has no such reward")
    mixed = [arm.name for arm in arms if arm.mixed]
    if mixed:
        different = "with different temperature, top-p or guidance"
        console.warn(f"samples of {', '.join(mixed)} were drawn {different}; evaluate each setting by itself")
    if few := few_prompts({policy["name"]: policy["prompts"] for policy in policies}):
        console.warn(few)


def _warn_unranked(arms: Sequence[Arm]) -> None:
    """Warn about samples on the scale `within` whose rank cannot be compared with their target."""
    ranked = [(arm, name) for arm in arms for name in arm.policy.ranked]
    for arm, name in ranked:
        if without := len(arm.requested(name)) - len(arm.pairs(name)):
            console.warn(
                f"{arm.name}: {without:,} samples are left out of the metrics of {name}, whose scale ranks the samples"
                f" of a prompt: a prompt needs two different targets, as in -t {name}=0.1:0.9:0.2"
            )


def _warn_unscored(arms: Sequence[Arm]) -> None:
    """Warn about requested rewards that samples lack, which are missing from the metrics."""
    for arm in arms:
        for name, count in _unscored(arm).items():
            missing = f"{count:,} of {len(arm.rows):,} samples requested {name} and have no reward of this name"
            console.warn(f"{arm.name}: {missing}; score them with a rewards.yaml that has {name}")


def _unscored(arm: Arm) -> dict[str, int]:
    """Return the number of samples that requested a reward and lack it, by reward."""
    requested = [name for row in arm.rows for name in {*row.target, *row.prompt_numbers} - row.rewards.keys()]
    return {name: count for name in arm.policy.names if (count := requested.count(name))}


def _arm_metrics(arm: Arm, tolerance: float, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return all metrics of one arm."""
    rewards = {name: _reward(arm, name, tolerance, bootstrap) for name in arm.policy.names if arm.pairs(name)}
    prompts = len({row.cluster for row in arm.rows})
    return {
        "name": arm.name,
        "digest": arm.policy.digest,
        "baseline": arm.policy.baseline,
        "blind": arm.policy.blind,
        "base": Path(arm.policy.base).name,
        "samples": len(arm.rows),
        "prompts": prompts,
        "splits": dict(Counter(row.split or "none" for row in arm.rows)),
        "decoding": arm.decodings,
        "rewards": rewards,
        "unscored": _unscored(arm),
        "bounds": bounds(arm, bootstrap),
        "crosstalk": crosstalk(arm, bootstrap),
        **price(arm, bootstrap),
    }


def _reward(arm: Arm, reward: str, tolerance: float, bootstrap: Bootstrap) -> dict[str, Any]:
    pairs = arm.pairs(reward)
    scale = arm.policy.reward(reward).scale
    figures = {
        "scale": scale.kind,
        "direction": scale.direction,
        **tracking(pairs, tolerance, bootstrap),
        "curve": curve(pairs, bootstrap),
    }
    if scale.kind == WITHIN:
        figures["error"]["floor_ordered"] = ordered_error(pairs)
    gold = gold_tracking(pairs, bootstrap)
    return figures | ({"gold": gold} if gold else {})
