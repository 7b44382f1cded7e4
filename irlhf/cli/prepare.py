"""irlhf prepare."""

from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import completion, options
from irlhf.data.settings import PrepareSettings

EXAMPLES = """Examples:

irlhf prepare hh.jsonl.gz -o examples.jsonl

irlhf prepare qa.jsonl --map prompt=question --map completion=answer.text --map label=good

irlhf prepare hh-rlhf/*/*.jsonl.gz --card -o better-hh

irlhf prepare hub:Anthropic/hh-rlhf#test -o examples.jsonl

zcat hh.jsonl.gz | irlhf prepare - -o - | irlhf score - -r rewards.yaml"""


_TAB = {"tab": "\t", "\\t": "\t"}  # how a tab is written on a command line


def _list(requested: bool) -> None:
    if requested:
        from irlhf.data.formats.base import table

        typer.echo(table())
        raise typer.Exit


def prepare(
    sources: Annotated[
        list[Path], typer.Argument(help="Raw files; - is stdin, hub:ORG/NAME a data set of the Hub.", metavar="SOURCE")
    ],
    format: Annotated[
        str,
        typer.Option(
            help="Raw format, a name of --list-formats; auto detects it.",
            metavar="NAME",
            autocompletion=completion.raw_formats,
        ),
    ] = "auto",
    list_formats: Annotated[
        bool, typer.Option("--list-formats", help="List the raw formats and stop.", callback=_list, is_eager=True)
    ] = False,
    map_: Annotated[
        list[str], typer.Option("--map", metavar="NAME=COLUMN", help="Read COLUMN as NAME; dots reach into objects.")
    ] = [],  # noqa: B006 - never changed
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Reject rows whose prompt and completion occurred before.")
    ] = False,
    card: Annotated[
        bool, typer.Option("--card", help="Write a folder for the Hub: typed rows by source, and a data card.")
    ] = False,
    delimiter: Annotated[
        str,
        typer.Option(metavar="CHAR", help="Character between the cells of a table, or tab. \\[by name and header]"),
    ] = "",
    test: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="Share of the prompts in the test split.")
    ] = 0.1,
    validation: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="Share of the prompts in the validation split.")
    ] = 0.05,
    limit: options.Limit = 0,
    on_bad_row: options.OnBadRow = options.BadRow.stop,
    output: Annotated[
        Path | None,
        options.output_option("-o", "--output", help="Where to write; - is stdout. \\[examples.jsonl]", metavar="FILE"),
    ] = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn raw data into one clean record per completion, split by prompt."""
    from irlhf.core import console
    from irlhf.data.column_mapping import parse_map
    from irlhf.data.prepare import prepare as prepare_rows

    console.be_quiet(quiet)
    out = options.output_for(output, sources[0], "dataset" if card else "examples.jsonl")
    settings = PrepareSettings(
        format=format,
        test=test,
        validation=validation,
        limit=limit,
        on_bad_row=on_bad_row.value,
        map=parse_map(map_),
        drop_duplicates=drop_duplicates,
        card=card,
        delimiter=_TAB.get(delimiter, delimiter),
    )
    summary = prepare_rows(sources, out, settings)
    written = f"{summary.get('written', 0):,} examples"
    first = summary.get("files", [out])[0]
    rewards = "rewards.yaml" if Path("rewards.yaml").is_file() else options.UNKNOWN_FILE
    options.finish(summary, json_, written, f"irlhf score {first} -r {rewards}")
