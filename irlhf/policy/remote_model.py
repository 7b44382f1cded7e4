"""Where a model lives whose weights a host keeps: the part of its folder's card that says how it is asked."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irlhf.core.errors import DataError
from irlhf.io.files import read_json

PREFIX = "openai:"  # before the name of a base that is trained at a host
HOSTED_KEY = "hosted"  # of policy.json and reward.json
REWARD_FILE = "reward.json"  # what a reward model's folder has in place of a policy.json


@dataclass(frozen=True)
class RemoteModel:
    """A model at a host that speaks OpenAI's protocol."""

    model: str  # the name to sample; empty until somebody has deployed what was trained
    base_url: str  # up to and with /v1
    host: str  # a name of the table of hosts, or the path of a YAML
    job: str  # empty where nothing was trained
    trained: str  # as the host calls what the job made

    def to_json(self) -> dict[str, Any]:
        """Return it as the card keeps it."""
        return asdict(self)


def read_remote_model(tree: Mapping[str, Any]) -> RemoteModel | None:
    """Return where the model of a card lives; None where its weights stand beside it. Raises ValueError."""
    given = tree.get(HOSTED_KEY)
    if given is None:
        return None
    names = ("model", "base_url", "host", "job", "trained")
    if any(not isinstance(given[name], str) for name in names):
        raise ValueError(f"what it says of the host is no text ({given!r:.80})")
    return RemoteModel(*(given[name] for name in names))


def find_reward_model(name: str, beside: Path) -> RemoteModel | None:
    """Return where the reward model lives that is named by its folder, here or in `beside`; None if not at a host.

    Raises DataError for a folder whose card is damaged.
    """
    places = (Path(os.path.expanduser(name)) / REWARD_FILE, beside / name / REWARD_FILE)
    reward_file = next((path for path in places if path.is_file()), None)
    if reward_file is None:
        return None
    try:
        return read_remote_model(read_json(reward_file))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{reward_file}: damaged ({error}); fine-tune again") from error
