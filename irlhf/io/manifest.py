"""Read and write `<output>.run.json`, the manifest of a run: its inputs, settings, recorded facts and counts.

Every manifest is read and written here. Files of irlhf 0.1, which have no version, are converted on reading. Unknown
keys are kept.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictStr, ValidationError

from irlhf.core.errors import ConfigError, DataError
from irlhf.io import files
from irlhf.io.schema import first_problem

SUFFIX = ".run.json"
VERSION = 1  # of the format; files of irlhf 0.1 have none

# Names that irlhf 0.1 wrote, and current names.
_COMMANDS = {"finetune --objective reward": "reward-model", "finetune --rounds": "rounds"}
_BASELINES = {"untouched": "prompted"}
_UNSCORED = ("description", "direction", "weight", "scale")  # keys of a reward that do not affect its numbers
_REMOVED = {"layout": "auto"}  # settings of irlhf 0.1, each with the value that is now fixed


class InputFile(BaseModel):
    """One input of a run."""

    model_config = ConfigDict(extra="allow")

    path: StrictStr
    sha256: StrictStr  # "-" for stdin


class Manifest(BaseModel):
    """The content of a manifest. `counts` is None until the output is complete."""

    model_config = ConfigDict(extra="allow")

    version: Literal[1] = 1
    command: StrictStr
    inputs: dict[str, InputFile]
    settings: dict[str, Any]
    recorded: dict[str, Any] = {}  # facts for later commands, which may differ between runs
    counts: dict[str, int] | None = None

    def write(self, output: Path) -> None:
        """Write the manifest beside its output. Raises OutputError."""
        content = self.model_dump(exclude_none=True)
        files.write_json(manifest_path(output), {key: value for key, value in content.items() if value or key in _KEYS})


_KEYS = ("version", "command", "inputs", "settings", "counts")  # written even if they are empty


def manifest_path(output: Path) -> Path:
    """Return the path of an output's manifest."""
    return output.parent / f"{output.name}{SUFFIX}"  # not with_name, which refuses the path "."


def read_manifest(output: Path) -> Manifest:
    """Return the manifest of an output. Raises ConfigError if it has another version, and DataError if it is damaged.

    A manifest without a version is converted.
    """
    path = manifest_path(output)
    content = files.read_json(path)
    version = content.get("version", 0)
    if version not in (0, VERSION):
        problem = f"version {version!r:.20} of a manifest, but this irlhf reads version {VERSION}"
        raise ConfigError(f"{path}: {problem}; use the irlhf that wrote it, or choose another output")
    try:
        return Manifest.model_validate(content if version else _converted(content))
    except (AttributeError, TypeError, ValidationError) as error:
        raise DataError(f"{path}: damaged ({first_problem(error)}); delete it and {output} to start over") from error


def differences(before: Manifest, now: Manifest) -> list[str]:
    """Return a description of each difference of command, inputs and settings between two manifests."""
    changed = [f"by `irlhf {before.command}`"] if before.command != now.command else []
    for role in sorted(before.inputs.keys() | now.inputs.keys()):
        was, here = before.inputs.get(role), now.inputs.get(role)
        if (was and was.sha256) != (here and here.sha256):
            changed.append(_other_input(role, was.path if was else "not given", here.path if here else "not given"))
    old, new = dict(_flat(before.settings)), dict(_flat(now.settings))
    changed += [
        f"{name} was {_setting(old.get(name)):.60} and is {_setting(new.get(name)):.60}"
        for name in sorted(old.keys() | new.keys())
        # An earlier version did not know a setting that is off by default.
        if (old.get(name) or False) != (new.get(name) or False)
    ]
    return changed


def _other_input(role: str, was: str, now: str) -> str:
    """Return how an input differs: another path, or another content at the same path."""
    if was != now:
        return f"the {role} was {was} and is {now}"
    policy = Path(now) / "policy.json"
    calibrated = policy.is_file() and files.read_json(policy).get("calibration")
    return f"the {role} ({now}) has changed{', for example by `irlhf eval --calibrate`' if calibrated else ''}"


def _setting(value: Any) -> str:
    """Return a setting as a user writes it."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "not set"
    return "not set" if value in ("", None) else str(value)


def _converted(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest of irlhf 0.1 in the current format."""
    command, settings = str(content.get("command", "")), dict(content.get("settings", {}))
    for before, now in _COMMANDS.items():
        command = command.replace(before, now)
    if command == "score":
        settings["rewards"] = {
            name: {key: value for key, value in spec.items() if key not in _UNSCORED}
            for name, spec in settings.get("rewards", {}).items()
        }
    if settings.get("baseline") in _BASELINES:
        settings["baseline"] = _BASELINES[settings["baseline"]]
    settings = {name: value for name, value in settings.items() if (name, value) not in _REMOVED.items()}
    return {**content, "version": VERSION, "command": command, "settings": settings}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting with its path, such as `rewards.short.scorer`."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
