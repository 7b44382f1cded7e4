"""The entry `hosted` of policy.json or reward.json: the address of a model whose weights are at a host."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictStr, field_validator

from irlhf.core.errors import DataError
from irlhf.io.files import read_json
from irlhf.io.schema import first_problem

HOSTED_KEY = "hosted"  # key in policy.json and reward.json
REWARD_FILE = "reward.json"  # the description in a reward model's folder
REWARD_VERSION = 1  # of its format


@dataclass(frozen=True)
class RemoteModel:
    """A model at a host with the OpenAI API."""

    model: str  # the name for requests; empty until the model is deployed
    base_url: str  # including /v1
    host: str  # a known host, or the path of a YAML file
    job: str  # id of the training job; empty if nothing was trained
    trained: str  # the host's name for the trained model

    def to_json(self) -> dict[str, Any]:
        """Return the entry as stored in the file."""
        return asdict(self)


def read_remote_model(tree: Mapping[str, Any]) -> RemoteModel | None:
    """Return the entry `hosted` of a file; None if the weights are in the folder. Raises KeyError and ValueError."""
    given = tree.get(HOSTED_KEY)
    if given is None:
        return None
    names = ("model", "base_url", "host", "job", "trained")
    if any(not isinstance(given[name], str) for name in names):
        raise ValueError(f"the values in 'hosted' must be text ({given!r:.80})")
    return RemoteModel(*(given[name] for name in names))


class _RewardFile(BaseModel):
    """reward.json. Version 0.1.0 wrote it without a version, in the same format."""

    model_config = ConfigDict(extra="allow")

    version: Literal[1] = 1
    base: StrictStr = ""
    settings: dict[str, Any] = {}
    data: dict[str, Any] = {}
    validation: dict[str, Any] | None = None
    hosted: RemoteModel | None = None

    @field_validator("hosted", mode="before")
    @classmethod
    def _hosted(cls, value: object) -> object:
        return read_remote_model({HOSTED_KEY: value})


def read_reward_file(path: Path) -> dict[str, Any]:
    """Return the content of a reward.json, `hosted` as a RemoteModel or None. Raises DataError."""
    try:
        return dict(_RewardFile.model_validate(read_json(path)))
    except (KeyError, TypeError, ValueError) as error:  # pydantic's error is a ValueError
        raise DataError(f"{path}: damaged ({first_problem(error)}); train the reward model again") from error


def find_reward_file(name: str, beside: Path) -> dict[str, Any]:
    """Return the reward.json of a reward model's folder, relative to here or to `beside`; empty if it has none.

    Raises DataError if the file is damaged.
    """
    candidates = (Path(os.path.expanduser(name)) / REWARD_FILE, beside / name / REWARD_FILE)
    return next((read_reward_file(path) for path in candidates if path.is_file()), {})


def find_reward_model(name: str, beside: Path) -> RemoteModel | None:
    """Return the host entry of the reward model in a folder (see `find_reward_file`); None if it has none."""
    hosted: RemoteModel | None = find_reward_file(name, beside).get(HOSTED_KEY)
    return hosted
