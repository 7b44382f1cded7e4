"""Train a reward model locally: a one-logit classifier with the same inputs as in scoring."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from irlhf.core import console
from irlhf.core.bootstrap import Bootstrap, few_prompts
from irlhf.core.errors import DataError
from irlhf.core.example import Example, as_messages
from irlhf.core.pairs import Pair, accuracy
from irlhf.io.files import write_json
from irlhf.models.classifier import Reader, Shown
from irlhf.models.loading import device, fitting_threads, load_untrained, size_of
from irlhf.models.precision import resolve_precision
from irlhf.models.tiny import make_tiny_classifier
from irlhf.models.turn_probe import Refused
from irlhf.policy.model_card import write_reward_model_card
from irlhf.policy.policy_file import TINY
from irlhf.policy.remote_model import REWARD_FILE
from irlhf.training.callbacks import (
    TrainingPlan,
    build_trainer,
    check_tracker,
    disk_errors_as_output_errors,
    forget_checkpoints,
    newest_complete,
    refuse_broken,
    save,
)
from irlhf.training.reward_model.pairwise_trainer import EncodedItem, PairCollator, PairTrainer
from irlhf.training.reward_model.training_data import Preferences, Rating, Ratings, rating_figures
from irlhf.training.settings import RewardModelSettings

_TINY_CONTEXT = 512  # tokens
# Epochs for pairs and for ratings. More epochs of pairs overfit; there are fewer ratings, one row each.
_TINY_EPOCHS = {"pairs": 2.0, "ratings": 8.0}
_DEFAULT_EPOCHS = {"pairs": 1.0, "ratings": 3.0}
_CURVE = 128  # validation pairs of the loss curve
# (parameters, learning rate): the rate of models with fewer parameters than the bound.
_LEARNING_RATES = ((1e6, 5e-4), (3e7, 1e-4), (1e9, 2e-5), (math.inf, 5e-6))

Item = Pair | Rating


def train(
    preferences: Preferences | Ratings, base: str, folder: Path, settings: RewardModelSettings, origin: dict[str, Any]
) -> dict[str, Any]:
    """Fill `folder` with a trained reward model and return its figures; reward.json includes `origin`."""
    check_tracker(settings.report_to)
    model, tokenizer = _start(preferences, base, settings)
    shown, kind = Shown(tokenizer, model), "ratings" if settings.reward else "pairs"
    counts: Counter[str] = Counter()
    units = preferences.units if isinstance(preferences, Ratings) else (0.0, 1.0)
    learnt, encoded = _encode(preferences.train, shown, units, counts)
    held_out, validation = _encode(preferences.validation, shown, units, counts)
    if not learnt:
        raise DataError(f"no {kind} to train on: the base model's chat template rejects every conversation")
    for reason, number in counts.items():
        console.warn(f"{number:,} {reason} (context of {shown.limit:,} tokens)")
    plan = _plan(model, base, len(encoded), kind, settings)
    console.note(
        f"training on {device()}: {plan.steps:,} steps of {settings.batch} {kind}, learning rate {plan.rate:g}"
    )
    started = time.monotonic()
    with fitting_threads(model), disk_errors_as_output_errors(folder):
        rows, collator = (encoded, validation[:_CURVE]), PairCollator(tokenizer)
        trainer = build_trainer(PairTrainer, model, folder, plan, rows=rows, collator=collator)
        trainer.train(resume_from_checkpoint=newest_complete(folder))
        refuse_broken(model)
        if isinstance(preferences, Ratings):
            model.config.rating_units = list(units)  # Reader returns logits in these units
        figures = _measured(Reader(model.eval(), tokenizer), held_out, validation)
    saved = save(model, tokenizer, folder)
    input_details = {"shown": shown.how, "context": shown.limit, "dtype": str(model.dtype).removeprefix("torch.")}
    description = {**origin, "data": {**origin["data"], **counts}, **figures, **input_details, "plan": asdict(plan)}
    description |= saved
    write_json(folder / REWARD_FILE, description)
    write_reward_model_card(folder, description)
    forget_checkpoints(folder)
    share = {name: f["value"] for name in ("accuracy", "spearman") if (f := figures.get("validation", {}).get(name))}
    # Not in reward.json: equal runs must write equal files.
    return {**counts, **share, "steps": plan.steps, "seconds": round(time.monotonic() - started, 1)}


def preview(preferences: Preferences | Ratings, base: str, count: int, settings: RewardModelSettings) -> str:
    """Return the completions of the first pairs or ratings, decoded from the tokens that the model reads."""
    model, tokenizer = _start(preferences, base, settings)
    shown = Shown(tokenizer, model)
    parts = []
    for item in preferences.train[:count]:
        for example in _examples(item):
            ids = shown(example.prompt, example.completion)["input_ids"]
            known = f"{settings.reward} {item.value:g}" if isinstance(item, Rating) else example.label
            parts.append(f"── {example.id}, {known}: {len(ids)} tokens\n{tokenizer.decode(ids)}\n")
    return "\n".join(parts)


def _examples(item: Item) -> Sequence[Example]:
    return (item.example,) if isinstance(item, Rating) else item


def _start(preferences: Preferences | Ratings, base: str, settings: RewardModelSettings) -> tuple[Any, Any]:
    """Return the base with a one-logit head, and its tokenizer with `model_max_length` set to the context."""
    set_seed(settings.seed)
    if base == TINY:
        rows = (example for item in preferences.train for example in _examples(item))
        conversations = (as_messages(example.prompt) + as_messages(example.completion, "assistant") for example in rows)
        model, tokenizer = make_tiny_classifier(conversations, settings.context or _TINY_CONTEXT, settings.seed)
    else:
        model, tokenizer = load_untrained(base)
    model.config.pad_token_id = tokenizer.pad_token_id  # decoders use it to find the last token, which the head reads
    model.config.use_cache = False
    limit = Shown(tokenizer, model).limit
    tokenizer.model_max_length = min(settings.context or limit, limit)
    return model, tokenizer


def _encode(
    items: Sequence[Item], shown: Shown, units: tuple[float, float], counts: Counter[str]
) -> tuple[list[Item], list[EncodedItem]]:
    """Return the items that the chat template accepts, and their encoded rows; count skipped and shortened rows."""
    kept: list[Item] = []
    encoded: list[EncodedItem] = []
    mean, deviation = units
    for item in items:
        try:
            rows = [dict(shown(example.prompt, example.completion)) for example in _examples(item)]
        except Refused:
            kind = "ratings" if isinstance(item, Rating) else "pairs"
            counts[f"{kind} left out: the base's chat template refuses the conversation"] += 1
            continue
        both = zip(_examples(item), rows, strict=True)
        full = [example for example, row in both if len(row["input_ids"]) == shown.limit]
        cut = sum(len(shown.whole(example.prompt, example.completion)["input_ids"]) > shown.limit for example in full)
        if cut:
            counts["rows shortened at the beginning"] += cut
        kept.append(item)
        label = (item.value - mean) / deviation if isinstance(item, Rating) else 1.0
        encoded.append(EncodedItem(tuple(rows), label))
    return kept, encoded


def _plan(model: Any, base: str, items: int, kind: str, settings: RewardModelSettings) -> TrainingPlan:
    """Return the plan with defaults for unset settings."""
    epochs = settings.epochs or (_TINY_EPOCHS if base == TINY else _DEFAULT_EPOCHS)[kind]
    return TrainingPlan(
        steps=math.ceil(items / settings.batch * epochs),
        batch=settings.batch,
        rate=settings.learning_rate or next(rate for limit, rate in _LEARNING_RATES if size_of(model) < limit),
        seed=settings.seed,
        accumulate=settings.accumulate,
        report_to=settings.report_to,
        bf16=resolve_precision(settings.precision, size_of(model), device=device()) == torch.bfloat16,
    )


def _measured(reader: Reader, items: Sequence[Item], rows: Sequence[EncodedItem]) -> dict[str, Any]:
    """Return the figures of held-out pairs or ratings, computed as in scoring, or {} if none are held out."""
    if not items:
        console.note("validation: nothing was held out")
        return {}
    logits = [logit for (logit,) in reader.logits([row for item in rows for row in item.rows])]
    if ratings := [item for item in items if isinstance(item, Rating)]:
        figures = rating_figures(ratings, logits, Bootstrap())
        _report_ratings(figures)
    else:
        differences = [chosen - rejected for chosen, rejected in zip(logits[::2], logits[1::2], strict=True)]
        figures = accuracy(
            [item for item in items if isinstance(item, Pair)], differences, Bootstrap(), calibrated=True
        )
        _report(figures)
    if few := few_prompts({"validation": figures["prompts"]}):
        console.warn(few)
    return {"validation": figures}


def _report_ratings(figures: dict[str, Any]) -> None:
    shown = {
        name: f"{figures[name]['value']:.2f} [{figures[name]['low']:.2f}, {figures[name]['high']:.2f}]"
        for name in ("spearman", "length", "above_rule")
    }
    console.note(
        f"validation: rank correlation {shown['spearman']} with {figures['n']:,} held-out ratings; by length alone"
        f" {shown['length']}, so {shown['above_rule']} above that rule; mean error {figures['error']['value']:.2f}"
        f" ({figures['error_constant']['value']:.2f} for a constant)"
    )


def _report(figures: dict[str, Any]) -> None:
    share = {name: f"{figures[name]['value']:.1%}" for name in ("accuracy", "longer", "shorter")}
    ends = {name: f"[{figures[name]['low']:.1%}, {figures[name]['high']:.1%}]" for name in ("accuracy", "above_rule")}
    loss = figures["calibration"]["log_loss"]["value"]
    console.note(
        f"validation: {share['accuracy']} {ends['accuracy']} of {figures['n']:,} pairs correct; always the longer"
        f" {share['longer']}, always the shorter {share['shorter']}"
    )
    console.note(
        f"above the better of these rules by {100 * figures['above_rule']['value']:.1f} points {ends['above_rule']};"
        f" log loss {loss:.3f} (chance: {math.log(2):.3f})"
    )
