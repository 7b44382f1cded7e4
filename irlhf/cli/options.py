"""Options that mean the same in every command, the panels of the help, and what every command prints at its end."""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from irlhf.cli import completion
from irlhf.core.errors import ConfigError, DataError
from irlhf.executors import base as executors

REQUEST = "What to request"
SAMPLING = "Sampling"
TRAINING = "Training"
SERVER = "Server"
OUTPUT = "Output"


class BadRow(StrEnum):
    """What happens to a row that cannot be used."""

    stop = "stop"
    skip = "skip"


class ExecutorName(StrEnum):
    """Who does the work."""

    local = "local"
    ray = "ray"


Limit = Annotated[
    int, typer.Option("--limit", show_default=False, min=0, metavar="N", help="Use only the first N rows; 0 uses all.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, metavar="N", help="Seed of every random draw.")]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the summary as JSON on stdout; on stderr if the rows go to stdout.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print warnings and errors only.", rich_help_panel=OUTPUT)]
OnBadRow = Annotated[
    BadRow,
    typer.Option(
        "--on-bad-row", metavar="stop|skip", help="Stop at the first bad row, or set it aside with its reason."
    ),
]
Shard = Annotated[
    str,
    typer.Option("--shard", metavar="I/N", help="Do part I of N only; cat joins the outputs of all parts."),
]
Executor = Annotated[
    ExecutorName,
    typer.Option("--executor", metavar="NAME", help="Work in this process (local) or on a Ray cluster (ray)."),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", show_default=False, min=0, metavar="N", help="Workers of --executor ray; 0 starts as many as fit."
    ),
]
ApiKeyEnv = Annotated[
    str,
    typer.Option(
        "--api-key-env",
        metavar="NAME",
        help="Environment variable that holds the API key. \\[OPENAI_API_KEY]",
        rich_help_panel=SERVER,
    ),
]
ServedName = Annotated[
    str,
    typer.Option(
        "--served-name",
        metavar="NAME",
        help="Name of the model at the server. \\[its only model]",
        rich_help_panel=SERVER,
    ),
]

# ── training, in finetune, reward-model and rounds ──────────────────────────────────────────────────────────────────

Rewards = Annotated[
    str,
    typer.Option(
        "-r",
        "--rewards",
        metavar="FILE",
        help="rewards.yaml with the direction, weight and scale of each reward.",
        rich_help_panel=REQUEST,
    ),
]


def _training(*names: str, help: str, metavar: str = "N", **settings: Any) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=TRAINING, **settings)


Objective = Annotated[
    str,
    _training(
        "--objective",
        metavar="NAME",
        help="likelihood, contrast (over targets) or ra-dpo (reward-augmented DPO).",
        autocompletion=completion.objectives,
    ),
]
Contrast = Annotated[
    list[str] | None,
    _training(
        "--contrast",
        metavar="KEY=V",
        help="A setting of the contrast: weight, alternatives, one-reward or whole-targets; repeatable.",
    ),
]
Beta = Annotated[float, _training("--beta", min=0, help="Strength of the tie of ra-dpo to the base model.")]
Epochs = Annotated[
    float,
    _training("--epochs", show_default=False, min=0, max=10_000, help="Passes over the rows; 0 chooses by the model."),
]
LearningRate = Annotated[
    float,
    _training("--learning-rate", show_default=False, min=0, max=1, help="Peak learning rate; 0 chooses by the model."),
]
Batch = Annotated[int, _training("--batch", min=1, help="Rows, or pairs, in each training step.")]
Context = Annotated[
    int,
    _training("--context", show_default=False, min=0, help="Most tokens of a row; 0 takes the context of the model."),
]
Drop = Annotated[
    float,
    _training("--drop", min=0, max=0.99, metavar="SHARE", help="Probability that a reward line is left out of a row."),
]
DropAll = Annotated[
    float,
    _training(
        "--drop-all",
        show_default=False,
        min=0,
        max=0.99,
        metavar="SHARE",
        help="Probability that a row has no reward line at all.",
    ),
]
DropCut = Annotated[
    bool,
    _training("--drop-cut", metavar="", help="Leave out completions that the limit on new tokens cut off."),
]
Accumulate = Annotated[int, _training("--accumulate", min=1, help="Parts in which a step is computed, to save memory.")]
Lora = Annotated[
    int,
    _training(
        "--lora",
        show_default=False,
        min=0,
        max=1024,
        metavar="RANK",
        help="Train LoRA weights of this rank; 0 trains all.",
    ),
]
NoMerge = Annotated[
    bool, _training("--no-merge", metavar="", help="Save the LoRA weights alone instead of merging them.")
]
TrainingSeed = Annotated[int, _training("--seed", min=0, max=2**32 - 1, help="Seed of every random draw.")]
TrainingLimit = Annotated[
    int, _training("--limit", show_default=False, min=0, help="Use only the first N rows; 0 uses all.")
]
Precision = Annotated[
    str,
    _training("--precision", metavar="NAME", help="Arithmetic of training: auto, bf16 or fp32."),
]
ReportTo = Annotated[
    str, _training("--report-to", metavar="NAME", help="Experiment tracker of transformers, such as wandb.")
]


