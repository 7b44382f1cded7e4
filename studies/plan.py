"""What a study consists of: its YAML, and the cells and commands that this spells out."""

import shlex
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError, field_validator

from irlhf.core.errors import ConfigError
from irlhf.core.registry import did_you_mean
from irlhf.io.files import read_yaml

HERE = "here"  # the placeholder of the YAML's folder, kept in a command's text so that a checkout can move

_SHELL = {"&&", "||", "|", ";", "&", "<", ">", ">>", "2>&1"}

Scalar = StrictStr | StrictInt | StrictFloat
Values = Annotated[list[Scalar], Field(min_length=1)]
Lines = Annotated[list[str], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Strict):
    """Commands that are run once for every combination of `each`."""

    each: dict[str, Values] = Field(default_factory=dict)
    run: Lines

    @field_validator("run", mode="before")
    @classmethod
    def _one_is_a_list_too(cls, given: object) -> object:
        return [given] if isinstance(given, str) else given


class Study(_Strict):
    """A study as its YAML says it."""

    grid: dict[str, Values] = Field(default_factory=dict)
    commands: Annotated[list[Step], Field(min_length=1)]
    results: dict[str, str] = Field(default_factory=dict)

    @field_validator("commands", mode="before")
    @classmethod
    def _a_line_is_a_step_too(cls, given: object) -> object:
        return [{"run": one} if isinstance(one, str) else one for one in given] if isinstance(given, list) else given


@dataclass(frozen=True)
class Cell:
    """One combination of the grid, and the commands that it runs."""

    values: dict[str, Scalar]
    commands: list[str]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return ",".join(f"{name}={value}" for name, value in self.values.items()) or "all"


def read_study(path: Path) -> Study:
    """Read a study. Raises ConfigError that names the key, with the nearest one known."""
    try:
        return Study.model_validate(read_yaml(path))
    except ValidationError as error:
        problem = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] != "extra_forbidden":
            raise ConfigError(f"{path}: {place}: {problem['msg']}") from error
        known = Study.model_fields if len(problem["loc"]) == 1 else Step.model_fields
        hint = did_you_mean(str(problem["loc"][-1]), known)
        raise ConfigError(f"{path}: unknown key '{place}'{hint}") from error


def cells(study: Study, source: str) -> list[Cell]:
    """Return every cell of the grid with its commands spelled out. Raises ConfigError before anything runs."""
    found = [Cell(values, list(_commands(study, values, source))) for values in _combinations(study.grid)]
    for commands in (cell.commands for cell in found):
        twice = [command for number, command in enumerate(commands) if command in commands[:number]]
        if twice:
            raise ConfigError(f"{source}: the command '{twice[0]}' stands twice in a cell")
    names = [cell.name for cell in found]
    for number, name in enumerate(names):
        if "/" in name or name in names[:number]:
            raise ConfigError(f"{source}: '{name}' cannot name the folder of a cell, or would name two")
    return found


def _commands(study: Study, values: Mapping[str, Scalar], source: str) -> Iterator[str]:
    for step in study.commands:
        taken = sorted({*values, HERE} & step.each.keys() | {HERE} & values.keys())
        if taken:
            raise ConfigError(f"{source}: '{taken[0]}' already means something; name it otherwise")
        for more in _combinations(step.each):
            for line in step.run:
                yield _spelled(line, {**values, **more}, source)


def _combinations(lists: Mapping[str, Sequence[Scalar]]) -> list[dict[str, Scalar]]:
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def _spelled(line: str, values: Mapping[str, Scalar], source: str) -> str:
    """Return a command with its placeholders filled in, each within its own argument."""
    known = {**values, HERE: f"{{{HERE}}}"}
    try:
        parts = shlex.split(line)
        fields = [field for part in parts for _, field, _, _ in string.Formatter().parse(part) if field is not None]
        for field in fields:
            if field not in known:
                raise ConfigError(f"{source}: '{line}': unknown {{{field}}}{did_you_mean(field, known)}")
        filled = [part.format_map(known) for part in parts]
    except ValueError as error:
        raise ConfigError(f"{source}: '{line}': {error}; a brace itself is written twice") from error
    shell = sorted(_SHELL.intersection(filled))
    if shell:
        raise ConfigError(f"{source}: '{line}': no shell reads '{shell[0]}' here; write two commands, or `sh FILE`")
    if not filled:
        raise ConfigError(f"{source}: an empty command")
    return shlex.join(filled)


def only(cells: Sequence[Cell], wanted: Sequence[str]) -> list[Cell]:
    """Return the cells that every NAME=VALUE of `wanted` is true of."""
    chosen = list(cells)
    for text in wanted:
        name, _, value = text.partition("=")
        if name not in cells[0].values:
            raise ConfigError(f"--only {text}: the grid has no '{name}'{did_you_mean(name, cells[0].values)}")
        known = {str(cell.values[name]) for cell in cells}
        if value not in known:
            raise ConfigError(f"--only {text}: not a value of {name} (there are: {', '.join(sorted(known))})")
        chosen = [cell for cell in chosen if str(cell.values[name]) == value]
    if not chosen:
        raise ConfigError(f"no cell is {' and '.join(wanted)} at once")
    return chosen
