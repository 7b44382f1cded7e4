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


def request_option(*names: str, **settings: Any) -> Any:
    """Return an option of the panel "What to request"."""
    return typer.Option(*names, rich_help_panel=REQUEST, **settings)


def sampling_option(*names: str, metavar: str = "N", **settings: Any) -> Any:
    """Return an option of the panel "Sampling"."""
    return typer.Option(*names, metavar=metavar, rich_help_panel=SAMPLING, **settings)


def training_option(*names: str, metavar: str = "N", **settings: Any) -> Any:
    """Return an option of the panel "Training"."""
    return typer.Option(*names, metavar=metavar, rich_help_panel=TRAINING, **settings)


def server_option(*names: str, **settings: Any) -> Any:
    """Return an option of the panel "Server"."""
    return typer.Option(*names, rich_help_panel=SERVER, **settings)


def output_option(*names: str, **settings: Any) -> Any:
    """Return an option of the panel "Output"."""
    return typer.Option(*names, rich_help_panel=OUTPUT, **settings)


# ── options that stand in another panel in some commands ────────────────────────────────────────────────────────────


def _seed(panel: str | None = None) -> Any:
    help = "Seed of every random draw."
    return typer.Option("--seed", min=0, max=2**32 - 1, metavar="N", help=help, rich_help_panel=panel)


def _limit(panel: str | None = None, what: str = "rows") -> Any:
    help = f"Use only the first N {what}; 0 uses all."
    return typer.Option("--limit", show_default=False, min=0, metavar="N", help=help, rich_help_panel=panel)


def _shard(panel: str | None = None) -> Any:
    help = "Do part I of N only; cat joins the outputs of all parts."
    return typer.Option("--shard", metavar="I/N", help=help, rich_help_panel=panel)


def _executor(panel: str | None = None) -> Any:
    help = "Work in this process (local) or on a Ray cluster (ray)."
    return typer.Option("--executor", metavar="NAME", help=help, rich_help_panel=panel)


def _workers(panel: str | None = None) -> Any:
    help = "Workers of --executor ray; 0 starts as many as fit."
    return typer.Option("--workers", show_default=False, min=0, metavar="N", help=help, rich_help_panel=panel)


Seed = Annotated[int, _seed()]
TrainingSeed = Annotated[int, _seed(TRAINING)]
SamplingSeed = Annotated[int, _seed(SAMPLING)]
Limit = Annotated[int, _limit()]
TrainingLimit = Annotated[int, _limit(TRAINING)]
SamplingLimit = Annotated[int, _limit(SAMPLING, "prompts")]
Shard = Annotated[str, _shard()]
SamplingShard = Annotated[str, _shard(SAMPLING)]
Executor = Annotated[ExecutorName, _executor()]
SamplingExecutor = Annotated[ExecutorName, _executor(SAMPLING)]
Workers = Annotated[int, _workers()]
SamplingWorkers = Annotated[int, _workers(SAMPLING)]

# ── options of all commands ─────────────────────────────────────────────────────────────────────────────────────────

Json = Annotated[
    bool,
    output_option("--json", help="Print the summary as JSON on stdout; on stderr if the rows go to stdout."),
]
Quiet = Annotated[bool, output_option("-q", "--quiet", help="Print warnings and errors only.")]
OnBadRow = Annotated[
    BadRow,
    typer.Option("--on-bad-row", metavar="stop|skip", help="Stop at the first bad row, or reject it with the reason."),
]
ApiKeyEnv = Annotated[
    str,
    server_option(
        "--api-key-env", metavar="NAME", help="Environment variable that holds the API key. \\[OPENAI_API_KEY]"
    ),
]
ServedName = Annotated[
    str,
    server_option("--served-name", metavar="NAME", help="Name of the model at the server. \\[its only model]"),
]

# ── training, in finetune, reward-model and rounds ──────────────────────────────────────────────────────────────────

Rewards = Annotated[
    str,
    request_option(
        "-r", "--rewards", metavar="FILE", help="rewards.yaml with the direction, weight and scale of each reward."
    ),
]


