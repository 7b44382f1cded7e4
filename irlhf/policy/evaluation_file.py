"""Read eval.json: its format, and the verdict on each reward of a policy in words."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictBool, StrictInt, StrictStr, ValidationError

from irlhf.core.errors import DataError
from irlhf.io.files import read_json
from irlhf.io.schema import first_problem

VERSION = 4  # of the file format; 3 has no bounds, 2 two metrics more
_OLDER = (2, 3)
_REMEDY = "run `irlhf eval` on the samples again"
_WEAK = 0.3  # absolute Spearman correlation below which a reward follows its target weakly
_BLIND = "has no reward line to follow"  # of a baseline; what it correlates is chance


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Metrics(_Part):
    """The metrics of one reward of a policy."""

    scale: StrictStr
    n: StrictInt
    prompts: StrictInt
    pooled: dict[str, Any]
    within: dict[str, Any]
    error: dict[str, Any]
    success: dict[str, Any]
    at_least: dict[str, Any]
    curve: list[dict[str, Any]]


class _Policy(_Part):
    """The metrics of the samples of one policy."""

    name: StrictStr
    baseline: StrictStr
    blind: StrictBool
    samples: StrictInt
    prompts: StrictInt
    rewards: dict[str, _Metrics]
    unscored: dict[str, StrictInt] = {}  # number of samples without a requested reward, by reward
    bounds: list[dict[str, Any]] = []  # requests with an upper or lower bound


class _File(_Part):
    """eval.json."""

    version: Literal[4]
    samples: list[StrictStr]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    policies: dict[str, _Policy]
    tradeoff: list[dict[str, Any]]
    fronts: dict[str, Any]
    comparisons: list[dict[str, Any]]
    pairs: dict[str, Any] = {}


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return the content of an eval.json. Raises DataError for another version or an invalid part."""
    return checked_evaluation(read_json(path), path)


def checked_evaluation(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of the eval.json at `path`, converted to this version. Raises DataError."""
    version = content.get("version")
    if version != VERSION and version not in _OLDER:
        problem = f"version {version!r:.20} of eval.json, and this irlhf reads versions 2 to {VERSION}"
        raise DataError(f"{path}: {problem}; {_REMEDY}")
    try:
        return _File.model_validate({**content, "version": VERSION}).model_dump()
    except ValidationError as error:
        raise DataError(f"{path}: {first_problem(error)}; {_REMEDY}") from error


def verdicts(policy: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """Yield each reward of an entry of `policies` whose targets differ, a verdict, and the correlation behind it.

    The correlation is Spearman's within prompts, or over all samples where no prompt has three targets.
    """
    for name, metrics in policy["rewards"].items():
        correlation = metrics["within"].get("spearman") or metrics["pooled"].get("spearman")
        if isinstance(correlation, Mapping):
            yield name, _BLIND if policy["blind"] else _verdict(correlation), correlation


def _verdict(correlation: Mapping[str, float]) -> str:
    weakly = "" if abs(correlation["value"]) >= _WEAK else " weakly"
    if correlation["low"] > 0:
        return f"follows its target{weakly}"
    return f"goes against its target{weakly}" if correlation["high"] < 0 else "does not follow its target"
