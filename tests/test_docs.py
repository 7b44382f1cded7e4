"""What the documentation promises is what the program does."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from helpers import ROOT


def test_the_manual_is_what_the_program_says_of_itself() -> None:
    typer = Path(sys.executable).with_name("typer")
    made = subprocess.run(
        [typer, "irlhf.cli.app", "utils", "docs", "--name", "irlhf"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    assert (ROOT / "docs" / "cli.md").read_text().strip() == made.strip(), "run `make docs`"


def test_every_table_is_what_the_results_say() -> None:
    command = [sys.executable, ROOT / "docs" / "generate.py", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_file_that_a_page_links_to_is_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    missing = [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()]
    assert not missing


def test_scripts_import_names_that_the_package_has() -> None:
    scripts = [
        path for folder in ("benchmarks", "docs", "examples", "studies") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    imports = [
        (node.module, alias.name)
        for path in scripts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("irlhf")
        for alias in node.names
    ]
    assert imports
    missing = [f"{module}: {name}" for module, name in set(imports) if not _has(module, name)]
    assert not missing


def _has(module: str, name: str) -> bool:
    return hasattr(import_module(module), name) or find_spec(f"{module}.{name}") is not None


def test_the_script_of_the_pages_explains_itself() -> None:
    command = [sys.executable, ROOT / "docs" / "generate.py", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("Write the tables of docs/*.md")
