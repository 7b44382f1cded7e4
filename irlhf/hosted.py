"""Where a policy lives whose weights a host keeps: the part of policy.json that says how it is asked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PREFIX = "openai:"  # before the name of a base that is trained at a host
KEY = "hosted"  # of policy.json


@dataclass(frozen=True)
class Hosted:
    """A policy at a host that speaks OpenAI's protocol."""

    model: str  # the name to sample; empty until somebody has deployed what was trained
    base_url: str  # up to and with /v1
    host: str  # a name of the table of hosts, or the path of a YAML
    job: str  # empty where nothing was trained
    trained: str  # as the host calls what the job made

    def to_json(self) -> dict[str, Any]:
        """Return it as policy.json keeps it."""
        return asdict(self)


def read_hosted(tree: Mapping[str, Any]) -> Hosted | None:
    """Return where the policy of a policy.json lives; None where its weights stand beside it. Raises ValueError."""
    given = tree.get(KEY)
    if given is None:
        return None
    names = ("model", "base_url", "host", "job", "trained")
    if any(not isinstance(given[name], str) for name in names):
        raise ValueError(f"what it says of the host is no text ({given!r:.80})")
    return Hosted(*(given[name] for name in names))
