"""Create the scorer that a reward in rewards.yaml names."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irlhf.core.errors import ConfigError
from irlhf.core.registry import SCORERS, did_you_mean, resolve, scorer_names
from irlhf.policy.remote_model import RemoteModel, find_reward_model
from irlhf.policy.rewards_file import TEMPLATE, Reward
from irlhf.scoring.scorers.base import Scorer
from irlhf.scoring.scorers.column import Column
from irlhf.scoring.scorers.python_function import PythonFunction

_ADDRESSES = ("http", "https")  # URL schemes; such a scorer's name is its address
_IMPLICIT = {"beside"}  # parameters of a scorer that are not keys of rewards.yaml


def find(name: str, reward: Reward, beside: Path) -> Scorer:
    """Return the scorer of a reward. `beside` is the folder of the rewards.yaml.

    Raises ConfigError if there is no such scorer, or if it does not accept a key of the reward.
    """
    given = reward.for_scorer()
    if reward.column:
        return _create(name, Column, reward.column, given)
    kind, _, argument = reward.single.partition(":")
    if kind in _ADDRESSES:
        argument = reward.single
    known = scorer_names()
    hosted = None if kind in known else find_reward_model(reward.single, beside)
    if hosted:
        return _create(
            name, resolve(SCORERS["binary"]), _deployed(name, hosted), {"base_url": hosted.base_url, **given}
        )
    folders = Path(reward.single), beside / reward.single
    if kind not in known and (reward.by_path or any((folder / "config.json").is_file() for folder in folders)):
        kind, argument = "hf", reward.single
    if kind in SCORERS:
        given |= {"rubric": beside / Path(given["rubric"]).expanduser()} if "rubric" in given else {}
        if kind == "hf" and given.get("input", "").endswith(TEMPLATE):
            given["input"] = str(beside / Path(given["input"]).expanduser())
        if kind == "hf" and not Path(argument).is_dir() and (beside / argument).is_dir():
            argument = str(beside / argument)
        return _create(name, resolve(SCORERS[kind]), argument, given)
    if kind in known and argument:
        raise ConfigError(f"{name}: scorer '{kind}' accepts nothing after its name; set its parameters in `options:`")
    if kind not in known and not argument:
        raise ConfigError(f"{name}: unknown scorer {reward.single!r}{did_you_mean(reward.single, known)}")
    return _create(name, PythonFunction, known.get(kind, reward.single), {"beside": beside, **given})


def _create(name: str, factory: Any, argument: str, given: Mapping[str, Any]) -> Scorer:
    """Return a scorer created from the text after its name and the keys that it accepts. Raises ConfigError."""
    named = inspect.signature(factory).parameters.values()
    keys = [
        parameter.name
        for parameter in named
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _IMPLICIT
    ]
    arguments = [argument] if any(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in named) else []
    if argument and not arguments:
        raise ConfigError(f"{name}: this scorer accepts nothing after its name; remove ':{argument}'")
    for key in (parameter for parameter in given if parameter not in {*keys, *_IMPLICIT}):
        accepted = f"it accepts {', '.join(keys)}" if keys else "it accepts none"
        raise ConfigError(f"{name}: this scorer does not accept `{key}:` ({accepted}); remove it")
    try:
        scorer: Scorer = factory(*arguments, **given)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return scorer


def _deployed(name: str, hosted: RemoteModel) -> str:
    """Return the name of the deployed model. Raises ConfigError if it is not deployed yet."""
    if not hosted.model:
        model = hosted.trained or f"the model of job {hosted.job}"
        fix = "then record its name with `irlhf jobs deployed FOLDER NAME`"
        raise ConfigError(f"{name}: {model} must be deployed at {hosted.base_url}; {fix}")
    return hosted.model