def _server(*names: str, help: str, metavar: str = "", **settings: Any) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=SERVER, **settings)


RenderOnly = Annotated[
    bool,
    typer.Option("--render-only", help="Write the training file of a host and stop.", rich_help_panel=OUTPUT),
]
Preview = Annotated[
    int,
    typer.Option(
        "--preview",
        show_default=False,
        min=0,
        metavar="N",
        help="Print N training rows and stop.",
        rich_help_panel=OUTPUT,
    ),
]

Host = Annotated[
    str, _server("--host", metavar="NAME", help="openai, azure, nebius, or the YAML file of another host.")
]
HostUrl = Annotated[str, _server("--base-url", metavar="URL", help="Address of the host, up to and with /v1.")]
Hyperparameter = Annotated[
    list[str] | None,
    _server("--hyperparameter", metavar="KEY=V", help="Hyperparameter for the host, such as batch_size=8; repeatable."),
]
Price = Annotated[
    float,
    _server(
        "--price-per-mtok",
        show_default=False,
        min=0,
        metavar="PRICE",
        help="Price of a million training tokens at the host.",
    ),
]
MaxSpend = Annotated[
    float,
    _server(
        "--max-spend", show_default=False, min=0, metavar="PRICE", help="Submit nothing that costs more; 0 is no limit."
    ),
]
Yes = Annotated[bool, _server("--yes", help="Agree to the cost without being asked.")]
DryRun = Annotated[bool, _server("--dry-run", help="Check the rows, print the cost and send nothing.")]
NoWait = Annotated[bool, _server("--no-wait", help="Submit the job and return at once.")]

STDIN = Path("-")
UNKNOWN_FILE = "FILE"  # in a command to run next, where no rewards.yaml is known
_CONTRAST = {"weight": float, "alternatives": int, "one-reward": float, "whole-targets": float}


def contrast_settings(given: Sequence[str] | None) -> dict[str, Any]:
    """Return the settings of the contrast as fields of FinetuneSettings. Raises ConfigError."""
    settings: dict[str, Any] = {}
    for pair in given or ():
        key, _, text = pair.partition("=")
        if key not in _CONTRAST:
            raise ConfigError(f"--contrast {pair}: write KEY=VALUE, where KEY is one of {', '.join(_CONTRAST)}")
        try:
            value = _CONTRAST[key](text)
        except ValueError as error:
            raise ConfigError(f"--contrast {pair}: '{text}' is not a number") from error
        settings["contrast_weight" if key == "weight" else key.replace("-", "_")] = value
    return settings


def executor(name: ExecutorName, workers: int) -> executors.Engine:
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
    """Say what was written and the next command; with `--json` print the summary instead.

    Raises DataError if every row was set aside.
    """
    from irlhf.core import console

    if not console.FIRST:
        return
    output = str(summary.get("output", ""))
    empty = summary.get("rejected") and not (summary.get("written") or summary.get("resumed"))
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False), err=output == str(STDIN))  # stdout has the rows
    elif not empty and not summary.get("open"):  # if it is open, nothing is written yet, and that is said already
        console.note(_written(summary, what) + (f"; next: {following}" if following and output != str(STDIN) else ""))
    if empty:
        where = "" if output == str(STDIN) else f"; {output}.rejected.jsonl has the reasons"
        raise DataError(f"{output}: no row is left, because all {summary['rejected']:,} were set aside{where}")


def _written(summary: Mapping[str, Any], what: str) -> str:
    output = summary.get("output", "")
    if summary.get("already_finished"):
        return f"{output} is complete already: nothing to do"
    rejected = f", set {summary['rejected']:,} aside" if summary.get("rejected") else ""
    kept = f" (kept {summary['resumed']:,} of an earlier run)" if summary.get("resumed") else ""
    return f"wrote {what} to {output}{kept}{rejected}"
