"""transformers' Trainer with a loss over completion tokens and comparisons."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import Trainer

from irlhf.models.loading import device
from irlhf.policy.steering_report import Figures, logged
from irlhf.training.batching import IGNORED, Collator, Family, LengthBatches, alone, lay
from irlhf.training.callbacks import EpochLoader, TrainingPlan, build_trainer, held_out
from irlhf.training.losses import comparison_loss, completion_logits, model_inputs, sequence_sums, token_losses
from irlhf.training.settings import DEFAULT_OBJECTIVE, RA_DPO, SHARED
from irlhf.training.steering_information import SteeringMonitor

_AGREES, _AGREES_ELSEWHERE = 1e-4, 1e-3  # relative to the loss, on CPU and on accelerators (bfloat16)


class CompletionTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose loss is the mean cross-entropy over all completion tokens of a step.

    Logits are computed only for positions that predict a completion token. Objectives that compare members of a family
    add the mean loss over all comparisons of a step.
    """

    loss_is_scaled_for_ga = True
    batch = 1.0  # families per step
    objective = DEFAULT_OBJECTIVE
    reference: Any = None  # base model of ra-dpo; None if it is the model without its adapter
    monitor: SteeringMonitor | None = None  # also called at each evaluation

    def __init__(self, model: Any, **options: Any) -> None:
        super().__init__(model=model, **options)

        self.projection = model.get_output_embeddings()
        self.figures: Figures = {}  # of the last evaluation
        self.figures_step = -1
        self.compared: list[float] = []  # comparison loss of each part since the last log

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of this process's share of the training families, in batches of similar width."""
        families: Any = self.train_dataset
        share = self.accelerator.process_index, self.accelerator.num_processes
        widths = [family.width for family in families]
        batches = LengthBatches(widths, self.batch / self.args.gradient_accumulation_steps, self.args.seed, share)
        if self.objective.compares:
            batches.redraw = families.draw
            parts = self.args.max_steps * self.args.gradient_accumulation_steps
            batches.second_phase = round(self.objective.whole_targets * parts)
        return EpochLoader(families, batch_sampler=batches, collate_fn=self.data_collator)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Return the parts of a step, and their number of tokens (or tokens and comparisons) over all processes."""
        parts, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.objective.compares and parts:
            counts = torch.stack([torch.stack(_sizes(part)) for part in parts]).sum(0)
            items = self.accelerator.reduce(counts.to(device), reduction="sum").clamp(min=1)
        return parts, items

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a part of a step.

        The token loss is divided by the tokens of the whole step, and the comparison loss by its comparisons; without
        `num_items_in_batch`, which has these counts, by those of the part.
        """
        if self.objective.compares:
            loss = self._compared_loss(model, inputs, num_items_in_batch)
        else:
            total, tokens = self.total_loss(model, inputs)
            loss = total / (tokens if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None:
            # Gradients are averaged over processes, but tokens are counted over all of them.
            loss = loss * self.accelerator.num_processes
        return (loss, {"loss": loss}) if return_outputs else loss

    def _compared_loss(self, model: Any, inputs: dict[str, torch.Tensor], items: Any) -> torch.Tensor:
        sizes = torch.stack(_sizes(inputs)).clamp(min=1)
        tokens, comparisons = sizes if items is None else items
        losses, owners = token_losses(model, self.projection, inputs)
        scores = -sequence_sums(losses, owners, len(inputs["own"]))
        if self.objective.name == RA_DPO:
            scores = self.objective.beta * (scores - self._reference_scores(inputs))
        compared = comparison_loss(scores, inputs["comparisons"])
        self.compared.append(float(compared.detach()) / float(sizes[1]))
        loss: torch.Tensor = compared / comparisons
        if self.objective.name != RA_DPO:
            loss = losses[inputs["own"][owners]].sum() / tokens + self.objective.weight * loss
        return loss

    def _reference_scores(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the log probability [sequences] of each completion under the base model."""
        with torch.no_grad():
            if self.reference is None:
                with self.model.disable_adapter():
                    losses, owners = token_losses(self.model, self.projection, inputs)
            else:
                losses, owners = token_losses(self.reference, self.reference.get_output_embeddings(), inputs)
        return -sequence_sums(losses, owners, len(inputs["own"]))

    def total_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross-entropy of a batch, and its number of completion tokens."""
        logits, labels, _ = completion_logits(model, self.projection, inputs)
        return cross_entropy(logits, labels, reduction="sum"), torch.tensor(len(labels), device=labels.device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the metrics; add `contrast_loss`, the mean comparison loss since the last log."""
        if "loss" in logs and self.compared:
            logs["contrast_loss"] = sum(self.compared) / len(self.compared)
            self.compared = []
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the metrics of the held-out rows; the loss is the mean over completion tokens."""
        families: Any = self.eval_dataset
        order = sorted(range(len(families)), key=lambda i: families[i].width)
        own = order[self.accelerator.process_index :: self.accelerator.num_processes]
        size = max(1, round(self.batch))
        sums = torch.zeros(2, device=self.args.device)
        self.model.eval()
        with torch.inference_mode():
            for start in range(0, len(own), size):
                batch = self.data_collator([families[i] for i in own[start : start + size]])
                sums += torch.stack(self.total_loss(self.model, self._prepare_inputs(batch)))
            # Evaluations that choose the best checkpoint must use the same rows.
            ended = self.state.global_step == self.args.max_steps and not self.args.load_best_model_at_end
            self.figures = self.monitor(self.model, self.projection, ended) if self.monitor else {}
        self.figures_step = self.state.global_step
        self.model.train()
        total, tokens = self.accelerator.reduce(sums).tolist()
        return held_out(self, total / tokens, logged(self.figures))

    def steering(self) -> Figures:
        """Return the steering information of the final model, or {} without held-out rows."""
        if self.monitor is None:
            return {}
        if self.args.load_best_model_at_end:
            self.model.eval()
            self.figures = self.monitor(self.model, self.projection, ended=True)
        elif self.figures_step != self.state.global_step:
            self.evaluate()
        return self.figures


def _sizes(inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number of tokens in the likelihood of a batch, and its number of comparisons."""
    sequences = inputs["sequences"]
    counted = inputs["own"][sequences.clamp(min=0)] & (sequences >= 0)
    return counted.sum(), torch.tensor(len(inputs["comparisons"]), device=sequences.device)


def trainer(
    model: Any, padding: int, families: tuple[Any, list[Family]], folder: Path, plan: TrainingPlan
) -> CompletionTrainer:
    """Return a Trainer over (training, validation) families that writes into `folder`."""
    collator = Collator(padding, shares=plan.layout == SHARED)
    result: CompletionTrainer = build_trainer(CompletionTrainer, model, folder, plan, rows=families, collator=collator)
    result.objective = plan.objective
    if plan.objective.name == RA_DPO and not hasattr(model, "disable_adapter"):
        result.reference = copy.deepcopy(model).eval().requires_grad_(False)
    return result


def sharing_agrees(model: Any, padding: int, families: Sequence[Family]) -> bool:
    """Return whether rows that share their prompt have the same loss as separate rows.

    They do not if the model has recurrent state or ignores the mask. Tests the first family of several members.
    """
    tried = next((family for family in families if len(family.members) > 1), families[0])
    losses: list[float] = []
    model.eval()
    with torch.inference_mode():
        for layout in ([tried], alone(tried.members)):
            batch = {name: value.to(model.device) for name, value in lay(layout, padding).items()}
            logits = model(**model_inputs(model, batch), use_cache=False).logits[:, :-1].float().flatten(0, 1)
            labels = batch["labels"][:, 1:].flatten()
            losses.append(float(cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")))
    model.train()
    return math.isclose(*losses, rel_tol=_AGREES if device() == "cpu" else _AGREES_ELSEWHERE)
