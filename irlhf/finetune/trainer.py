"""transformers' Trainer with a loss that computes nothing but what the completion needs."""

import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from irlhf import console
from irlhf.engines.local import device
from irlhf.engines.processes import wait_for_all
from irlhf.engines.projection import wanted_logits
from irlhf.errors import ConfigError
from irlhf.finetune import BUCKETED, COMPLETE, PACKED, PADDED
from irlhf.finetune.batches import IGNORED, Collator, Family, LengthBatches, alone, lay
from irlhf.policy import METRICS

_CHECKPOINTS = 10  # a run; a kill costs at most a tenth of it
_EVALUATIONS = 5  # a run
_AGREES, _AGREES_ELSEWHERE = 1e-4, 1e-3  # of the loss, on a processor; in bfloat16 it is no finer
_LOGS = 50  # points on the training curve


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    steps: int
    batch: float  # families a step, on average, over all processes
    rate: float  # peak of the learning rate
    seed: int
    accumulate: int = 1  # parts that a step is computed in, to spare memory
    report_to: str = "none"
    layout: str = BUCKETED  # how families become batches


class EpochLoader(DataLoader[Any]):
    """A DataLoader whose batches change with the epoch that the Trainer names."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each pass over the rows."""
        cast(LengthBatches, self.batch_sampler).set_epoch(epoch)


class CompletionTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with cross-entropy over completion tokens, each of a step's tokens weighing the same.

    The vocabulary projection sees nothing but the places that predict a completion token.
    """

    loss_is_scaled_for_ga = True
    batch = 1.0  # families a step
    layout = BUCKETED

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model=model, **options)
        self.model_accepts_loss_kwargs = True  # so that the tokens of all parts of a step are counted
        self.projection = model.get_output_embeddings()

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the training rows in batches, of like length where the layout wants it."""
        families: Any = self.train_dataset
        share = self.accelerator.process_index, self.accelerator.num_processes
        # What is of one width stands in an order that is random.
        widths = [1 if self.layout in (PADDED, PACKED) else one.width for one in families]
        batches = LengthBatches(widths, self.batch / self.args.gradient_accumulation_steps, self.args.seed, share)
        return EpochLoader(families, batch_sampler=batches, collate_fn=self.data_collator)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the summed loss of the batch over the number of completion tokens of the whole step."""
        total, tokens = self.total_loss(model, inputs)
        if num_items_in_batch is None:
            loss = total / tokens
        else:
            # Gradients of several processes are averaged, and the tokens are counted over all of them.
            loss = total / num_items_in_batch * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss

    def total_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of a batch, and its number of completion tokens."""
        labels = inputs["labels"][:, 1:]
        others = _given(self.model, inputs)
        wanted = labels != IGNORED
        logits = wanted_logits(model, self.projection, others, wanted)
        return cross_entropy(logits.float(), labels[wanted], reduction="sum"), wanted.sum()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the loss on the held-out rows, every completion token weighing the same."""
        families: Any = self.eval_dataset
        order = sorted(range(len(families)), key=lambda i: families[i].width)
        mine = order[self.accelerator.process_index :: self.accelerator.num_processes]
        size = max(1, round(self.batch))
        sums = torch.zeros(2, device=self.args.device)
        self.model.eval()
        with torch.inference_mode():
            for start in range(0, len(mine), size):
                batch = self.data_collator([families[i] for i in mine[start : start + size]])
                sums += torch.stack(self.total_loss(self.model, self._prepare_inputs(batch)))
        self.model.train()
        total, tokens = self.accelerator.reduce(sums).tolist()
        metrics = {"eval_loss": total / tokens}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class Chronicle(TrainerCallback):  # type: ignore[misc]
    """Keeps metrics.jsonl, shows progress, and vouches for checkpoints once they are whole."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS
        self.shown = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar, and forget what a killed run logged behind its last checkpoint."""
        if not console.FIRST:
            return
        kept = [one for one in read_metrics(self.path) if one["step"] <= state.global_step]
        self.path.write_text("".join(json.dumps(one) + "\n" for one in kept))
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        self.started = time.monotonic()
        self.advance = self.shown.enter_context(console.progress("training", state.max_steps))
        self.advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        if console.FIRST:
            self.advance(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Append what the Trainer measured. Raises ConfigError where a loss is no number any more."""
        names = {"loss": "loss", "eval_loss": "validation_loss", "learning_rate": "learning_rate"}
        found = {names[key]: value for key, value in logs.items() if key in names}
        if not all(map(math.isfinite, found.values())):
            told = f"training diverged at step {state.global_step:,}: the loss is no number any more"
            raise ConfigError(f"{told}; learn slower than {args.learning_rate:g}, with --learning-rate")
        if found and console.FIRST:
            seconds = round(self.seconds + time.monotonic() - self.started, 2)
            with self.path.open("a") as stream:
                stream.write(json.dumps({"step": state.global_step, "seconds": seconds, **found}) + "\n")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole, when every process has written its part."""
        wait_for_all()
        if not console.FIRST:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        os.sync()
        (checkpoint / COMPLETE).touch()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self.shown.close()


def trainer(
    model: Any, padding: int, families: tuple[list[Family], list[Family]], folder: Path, plan: Plan
) -> CompletionTrainer:
    """Return a Trainer over (training, validation) families that writes into `folder`."""
    training, validation = families
    made = CompletionTrainer(
        model,
        args=_arguments(folder, plan, bool(validation)),
        train_dataset=training,
        eval_dataset=validation or None,
        data_collator=Collator(padding, packs=plan.layout == PACKED),
        callbacks=[Chronicle(folder)],
    )
    made.batch, made.layout = plan.batch, plan.layout
    made.remove_callback(PrinterCallback)  # stdout is for data
    return made


def _arguments(folder: Path, plan: Plan, validates: bool) -> TrainingArguments:
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
        eval_steps=max(1, plan.steps // _EVALUATIONS),
        prediction_loss_only=True,
        save_steps=max(1, plan.steps // _CHECKPOINTS),
        save_total_limit=2,
        report_to=plan.report_to,
        disable_tqdm=True,
        use_cpu=device() == "cpu",
        ddp_find_unused_parameters=False,
        logging_nan_inf_filter=False,
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),  # on a processor it is 5x slower
    )


def check_tracker(name: str) -> None:
    """Raise ConfigError for a tracker that transformers does not know, or whose package is not here."""
    try:
        for tracker in get_reporting_integration_callbacks(name):
            tracker()
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"--report-to {name}: {error}") from error


def layout_agrees(model: Any, padding: int, families: Sequence[Family], layout: str) -> bool:
    """Return whether a model gives rows that are laid together the loss that they have alone.

    It does unless it has another memory than attention, or ignores the mask. The first family of several
    members is tried and, where families are packed, one beside it too.
    """
    first = next((i for i, one in enumerate(families) if len(one.members) > 1), 0)
    tried = families[max(0, first - 1) :][:2] if layout == PACKED else families[first:][:1]
    rows = [row for family in tried for row in family.members]
    model.eval()
    with torch.inference_mode():
        losses = [
            float(_summed(model, {name: value.to(model.device) for name, value in lay(one, padding).items()}))
            for one in ([tried], [[family] for family in alone(rows)])
        ]
    model.train()
    return math.isclose(*losses, rel_tol=_AGREES if device() == "cpu" else _AGREES_ELSEWHERE)


def _summed(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(**_given(model, batch), use_cache=False).logits[:, :-1].float()
    return cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")


def _given(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what the model is given of a batch; to `eager` attention a mask is numbers that it adds."""
    given = {name: value for name, value in batch.items() if name != "labels"}
    if "attention_mask" in given and model.config._attn_implementation == "eager":
        given["attention_mask"] = (~given["attention_mask"]).to(model.dtype) * torch.finfo(model.dtype).min
    return given


def newest_complete(folder: Path) -> str | None:
    """Return the newest checkpoint that was written to its end; throw away what a kill cut short."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).exists():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    if newest is not None:
        console.note(f"going on behind {newest.name}")
    return str(newest) if newest else None


def forget_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a finished run."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the whole rows of a metrics.jsonl; a kill may have torn the last."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]
