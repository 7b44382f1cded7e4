"""Shared parts of all trainings: plan, Trainer and its arguments, metrics.jsonl, checkpoints and saved weights."""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from irlhf.core import console
from irlhf.core.errors import ConfigError, OutputError
from irlhf.models.distributed import wait_for_all
from irlhf.models.loading import device
from irlhf.policy.policy_file import METRICS
from irlhf.policy.steering_report import STEERING
from irlhf.training.batching import LengthBatches
from irlhf.training.settings import BUCKETED, COMPLETE, DEFAULT_OBJECTIVE, Objective

_CHECKPOINTS = 10  # per run; a kill loses at most a tenth of it
_EVALUATIONS = 4  # per run
_LOGS = 50  # points on the training curve


@dataclass(frozen=True)
class TrainingPlan:
    """Steps, batch size, learning rate and precision of a training."""

    steps: int
    batch: float  # mean number of families or pairs per step, over all processes
    rate: float  # peak learning rate
    seed: int
    accumulate: int = 1  # parts per step, to save memory
    report_to: str = "none"
    layout: str = BUCKETED  # BUCKETED or SHARED
    objective: Objective = DEFAULT_OBJECTIVE
    bf16: bool = False  # compute matrix products in bfloat16
    keeps_best: bool = False  # keep the checkpoint with the highest steering information, not the last


class EpochLoader(DataLoader[Any]):
    """A DataLoader that passes the epoch to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer calls this before each pass over the rows."""
        cast(LengthBatches, self.batch_sampler).set_epoch(epoch)


