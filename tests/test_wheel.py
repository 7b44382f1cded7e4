"""What is shipped: one wheel with the templates and the types in it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_the_wheel_holds_the_templates_and_the_types(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        inside = set(packed.namelist())
    assert {f"irlhf/templates/{path.name}" for path in (ROOT / "templates").glob("*.yaml")} <= inside
    assert {"irlhf/py.typed", "irlhf/policy/model-card.md.jinja"} <= inside
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "irlhf").rglob("*.py")}
    assert package <= inside
    assert not {name for name in inside if name.startswith("tests/")}
