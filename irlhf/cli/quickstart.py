"""irlhf quickstart."""

from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import options
from irlhf.core.errors import ConfigError
from irlhf.quickstart.settings import PretrainedSettings, QuickstartSettings

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
        options.output_option(
            "-o", "--output", help="Folder to fill. \\[quickstart; with --model quickstart-model]", metavar="FOLDER"
        ),
    ] = None,
    seed: options.Seed = 0,
    limit: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", show_default=False, help="With --model: use only the first N prompts; 0 uses all."
        ),
    ] = 0,
) -> None:
    """Run the whole line on an embedded default: minutes, no download, no GPU.

    With --model start from a pretrained model and a few hundred embedded
    prompts: sample it, score the samples by two rules, train a policy on them
    with --objective contrast, and report how well it follows low, medium and
    high targets on prompts that it never saw. It times a batch and says first
    how long it will take. Interrupted, the same command resumes.
    """
    run = options.runner(context)
    if model:
        from irlhf.quickstart.pretrained import quickstart_pretrained

        out = output or Path("quickstart-model")
        quickstart_pretrained(out, run, model, PretrainedSettings(seed=seed, limit=limit))
        return
    if limit:
        raise ConfigError("--limit counts the prompts of --model; name a model or leave it out")
    from irlhf.quickstart.quickstart import quickstart as run_quickstart

    run_quickstart(output or Path("quickstart"), run, QuickstartSettings(seed=seed))
