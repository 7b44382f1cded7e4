"""irlhf init."""

from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import options

EXAMPLES = """Examples:

irlhf init my-policy && cd my-policy && DATA=../pairs.jsonl ./run.sh"""


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make.", metavar="DIR")],
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a folder with rewards.yaml, templates and run.sh to edit."""
    from irlhf.core import console
    from irlhf.init.init import init as write_files

    console.be_quiet(quiet)
    summary = write_files(folder)
    written = "rewards.yaml, template.yaml, run.sh and templates/"
    options.finish(summary, json_, written, f"edit them, then DATA=your.jsonl {folder}/run.sh")