class TrainingCallback(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, shows a progress bar, and marks complete checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS
        self.shown = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar, and remove metrics logged after the checkpoint that training resumes from."""
        if not console.FIRST:
            return
        kept = [metrics for metrics in read_metrics(self.path) if metrics["step"] <= state.global_step]
        self.path.write_text("".join(json.dumps(metrics) + "\n" for metrics in kept))
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        self.started = time.monotonic()
        self.advance = self.shown.enter_context(console.progress("training", state.max_steps))
        self.advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        if console.FIRST:
            self.advance(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Append the metrics to metrics.jsonl. Raises ConfigError if a loss is NaN or infinite."""
        names = {key: key.removeprefix("eval_") for key in logs if key.startswith(f"eval_{STEERING}")}
        names |= {key: key for key in ("loss", "contrast_loss", "learning_rate")} | {"eval_loss": "validation_loss"}
        metrics = {names[key]: value for key, value in logs.items() if key in names}
        if not all(map(math.isfinite, metrics.values())):
            problem = f"training diverged at step {state.global_step:,}: the loss is NaN or infinite"
            raise ConfigError(f"{problem}; set --learning-rate below {args.learning_rate:g}")
        if metrics and console.FIRST:
            seconds = round(self.seconds + time.monotonic() - self.started, 2)
            with self.path.open("a") as stream:
                stream.write(json.dumps({"step": state.global_step, "seconds": seconds, **metrics}) + "\n")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as complete after every process has written its part."""
        wait_for_all()
        if not console.FIRST:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        os.sync()
        (checkpoint / COMPLETE).touch()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the bar."""
        self.shown.close()


def training_arguments(folder: Path, plan: TrainingPlan, validates: bool) -> TrainingArguments:
    """Return the arguments of the Trainer; `validates` turns on evaluation on held-out rows."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        gradient_accumulation_steps=plan.accumulate,
        learning_rate=plan.rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(100, plan.steps // 20),
        weight_decay=0.01,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        seed=plan.seed,
        remove_unused_columns=False,
        logging_steps=max(1, plan.steps // _LOGS),
        eval_strategy="steps" if validates else "no",
        # Rounding up puts the last evaluation after the last step; keeps_best needs an evaluation at every checkpoint.
        eval_steps=max(1, plan.steps // _EVALUATIONS) if plan.keeps_best else math.ceil(plan.steps / _EVALUATIONS),
        prediction_loss_only=True,
        save_steps=max(1, plan.steps // (_EVALUATIONS if plan.keeps_best else _CHECKPOINTS)),
        save_total_limit=2,
        load_best_model_at_end=plan.keeps_best,
        metric_for_best_model=f"eval_{STEERING}/joint/information" if plan.keeps_best else None,
        greater_is_better=True if plan.keeps_best else None,
        report_to=plan.report_to,
        disable_tqdm=True,
        use_cpu=device() == "cpu",
        ddp_find_unused_parameters=False,
        logging_nan_inf_filter=False,
        bf16=plan.bf16,
    )


def build_trainer(
    kind: Callable[..., Any], model: Any, folder: Path, plan: TrainingPlan, *, rows: tuple[Any, Any], collator: Any
) -> Any:
    """Return a Trainer over (training, validation) `rows` that follows the plan and writes into `folder`."""
    training, validation = rows
    trainer = kind(
        model,
        args=training_arguments(folder, plan, bool(validation)),
        train_dataset=training,
        eval_dataset=validation or None,
        data_collator=collator,
        callbacks=[TrainingCallback(folder)],
    )
    trainer.batch = plan.batch
    trainer.model_accepts_loss_kwargs = True  # counts tokens or pairs over all parts of a step
    trainer.remove_callback(PrinterCallback)  # stdout is for data
    return trainer


def check_tracker(name: str) -> None:
    """Raise ConfigError if transformers does not know a tracker, or if its package is not installed."""
    try:
        for tracker in get_reporting_integration_callbacks(name):
            tracker()
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"--report-to {name}: {error}") from error


def newest_complete(folder: Path) -> str | None:
    """Return the path of the newest complete checkpoint, or None; delete incomplete checkpoints."""
    complete = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).exists():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    newest = max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    if newest is not None:
        console.note(f"resuming from {newest.name}")
    return str(newest) if newest else None


def forget_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a finished run."""
    for checkpoint in folder.glob("checkpoint-*"):
        # First, so that a kill leaves no incomplete checkpoint marked complete.
        (checkpoint / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(checkpoint)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the complete rows of a metrics.jsonl; a kill may leave an incomplete last line."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def held_out(trainer: Any, loss: float, figures: Mapping[str, float] | None = None) -> dict[str, float]:
    """Log held-out metrics, call the callbacks as Trainer.evaluate does, and return the metrics (prefix `eval_`)."""
    metrics = {"eval_loss": loss, **{f"eval_{name}": value for name, value in (figures or {}).items()}}
    trainer.log(metrics)
    trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
    return metrics


# Parts of the messages that Rust libraries and torch raise if a file cannot be written.
_WRITE_ERRORS = ("os error", "inline_container", "PytorchStreamWriter")


def refuse_broken(model: Any) -> None:
    """Raise ConfigError if a weight is NaN or infinite."""
    if not all(bool(weights.isfinite().all()) for weights in model.parameters()):
        raise ConfigError("training diverged: some weights are NaN or infinite; lower --learning-rate")


@contextmanager
def disk_errors_as_output_errors(folder: Path) -> Iterator[None]:
    """Raise OutputError if weights cannot be written to disk."""
    try:
        yield
    except Exception as error:  # safetensors, tokenizers and torch share no exception class
        if not any(sign in str(error) for sign in _WRITE_ERRORS):
            raise
        problem = f"{folder}: cannot be written ({str(error).splitlines()[0]})"
        raise OutputError(f"{problem}; free disk space or choose another output") from error


def save(model: Any, tokenizer: Any, folder: Path) -> dict[str, Any]:
    """Save a model and its tokenizer in the Hugging Face format.

    Returns the SHA-256 of all weights, as hexadecimal digits, and the versions of irlhf, torch and transformers.
    """
    with disk_errors_as_output_errors(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    weights = hashlib.sha256()
    for shard in sorted(folder.glob("*.safetensors")):
        shard.chmod((folder / "tokenizer_config.json").stat().st_mode)  # safetensors writes files with mode 0600
        with shard.open("rb") as stream:
            weights.update(hashlib.file_digest(stream, "sha256").digest())
    versions = {name: version(name) for name in ("irlhf", "torch", "transformers")}
    return {"weights": weights.hexdigest(), "versions": versions}
