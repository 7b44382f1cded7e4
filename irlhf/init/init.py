"""Create a starter folder with rewards.yaml, templates and run.sh."""

from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from irlhf.core.errors import ConfigError
from irlhf.io.files import whole_file
from irlhf.policy.templates import DEFAULT, shipped_templates

_TEMPLATE = "template.yaml"  # the default template; the others go into templates/


def init(folder: str | Path) -> dict[str, Any]:
    """Write the starter files into `folder` and return their names. Raises ConfigError if one exists."""
    target = Path(folder)
    shipped = package_files("irlhf.init").joinpath("files")
    texts = {name: shipped.joinpath(name).read_text(encoding="utf-8") for name in ("rewards.yaml", "run.sh")}
    templates = {name: path.read_text(encoding="utf-8") for name, path in shipped_templates().items()}
    texts[_TEMPLATE] = templates.pop(DEFAULT)
    texts |= {f"templates/{name}.yaml": text for name, text in templates.items()}
    existing = [name for name in texts if (target / name).exists()]
    if existing:
        raise ConfigError(f"{target / existing[0]} already exists; choose another folder")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target} is a file; choose a folder")
    (target / "templates").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with whole_file(target / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    (target / "run.sh").chmod(0o755)
    return {"output": str(target), "files": sorted(texts)}
