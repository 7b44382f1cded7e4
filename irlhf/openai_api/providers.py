"""The table of hosts that fine-tune over OpenAI's protocol, and users' own files in its format."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from irlhf.core.errors import ConfigError
from irlhf.core.registry import did_you_mean
from irlhf.io.files import read_yaml

USUAL = "openai"
SUPERVISED, DPO = "supervised", "dpo"  # methods of training
_TABLE = Path(__file__).with_name("providers.yaml")


class Provider(BaseModel):
    """How one host differs from the others; providers.yaml explains each key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    base_url: str = ""
    hyperparameters: Literal["nested", "top"] = "nested"
    learning_rate: str = ""
    rows: int = Field(default=10, ge=1)
    validation: bool = True
    metadata: bool = True
    lists: bool = True
    weights: bool = False
    dpo: bool = False
    deployment: bool = False
    extra_body: dict[str, Any] = Field(default_factory=dict)
    refused: str = ""

    def placed(self, hyperparameters: Mapping[str, Any], method: str = SUPERVISED) -> dict[str, Any]:
        """Return the method and its hyperparameters in the part of a request where this host expects them."""
        if self.hyperparameters == "top" and method == SUPERVISED:
            return {"hyperparameters": dict(hyperparameters)}
        return {"method": {"type": method, method: {"hyperparameters": dict(hyperparameters)}}}


def find_provider(name: str) -> Provider:
    """Return a host from the table by name, or from a YAML file by its path. Raises ConfigError."""
    if name.endswith((".yaml", ".yml")):
        return _parsed(read_yaml(Path(name)), Path(name).stem, name)
    table = read_yaml(_TABLE)
    if name not in table:
        raise ConfigError(f"unknown host '{name}'{did_you_mean(name, table)}; a file of your own ends in .yaml")
    return _parsed(table[name], name, str(_TABLE))


def _parsed(tree: Mapping[str, Any], name: str, source: str) -> Provider:
    try:
        return Provider.model_validate({"name": name, **tree})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        hint = did_you_mean(key, Provider.model_fields) if problem["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{source}: {key}: {problem['msg']}{hint}") from error
