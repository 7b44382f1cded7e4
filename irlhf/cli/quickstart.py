"""irlhf quickstart."""

from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import options
from irlhf.core.errors import ConfigError
from irlhf.core.registry import resolve

EXAMPLES = """Examples:

irlhf quickstart

irlhf quickstart --seed 1 -o quickstart-1

irlhf quickstart --model HuggingFaceTB/SmolLM2-135M-Instruct"""


def quickstart(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="Start from a pretrained model: a folder or a hub id.", metavar="MODEL")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The folder to fill. \\[quickstart; with --model quickstart-model]"),
    ] = None,
    seed: options.Seed = 0,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="With --model: use only the first N prompts; 0 is all.")
    ] = 0,
) -> None:
    """Run the whole line on an embedded default: minutes, no download, no GPU.

    With --model start from a pretrained model and a few hundred embedded
    prompts: sample it, score the samples by two rules, train a policy on them
    with --objective contrast, and report how well it follows low, medium and
    high targets on prompts that it never saw. It times a batch and says first
    how long it will take. Interrupted, the same command resumes.
    """
    if model:
        settings = resolve("irlhf.quickstart.settings:PretrainedSettings")(seed, limit)
        out = output or Path("quickstart-model")
        door = "irlhf.quickstart.pretrained:quickstart_pretrained"
        options.run(door, False, out, options.runner(context), model, settings)
        return
    if limit:
        raise ConfigError("--limit counts the prompts of --model; name a model or leave it out")
    built_in = resolve("irlhf.quickstart.settings:QuickstartSettings")(seed)
    out = output or Path("quickstart")
    options.run("irlhf.quickstart.quickstart:quickstart", False, out, options.runner(context), built_in)
