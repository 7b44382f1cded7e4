"""irlhf score."""

from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import options
from irlhf.registry import COMMANDS, resolve

EXAMPLES = """Examples:

irlhf score examples.jsonl -r rewards.yaml -o scored.jsonl

irlhf score samples.jsonl -r rewards.yaml -o scored-samples.jsonl --on-bad-row skip"""


def score(
    examples: Annotated[Path, typer.Argument(help="Examples or samples; - is stdin.", metavar="EXAMPLES")],
    rewards: Annotated[Path, typer.Option("-r", "--rewards", help="The rewards.yaml that says who is asked.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write; - is stdout. \\[scored.jsonl]")
    ] = None,
    gold: Annotated[bool, typer.Option("--gold", help="Ask the gold scorers instead, and fill `gold`.")] = False,
    limit: options.Limit = 0,
    on_bad_row: options.OnBadRow = options.BadRow.stop,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Give every completion its rewards; run it again to go on where it stopped."""
    out = options.output_for(output, examples, "scored.jsonl")
    settings = resolve("irlhf.score:ScoreSettings")(gold, limit, on_bad_row.value)
    summary = options.run(COMMANDS["score"], quiet, examples, rewards, out, settings)
    written = f"{summary.get('written', 0):,} scored rows"
    options.finish(summary, json_, written, f"irlhf finetune {out} --model tiny, or irlhf eval {out} for samples")
