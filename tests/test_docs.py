"""What the documentation promises is what the program does."""

import subprocess
import sys
from pathlib import Path

from toolbox import ROOT


def test_the_manual_is_what_the_program_says_of_itself() -> None:
    typer = Path(sys.executable).with_name("typer")
    made = subprocess.run(
        [typer, "irlhf.cli", "utils", "docs", "--name", "irlhf"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert (ROOT / "docs" / "cli.md").read_text().strip() == made.strip(), "run `make docs`"
