"""Shell completion: reward names, templates and raw formats, read from small files without loading a model."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer


def objectives() -> list[str]:
    """Return the training objectives."""
    from irlhf.training.settings import OBJECTIVES

    return list(OBJECTIVES)


def templates(incomplete: str) -> Iterator[str]:
    """Yield the reward templates that come with irlhf, and YAML files."""
    from irlhf.policy.templates import shipped_templates

    yield from shipped_templates()
    yield from _files(incomplete, "*.y*ml")


def raw_formats() -> list[str]:
    """Return the names of the raw formats."""
    from irlhf.core.registry import FORMATS

    return ["auto", *FORMATS]


def targets(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield NAME= for each reward of the policy."""
    if "=" not in incomplete:
        yield from (f"{name}=" for name in _reward_names(ctx))


def weights(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the weighting so far with the name of each reward behind it, and YAML files."""
    written = max(incomplete.rfind("+"), incomplete.rfind("*")) + 1
    yield from (incomplete[:written] + name for name in _reward_names(ctx))
    yield from _files(incomplete, "*.y*ml")


def _reward_names(ctx: typer.Context) -> list[str]:
    """Return the rewards of the policy, or of the rewards.yaml, that is earlier on the line."""
    folders = ctx.params.get("policy") or ctx.args[:1]  # arguments are not parsed where an option lacks its value
    for folder in [folders] if isinstance(folders, str | Path) else folders:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return [reward["name"] for reward in _json(Path(folder) / "policy.json")["rewards"]]
    with suppress(OSError, ValueError, KeyError, TypeError):
        return list(_yaml(Path(ctx.params.get("rewards") or "rewards.yaml"))["rewards"])
    return []


def _files(incomplete: str, pattern: str) -> Iterator[str]:
    folder = Path(incomplete).parent if "/" in incomplete else Path()
    yield from (str(path) for path in sorted(folder.glob(pattern)))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
