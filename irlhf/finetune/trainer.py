"""transformers' Trainer with a loss that computes nothing but what the completion needs."""

import json
import math
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from irlhf import console
from irlhf.finetune import COMPLETE

METRICS = "metrics.jsonl"

Encoded = dict[str, list[int]]  # "prompt" and "completion" token ids

_IGNORED = -100  # the label that losses leave out
_CHECKPOINTS = 10  # a run; a kill costs at most a tenth of it
_EVALUATIONS = 5  # a run
_LOGS = 50  # points on the training curve
_POOL = 50  # batches that are sorted by length together: enough to spare padding, few enough to mix


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    steps: int
    batch: int  # rows a step
    rate: float  # peak of the learning rate
    seed: int


class Collator:
    """Puts rows of one batch side by side, padded behind their ends.

    A causal model never looks at what comes later, so no attention mask is needed, and attention without
    one is faster. Labels begin with the first completion of the batch: the vocabulary projection, the
    dearest part of a small model, is spared the prompts.
    """

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Return input_ids [rows, width] and labels [rows, kept], which belong to the last `kept` columns."""
        width = max(len(row["prompt"]) + len(row["completion"]) for row in rows)
        before = min(len(row["prompt"]) for row in rows) - 1  # the column that predicts the first token stays
        ids = torch.full((len(rows), width), self.padding)
        labels = torch.full((len(rows), width), _IGNORED)
        for i, row in enumerate(rows):
            start, end = len(row["prompt"]), len(row["prompt"]) + len(row["completion"])
            ids[i, :end] = torch.tensor(row["prompt"] + row["completion"])
            labels[i, start:end] = ids[i, start:end]
        return {"input_ids": ids, "labels": labels[:, before:]}


class LengthBatches(Sampler[list[int]]):
    """Batches of rows of like length, so that little is padding.

    The order hangs on the seed and the epoch alone: a run that goes on from a checkpoint meets the rows
    that it would have met.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed = lengths, batch, seed
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
        order = rng.sample(range(len(self.lengths)), len(self.lengths))
        pool = _POOL * self.batch
        batches = []
        for start in range(0, len(order), pool):
            alike = sorted(order[start : start + pool], key=lambda i: self.lengths[i])
            batches += [alike[i : i + self.batch] for i in range(0, len(alike), self.batch)]
        rng.shuffle(batches)
        return iter(batches)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each pass over the rows."""
        self.epoch = epoch


class CompletionTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with cross-entropy over completion tokens, each of a step's tokens weighing the same."""

    loss_is_scaled_for_ga = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the training rows in batches of like length."""
        rows: Any = self.train_dataset
        lengths = [len(row["prompt"]) + len(row["completion"]) for row in rows]
        batches = LengthBatches(lengths, self.args.per_device_train_batch_size, self.args.seed)
        loader: DataLoader[Any] = DataLoader(rows, batch_sampler=batches, collate_fn=self.data_collator)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the summed loss of the batch over the number of completion tokens of the whole step."""
        labels = inputs["labels"]
        outputs = model(inputs["input_ids"], logits_to_keep=labels.shape[1], use_cache=False)
        logits = outputs.logits[:, :-1].flatten(0, 1).float()
        total = cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=_IGNORED, reduction="sum")
        tokens = num_items_in_batch if num_items_in_batch is not None else (labels[:, 1:] != _IGNORED).sum()
        loss = total / tokens
        return (loss, {"loss": loss}) if return_outputs else loss


class Chronicle(TrainerCallback):  # type: ignore[misc]
    """Keeps metrics.jsonl, shows progress, and vouches for checkpoints once they are whole."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / METRICS
        self.shown = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar, and forget what a killed run logged behind its last checkpoint."""
        kept = [one for one in read_metrics(self.path) if one["step"] <= state.global_step]
        self.path.write_text("".join(json.dumps(one) + "\n" for one in kept))
        self.seconds = kept[-1]["seconds"] if kept else 0.0
        self.started = time.monotonic()
        self.advance = self.shown.enter_context(console.progress("training", state.max_steps))
        self.advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self.advance(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Append what the Trainer measured."""
        names = {"loss": "loss", "eval_loss": "validation_loss", "learning_rate": "learning_rate"}
        found = {names[key]: value for key, value in logs.items() if key in names}
        if found:
            seconds = round(self.seconds + time.monotonic() - self.started, 2)
            with self.path.open("a") as stream:
                stream.write(json.dumps({"step": state.global_step, "seconds": seconds, **found}) + "\n")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        os.sync()
        (checkpoint / COMPLETE).touch()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self.shown.close()


def trainer(
    model: Any, padding: int, rows: tuple[list[Encoded], list[Encoded]], folder: Path, plan: Plan
) -> CompletionTrainer:
    """Return a Trainer over (training, validation) rows that writes into `folder`."""
    training, validation = rows
    every = max(1, plan.steps // _CHECKPOINTS)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch,
        per_device_eval_batch_size=plan.batch,
        learning_rate=plan.rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(100, plan.steps // 20),
        weight_decay=0.01,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        seed=plan.seed,
        remove_unused_columns=False,
        logging_steps=max(1, plan.steps // _LOGS),
        eval_strategy="steps" if validation else "no",
        eval_steps=max(1, plan.steps // _EVALUATIONS),
        prediction_loss_only=True,
        save_steps=every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    made = CompletionTrainer(
        model=model,
        args=arguments,
        train_dataset=training,
        eval_dataset=validation or None,
        data_collator=Collator(padding),
        callbacks=[Chronicle(folder)],
    )
    made.remove_callback(PrinterCallback)  # stdout is for data
    return made


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
