"""A folder to begin with: rewards.yaml, templates and run.sh, to be edited."""

from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from irlhf.core.errors import ConfigError
from irlhf.io.files import whole_file
from irlhf.policy.templates import DEFAULT, shipped_templates

_TEMPLATE = "template.yaml"  # the default one; the others stand in a folder, to be tried


def init(folder: str | Path) -> dict[str, Any]:
    """Write the starting files into `folder`. Raises ConfigError rather than replace a file."""
    home = Path(folder)
    shipped = package_files("irlhf.init").joinpath("files")
    texts = {name: shipped.joinpath(name).read_text(encoding="utf-8") for name in ("rewards.yaml", "run.sh")}
    templates = {name: path.read_text(encoding="utf-8") for name, path in shipped_templates().items()}
    texts[_TEMPLATE] = templates.pop(DEFAULT)
    texts |= {f"templates/{name}.yaml": text for name, text in templates.items()}
    there = [name for name in texts if (home / name).exists()]
    if there:
        raise ConfigError(f"{home / there[0]} is there already; name another folder")
    if home.exists() and not home.is_dir():
        raise ConfigError(f"{home} is a file; name a folder")
    (home / "templates").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with whole_file(home / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    (home / "run.sh").chmod(0o755)
    return {"output": str(home), "files": sorted(texts)}
