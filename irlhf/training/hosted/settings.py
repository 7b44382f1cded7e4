"""Settings of hosted fine-tuning, and checks for options that do not apply."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from irlhf.core.errors import ConfigError
from irlhf.training.settings import CONTRAST, FinetuneSettings, RewardModelSettings

PREFIX = "openai:"  # prefix of the names of bases that are trained at a host

# Settings of local training that hosted training does not support, and the remedy.
_LOCAL_ONLY: Mapping[str, str] = {
    "lora": "the provider decides what is trained; see --hyperparameter",
    "merge": "the provider decides what is trained",
    "accumulate": "the provider forms the batches",
    "batch": "use --hyperparameter batch_size=N",
    "report_to": "the provider has its own tracking",
    "contrast_weight": "it belongs to --objective contrast, which is for local training only",
    "alternatives": "it belongs to --objective contrast, which is for local training only",
    "one_reward": "it belongs to --objective contrast, which is for local training only",
    "whole_targets": "it belongs to --objective contrast, which is for local training only",
    "precision": "the provider chooses the precision",
    "keep_best": "the provider chooses the checkpoint",
}
_CONTRAST = {
    "contrast_weight": "weight",
    "alternatives": "alternatives",
    "one_reward": "one-reward",
    "whole_targets": "whole-targets",
}


@dataclass(frozen=True)
class HostedSettings:
    """Settings of hosted training. Only the settings above `price` change the trained model."""

    host: str = ""  # name of a provider, or a YAML file
    base_url: str = ""
    hyperparameters: tuple[str, ...] = ()  # KEY=VALUE
    api_key_env: str = ""
    price: float = 0.0  # per million trained tokens; 0: unknown
    yes: bool = False
    dry_run: bool = False
    wait: bool = True  # for the end of the job
    again: bool = False  # submit a new job after a failed one
    job: str = ""  # id of an existing job to adopt
    served_name: str = ""  # deployment name of the trained model
    max_spend: float = 0.0  # limit per job, in the currency of `price`; 0: no limit


NOWHERE = HostedSettings()


def is_hosted(model: str) -> bool:
    """Return whether a base model is trained by a provider."""
    return model.startswith(PREFIX)


def refuse_hosted(hosted: HostedSettings) -> None:
    """Raise ConfigError for a setting of hosted training in a local training."""
    for name, flag in _FLAGS.items():
        if getattr(hosted, name) != getattr(NOWHERE, name):
            raise ConfigError(f"{flag} needs hosted training; use --model {PREFIX}NAME or remove {flag}")


def check_there(
    settings: FinetuneSettings | RewardModelSettings, usual: FinetuneSettings | RewardModelSettings
) -> None:
    """Raise ConfigError for a setting that hosted training does not support."""
    refuse_contrast(settings)
    for name, remedy in _LOCAL_ONLY.items():
        if getattr(settings, name, None) != getattr(usual, name, None):
            raise ConfigError(f"{_flag(name)} has no effect in hosted training: {remedy}")
    if settings.epochs != int(settings.epochs):
        raise ConfigError(f"--epochs {settings.epochs:g}: hosted training needs a whole number of epochs")


def refuse_contrast(settings: FinetuneSettings | RewardModelSettings) -> None:
    """Raise ConfigError for the objective contrast, which a training file cannot express."""
    if getattr(settings, "objective", "") == CONTRAST:
        raise ConfigError(
            "--objective contrast is for local training only: a training file cannot compare targets; for hosted"
            " training use --objective ra-dpo, which compares completions under both targets by DPO, or likelihood"
        )


def read_hyperparameters(given: tuple[str, ...]) -> dict[str, Any]:
    """Parse KEY=VALUE pairs; a value is a number, true, false or a string. Raises ConfigError."""
    parsed: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"--hyperparameter {pair}: expected KEY=VALUE, such as batch_size=8")
        if key == "n_epochs":
            raise ConfigError("--hyperparameter n_epochs: use --epochs, which also determines the price")
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return parsed


def _flag(name: str) -> str:
    """Return the command line option of a setting."""
    if name in _CONTRAST:
        return f"--contrast {_CONTRAST[name]}"
    return "--no-merge" if name == "merge" else f"--{name.replace('_', '-')}"


_FLAGS = {name: _flag(name) for name in HostedSettings.__dataclass_fields__} | {
    "hyperparameters": "--hyperparameter",
    "price": "--price-per-mtok",
    "wait": "--no-wait",
}
