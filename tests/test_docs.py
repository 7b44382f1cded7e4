"""What the documentation promises is what the program does."""

import re
import subprocess
import sys
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
