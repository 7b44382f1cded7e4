"""irlhf plot."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from irlhf.cli import options
from irlhf.plotting.settings import PlotSettings

EXAMPLES = """Examples:

irlhf plot eval.json scored.jsonl scored-samples.jsonl policy -o plots

irlhf plot online/rounds.json expert/rounds.json -o plots-rounds

irlhf plot eval.json --format svg"""


class Format(StrEnum):
    """Kinds of picture files."""

    png = "png"
    svg = "svg"
    pdf = "pdf"


def plot(
    sources: Annotated[
        list[Path], typer.Argument(help="eval.json, rounds.json, scored rows, samples, policies.", metavar="FILES")
    ],
    format: Annotated[Format, typer.Option(help="Format of the plots.", metavar="png|svg|pdf")] = Format.png,
    report: Annotated[
        str,
        options.output_option(
            help="Where to write the report. \\[report.html in the folder of the plots]", metavar="FILE"
        ),
    ] = "",
    output: Annotated[
        Path,
        options.output_option("-o", "--output", help="Folder of the plots.", metavar="FOLDER"),
    ] = Path("plots"),
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Plot targets and actual rewards, trade-offs, costs, distributions, training and rounds, with a report."""
    from irlhf.core import console
    from irlhf.plotting.plot import plot as draw

    console.be_quiet(quiet)
    summary = draw(sources, output, PlotSettings(format=format.value, report=report))
    page = Path(summary["report"])
    names = [Path(picture).name for picture in summary["pictures"]] or ["no picture"]
    inside = [page.name] if page.parent == output else []
    written = " and ".join([", ".join(names), *inside])
    options.finish(summary, json_, written if inside else f"{page}, and {written}")
