"""How the name in a rewards.yaml leads to a scorer."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irlhf.core.errors import ConfigError
from irlhf.core.registry import SCORERS, did_you_mean, resolve, scorer_names
from irlhf.policy.remote_model import RemoteModel, find_reward_model
from irlhf.policy.rewards_file import Reward
from irlhf.scoring.scorers.base import Scorer
from irlhf.scoring.scorers.column import Column
from irlhf.scoring.scorers.python_function import PythonFunction

_ADDRESSES = ("http", "https")  # of servers, which are named by them
_IMPLICIT = {"beside"}  # what a scorer is told without a key in the rewards.yaml


def find(name: str, reward: Reward, beside: Path) -> Scorer:
    """Return the scorer of a reward, whose rewards.yaml stands in the folder `beside`.

    Raises ConfigError where nothing answers to its name, or where it does not take what it is given.
    """
    given = reward.for_scorer()
    if reward.column:
        return _made(name, Column, reward.column, given)
    kind, _, argument = reward.scorer.partition(":")
    if kind in _ADDRESSES:
        argument = reward.scorer
    known = scorer_names()
    hosted = None if kind in known else find_reward_model(reward.scorer, beside)
    if hosted:
        return _made(name, resolve(SCORERS["binary"]), _deployed(name, hosted), {"base_url": hosted.base_url, **given})
    if kind not in known and (reward.by_path or _is_model(reward.scorer, beside)):
        kind, argument = "hf", reward.scorer
    if kind in SCORERS:
        given |= {"rubric": beside / Path(given["rubric"]).expanduser()} if "rubric" in given else {}
        if kind == "hf" and not Path(argument).is_dir() and (beside / argument).is_dir():
            argument = str(beside / argument)
        return _made(name, resolve(SCORERS[kind]), argument, given)
    if kind in known and argument:
        raise ConfigError(f"{name}: scorer '{kind}' takes nothing behind its name; its settings stand in `options:`")
    if kind not in known and not argument:
        raise ConfigError(f"{name}: unknown scorer {reward.scorer!r}{did_you_mean(reward.scorer, known)}")
    return _made(name, PythonFunction, known.get(kind, reward.scorer), {"beside": beside, **given})


def _made(name: str, factory: Any, argument: str, given: Mapping[str, Any]) -> Scorer:
    """Make a scorer of what stands behind its name, if it takes that, and of the keys that it takes."""
    named = inspect.signature(factory).parameters.values()
    keys = [
        parameter.name
        for parameter in named
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _IMPLICIT
    ]
    arguments = [argument] if any(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in named) else []
    if argument and not arguments:
        raise ConfigError(f"{name}: this scorer takes nothing behind its name; leave out ':{argument}'")
    for key in (parameter for parameter in given if parameter not in {*keys, *_IMPLICIT}):
        takes = f"it takes {', '.join(keys)}" if keys else "it takes none"
        raise ConfigError(f"{name}: `{key}:` means nothing to this scorer ({takes}); leave it out")
    try:
        scorer: Scorer = factory(*arguments, **given)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    return scorer


def _deployed(name: str, hosted: RemoteModel) -> str:
    """Return the model to ask. Raises ConfigError where there is none yet."""
    if not hosted.model:
        what = hosted.trained or f"what job {hosted.job} made"
        remedy = "then record its name with `irlhf jobs deployed FOLDER NAME`"
        raise ConfigError(f"{name}: {what} must be deployed at {hosted.base_url}; {remedy}")
    return hosted.model


def _is_model(name: str, beside: Path) -> bool:
    """Return whether a folder with a model in it has this name."""
    return any((folder / "config.json").is_file() for folder in (Path(name), beside / name))
