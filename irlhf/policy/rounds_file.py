"""Read and write rounds.json, the measurements after each round of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from irlhf.core.errors import DataError
from irlhf.io.files import write_json
from irlhf.io.schema import first_problem

VERSION = 2  # of the format; 1 had `arms`, which the run's rounds and its control arms were
_REMEDY = "draw it with the irlhf that wrote it, or run the rounds into a new folder"


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Round(_Part):
    """The measurements of one round; round 0 is the policy that the rounds began with."""

    round: StrictInt


Rounds = Annotated[list[_Round], Field(min_length=1)]


class _Arm(_Part):
    """The rounds of one arm of a file of version 1."""

    name: StrictStr
    rounds: Rounds


class _File(_Part):
    """rounds.json."""

    version: Literal[2] = 2
    names: list[StrictStr]
    settings: dict[str, Any]
    rounds: Rounds
    arms: list[_Arm] = []  # of a file of version 1


def checked_rounds(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of the rounds.json at `path`, converted to this version. Raises DataError."""
    version = content.get("version")
    if version not in (1, VERSION):
        problem = f"version {version!r:.20} of rounds.json, and this irlhf reads versions 1 and 2"
        raise DataError(f"{path}: {problem}; {_REMEDY}")
    try:
        file = _File.model_validate(_converted(content) if version == 1 else content)
    except (LookupError, TypeError, ValidationError) as error:
        raise DataError(f"{path}: {first_problem(error)}; {_REMEDY}") from error
    return file.model_dump()


def write_rounds(path: Path, names: Sequence[str], settings: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write a rounds.json. Raises OutputError."""
    file = _File.model_validate({"names": list(names), "settings": dict(settings), "rounds": list(rows)})
    write_json(path, file.model_dump(exclude={"arms"}))


def _converted(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file of version 1 with the rounds of its first arm, which is the run itself."""
    return {**content, "version": VERSION, "rounds": content["arms"][0]["rounds"]}
