"""What can be said of a training at a host, and what can not be said of one there or here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irlhf.core.errors import ConfigError
from irlhf.policy.remote_model import PREFIX
from irlhf.training.reward_model.settings import RewardModelSettings
from irlhf.training.settings import CONTRAST, FinetuneSettings

# Of the settings of a training here, what means nothing at a host, and what to say instead.
_HERE: Mapping[str, str] = {
    "lora": "a host decides what it trains; see --hyperparameter",
    "merge": "a host decides what it trains",
    "accumulate": "a host makes its own batches",
    "batch": "say --hyperparameter batch_size=N",
    "report_to": "a host tells its own trackers",
    "contrast_weight": "it belongs to --objective contrast, which is for training here",
    "alternatives": "it belongs to --objective contrast, which is for training here",
    "one_reward": "it belongs to --objective contrast, which is for training here",
    "whole_targets": "it belongs to --objective contrast, which is for training here",
    "precision": "a host chooses its arithmetic",
    "keep_best": "a host chooses its checkpoints",
}
_CONTRAST = {
    "contrast_weight": "weight",
    "alternatives": "alternatives",
    "one_reward": "one-reward",
    "whole_targets": "whole-targets",
}


@dataclass(frozen=True)
class HostedSettings:
    """How a host is asked to train. Only what stands before `price` makes another training."""

    host: str = ""  # a name of the table, or a YAML
    base_url: str = ""
    hyperparameters: tuple[str, ...] = ()  # KEY=VALUE
    api_key_env: str = ""
    price: float = 0.0  # of a million tokens trained on; 0 is not known
    yes: bool = False
    dry_run: bool = False
    wait: bool = True  # until the job is over
    again: bool = False
    job: str = ""  # which a user knows to be the one
    served_name: str = ""  # under which what was trained is deployed
    max_spend: float = 0.0  # what a job may come to, in the currency of `price`; 0 is no limit


NOWHERE = HostedSettings()


def is_hosted(model: str) -> bool:
    """Return whether a base is one that a host trains."""
    return model.startswith(PREFIX)


def refuse_hosted(hosted: HostedSettings) -> None:
    """Raise ConfigError for a setting of a host's where training is here."""
    for name, flag in _FLAGS.items():
        if getattr(hosted, name) != getattr(NOWHERE, name):
            raise ConfigError(f"{flag} is for a host that trains: name its base with --model {PREFIX}NAME")


def check_there(
    settings: FinetuneSettings | RewardModelSettings, usual: FinetuneSettings | RewardModelSettings
) -> None:
    """Raise ConfigError for a setting that no host takes."""
    refuse_contrast(settings)
    for name, mend in _HERE.items():
        if getattr(settings, name, None) != getattr(usual, name, None):
            raise ConfigError(f"{_flag(name)} means nothing at a host: {mend}")
    if settings.epochs != int(settings.epochs):
        raise ConfigError(f"--epochs {settings.epochs:g}: a host trains whole passes over the rows")


def refuse_contrast(settings: FinetuneSettings | RewardModelSettings) -> None:
    """Raise ConfigError for an objective that no training file can express."""
    if getattr(settings, "objective", "") == CONTRAST:
        raise ConfigError(
            "--objective contrast trains here only: no training file tells a host to compare targets; at a host use"
            " --objective ra-dpo, which compares completions under both targets by DPO, or likelihood"
        )


def read_hyperparameters(given: tuple[str, ...]) -> dict[str, Any]:
    """Read KEY=VALUE, a value being a number, true, false or a word. Raises ConfigError."""
    read: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"--hyperparameter {pair}: write KEY=VALUE, like batch_size=8")
        if key == "n_epochs":
            raise ConfigError("--hyperparameter n_epochs: say --epochs, which the price depends on")
        try:
            read[key] = json.loads(value)
        except ValueError:
            read[key] = value
    return read


def _flag(name: str) -> str:
    """Return how a setting is spelled on the command line."""
    if name in _CONTRAST:
        return f"--contrast {_CONTRAST[name]}"
    return "--no-merge" if name == "merge" else f"--{name.replace('_', '-')}"


_FLAGS = {name: _flag(name) for name in HostedSettings.__dataclass_fields__} | {
    "hyperparameters": "--hyperparameter",
    "price": "--price-per-mtok",
    "wait": "--no-wait",
}
