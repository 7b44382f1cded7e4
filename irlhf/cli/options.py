"""Options that mean the same in every command."""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from irlhf.executors import base as executors


class BadRow(StrEnum):
    """What happens to a row that cannot be used."""

    stop = "stop"
    skip = "skip"


class EngineName(StrEnum):
    """Who does the work."""

    local = "local"
    ray = "ray"


Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Use only the first N; 0 is all.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of all that is random.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but warnings and errors.")]
OnBadRow = Annotated[BadRow, typer.Option("--on-bad-row", help="Stop at a bad row, or set it aside with its reason.")]
Shard = Annotated[
    str, typer.Option("--shard", metavar="I/N", help="Do the I-th of N parts; cat puts the files together.")
]
Engine = Annotated[EngineName, typer.Option("--engine", help="Work in this process, or in a Ray cluster's workers.")]
Workers = Annotated[int, typer.Option("--workers", min=0, metavar="N", help="Of --engine ray; 0 is as many as fit.")]
STDIN = Path("-")


def engine(name: EngineName, workers: int) -> executors.Engine:
    """Return where the work is done."""
    return executors.Engine(name=name.value, workers=workers)


def runner(context: typer.Context) -> Callable[[Sequence[str]], None]:
    """Return what runs another command line of irlhf's in this process."""
    group = context.find_root().command

    def run(arguments: Sequence[str]) -> None:
        code = group.main(list(arguments), prog_name="irlhf", standalone_mode=False)
        if code:
            raise typer.Exit(code)

    return run


def output_for(given: Path | None, source: Path, name: str) -> Path:
    """Return where to write: what was given; else stdout for stdin, and the command's own name for a file."""
    return given or (STDIN if source == STDIN else Path(name))


def finish(summary: Mapping[str, Any], as_json: bool, what: str, following: str = "") -> None:
    """Say what was written and the next command; with `--json` print the summary instead."""
    from irlhf.core import console

    if not console.FIRST:
        return
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
        return
    if summary.get("open"):  # nothing is written yet, and what was done is said already
        return
    output = summary.get("output", "")
    if summary.get("finished"):
        text = f"{output} is complete already: nothing to do"
    else:
        rejected = f", set {summary['rejected']:,} aside" if summary.get("rejected") else ""
        kept = f" (kept {summary['resumed']:,} of an earlier run)" if summary.get("resumed") else ""
        text = f"wrote {what} to {output}{kept}{rejected}"
    console.note(text + (f"; next: {following}" if following and output != str(STDIN) else ""))
