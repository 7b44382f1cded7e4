"""Read the files that plots are drawn from: eval.json, rounds.json, scored rows, samples and training metrics."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, Where, from_json
from irlhf.io.files import STREAM, read_json, read_rows
from irlhf.policy.evaluation_file import checked_evaluation
from irlhf.policy.policy_file import FILE, METRICS
from irlhf.policy.remote_model import REWARD_FILE, read_reward_file
from irlhf.policy.rounds_file import checked_rounds

Evaluation = Mapping[str, Any]  # the content of an eval.json
Round = Mapping[str, Any]  # the measurements after one round

# Errors of Python, matplotlib and Jinja for a part of a file that is missing or of another type.
_DAMAGED = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, UndefinedError)


@dataclass(frozen=True)
class RoundsArm:
    """One run of rounds."""

    name: str  # of its folder
    rounds: Sequence[Round]  # from round 0, the policy that the rounds began with


@dataclass(frozen=True)
class Rounds:
    """Runs of rounds, with the evaluations of the first run's rounds."""

    arms: Sequence[RoundsArm]
    evaluations: Mapping[int, Evaluation]  # by the number of the round; rounds without an eval.json are left out


@dataclass(frozen=True)
class TrainingRun:
    """The metrics of a training run."""

    name: str  # of the policy's folder
    unit: str  # of the loss
    rows: Sequence[Mapping[str, Any]]  # one per logged step


@dataclass(frozen=True)
class PlotInput:
    """The parsed content of one file; the other fields are empty."""

    evaluation: Evaluation | None = None
    rounds: Rounds | None = None
    rewards: Sequence[Mapping[str, float]] | None = None  # of each scored row
    training: TrainingRun | None = None
    samples: Sequence[Example] = ()


def input_file(source: Path) -> Path:
    """Return the file to read: a policy folder's metrics, else the source itself.

    Raises ConfigError for stdin, for a folder that is not a policy and for a policy without training metrics.
    """
    if source == STREAM:
        raise ConfigError("plot reads files, not stdin")
    if not source.is_dir():
        return source
    if (source / METRICS).is_file():
        return source / METRICS
    if (source / FILE).is_file():
        raise ConfigError(f"{source}: nothing was trained in it (`--baseline prompted`), so no curve; leave it out")
    raise ConfigError(f"{source} is not a policy's folder; name files, or folders that `irlhf finetune` wrote")


def read_input(path: Path) -> PlotInput:
    """Return the content of a file, parsed once. Raises DataError if there is nothing to draw in it."""
    content = _json_object(path)
    if content is not None and {"policies", "version"} <= content.keys():
        return PlotInput(evaluation=as_evaluation(content, path))
    if content is not None and {"names", "version"} <= content.keys():
        with report_damage([path]):
            return PlotInput(rounds=as_rounds(content, path))
    rows = read_rows(path)
    start = next(rows)
    return _rows_input(path, start[1], chain([start], rows))


def as_evaluation(content: Mapping[str, Any], path: Path) -> Evaluation:
    """Return the checked content of the eval.json at `path`, safe to display."""
    safe: dict[str, Any] = _safe(checked_evaluation(content, path))
    return safe


def as_rounds(content: Mapping[str, Any], path: Path) -> Rounds:
    """Return the checked content of the rounds.json at `path`, with the eval.json of the rounds beside it."""
    run = _safe(checked_rounds(content, path))
    arms = run["arms"] or [{"name": path.resolve().parent.name, "rounds": run["rounds"]}]
    files = {row["round"]: path.parent / f"round-{row['round']}" / "eval.json" for row in run["rounds"]}
    absent = [str(number) for number, file in files.items() if not file.is_file()]
    if absent:
        note = f"no round-N/eval.json beside it for round {', '.join(absent)}"
        console.warn(f"{path}: {note}, so these rounds are missing from target against actual")
    evaluations = {number: as_evaluation(read_json(file), file) for number, file in files.items() if file.is_file()}
    return Rounds([RoundsArm(arm["name"], arm["rounds"]) for arm in arms], evaluations)


@contextmanager
def report_damage(paths: Iterable[str | Path]) -> Iterator[None]:
    """Turn errors of missing or invalid parts of the files into a DataError that names the files."""
    try:
        yield
    except _DAMAGED as error:
        files, text = ", ".join(map(str, paths)), " ".join(f"{type(error).__name__}: {error}".split())
        reason = f"damaged, or changed by hand ({text:.100})"
        raise DataError(f"{files}: {reason}; run the command that wrote it again") from error


def _json_object(path: Path) -> dict[str, Any] | None:
    if path.suffix != ".json":
        return None
    try:
        return read_json(path)
    except DataError:  # it may be a list of rows; otherwise read_rows reports the error
        return None


def _rows_input(path: Path, first: Mapping[str, Any], rows: Iterator[tuple[Where, dict[str, Any]]]) -> PlotInput:
    if "policy" in first and "completion" in first:
        return PlotInput(samples=[from_json(row, where) for where, row in rows])
    if first.get("rewards") and "completion" in first:
        return PlotInput(rewards=[from_json(row, where).rewards for where, row in rows])
    if "step" in first and ("loss" in first or "validation_loss" in first):
        return PlotInput(training=_training_run(path, [row for _, row in rows]))
    raise DataError(f"{path}: nothing to draw; plot reads eval.json, rounds.json, scored rows, samples, policy folders")


def _training_run(path: Path, rows: Sequence[Mapping[str, Any]]) -> TrainingRun:
    folder = path.resolve().parent
    reward_file = folder / REWARD_FILE
    unit = "nats per completion token"
    if reward_file.is_file():
        described = read_reward_file(reward_file)
        rated = bool(described["settings"].get("reward"))
        # A hosted reward model is a language model that answers in words, so its loss is per token.
        unit = unit if described["hosted"] else "squared error, standardized" if rated else "nats per pair"
    return TrainingRun(folder.name, unit, rows)


def _safe(value: Any) -> Any:
    """Return JSON data without control characters and lone surrogates in its texts."""
    if isinstance(value, str):
        return console.clean(value).encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_safe(key): _safe(item) for key, item in value.items()}
    return [_safe(item) for item in value] if isinstance(value, list) else value
