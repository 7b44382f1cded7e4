"""irlhf quickstart."""

from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import options
from irlhf.registry import resolve

EXAMPLES = """Examples:

irlhf quickstart

irlhf quickstart --seed 1 -o quickstart-1"""


def quickstart(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to fill.")] = Path("quickstart"),
    seed: options.Seed = 0,
) -> None:
    """Run the whole line on an embedded default: minutes, no download, no GPU."""
    settings = resolve("irlhf.quickstart:QuickstartSettings")(seed)
    options.run("irlhf.quickstart:quickstart", False, output, options.runner(context), settings)