BaseModel = Annotated[
    str,
    training_option(
        "--model", help="Base model: a folder, a .gguf file, a hub id, tiny, or openai:NAME at a host.", metavar="MODEL"
    ),
]
Objective = Annotated[
    str,
    training_option(
        "--objective",
        metavar="NAME",
        help="likelihood, contrast (over targets) or ra-dpo (reward-augmented DPO).",
        autocompletion=completion.objectives,
    ),
]
Contrast = Annotated[
    list[str] | None,
    training_option(
        "--contrast",
        metavar="KEY=V",
        help="A setting of the contrast: weight, alternatives, one-reward or whole-targets; repeatable.",
    ),
]
Beta = Annotated[float, training_option("--beta", min=0, help="Strength of the tie of ra-dpo to the base model.")]
Epochs = Annotated[
    float,
    training_option(
        "--epochs", show_default=False, min=0, max=10_000, help="Passes over the rows; 0 chooses by the model."
    ),
]
LearningRate = Annotated[
    float,
    training_option(
        "--learning-rate", show_default=False, min=0, max=1, help="Peak learning rate; 0 chooses by the model."
    ),
]
Batch = Annotated[int, training_option("--batch", min=1, help="Rows, or pairs, in each training step.")]
Context = Annotated[
    int,
    training_option(
        "--context", show_default=False, min=0, help="Most tokens of a row; 0 takes the context of the model."
    ),
]
Drop = Annotated[
    float,
    training_option(
        "--drop", min=0, max=0.99, metavar="SHARE", help="Probability that a reward line is left out of a row."
    ),
]
DropAll = Annotated[
    float,
    training_option(
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
    training_option("--drop-cut", metavar="", help="Leave out completions that the limit on new tokens cut off."),
]
Accumulate = Annotated[
    int, training_option("--accumulate", min=1, help="Parts in which a step is computed, to save memory.")
]
Lora = Annotated[
    int,
    training_option(
        "--lora",
        show_default=False,
        min=0,
        max=1024,
        metavar="RANK",
        help="Train LoRA weights of this rank; 0 trains all.",
    ),
]
NoMerge = Annotated[
    bool, training_option("--no-merge", metavar="", help="Save the LoRA weights alone instead of merging them.")
]
Precision = Annotated[
    str,
    training_option("--precision", metavar="NAME", help="Arithmetic of training: auto, bf16 or fp32."),
]
ReportTo = Annotated[
    str, training_option("--report-to", metavar="NAME", help="Experiment tracker of transformers, such as wandb.")
]


RenderOnly = Annotated[
    bool,
    output_option("--render-only", help="Write the training file of a host and stop."),
]
Preview = Annotated[
    int,
    output_option("--preview", show_default=False, min=0, metavar="N", help="Print N training rows and stop."),
]

Host = Annotated[
    str, server_option("--host", metavar="NAME", help="openai, azure, nebius, or the YAML file of another host.")
]
HostUrl = Annotated[str, server_option("--base-url", metavar="URL", help="Address of the host, up to and with /v1.")]
Hyperparameter = Annotated[
    list[str] | None,
    server_option(
        "--hyperparameter", metavar="KEY=V", help="Hyperparameter for the host, such as batch_size=8; repeatable."
    ),
]
Price = Annotated[
    float,
    server_option(
        "--price-per-mtok",
        show_default=False,
        min=0,
        metavar="PRICE",
        help="Price of a million training tokens at the host.",
    ),
]
MaxSpend = Annotated[
    float,
    server_option(
        "--max-spend", show_default=False, min=0, metavar="PRICE", help="Submit nothing that costs more; 0 is no limit."
    ),
]
Yes = Annotated[bool, server_option("--yes", help="Accept the cost without confirmation.")]
DryRun = Annotated[bool, server_option("--dry-run", help="Check the rows, print the cost and send nothing.")]
NoWait = Annotated[bool, server_option("--no-wait", help="Submit the job and return at once.")]

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

    Raises DataError if every row was rejected.
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
        raise DataError(f"{output}: no row is left, because all {summary['rejected']:,} were rejected{where}")


def _written(summary: Mapping[str, Any], what: str) -> str:
    output = summary.get("output", "")
    if summary.get("already_finished"):
        return f"{output} is complete already: nothing to do"
    rejected = f", set {summary['rejected']:,} aside" if summary.get("rejected") else ""
    kept = f" (kept {summary['resumed']:,} of an earlier run)" if summary.get("resumed") else ""
    return f"wrote {what} to {output}{kept}{rejected}"
