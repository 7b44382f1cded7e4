"""Train a reward model locally: a one-logit classifier with the same inputs as in scoring."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from irlhf.core import console
from irlhf.core.bootstrap import Bootstrap
from irlhf.core.errors import DataError
from irlhf.core.example import as_messages
from irlhf.core.pairs import Pair, accuracy
from irlhf.io.files import write_json
from irlhf.models.classifier import Reader, Shown
from irlhf.models.loading import device, fitting_threads, load_untrained, size_of
from irlhf.models.precision import resolve_precision
from irlhf.models.prompt_encoding import Refused
from irlhf.models.tiny import make_tiny_classifier
from irlhf.policy.model_card import write_reward_model_card
from irlhf.policy.policy_file import TINY
from irlhf.policy.remote_model import REWARD_FILE
from irlhf.training.callbacks import TrainingPlan, check_tracker, forget_checkpoints, newest_complete
from irlhf.training.checkpoints import digest, disk_errors_as_output_errors, refuse_broken, save, versions
from irlhf.training.reward_model.pair_split import Preferences
from irlhf.training.reward_model.pairwise_trainer import EncodedPair, pair_trainer
from irlhf.training.reward_model.settings import RewardModelSettings

_TINY_CONTEXT = 512  # tokens
_TINY_EPOCHS = 2.0  # more epochs overfit
_DEFAULT_EPOCHS = 1.0
_CURVE = 128  # validation pairs of the loss curve
# (parameters, learning rate): the rate of models with fewer parameters than the bound.
_LEARNING_RATES = ((1e6, 5e-4), (3e7, 1e-4), (1e9, 2e-5), (math.inf, 5e-6))

Read = tuple[list[Pair], list[EncodedPair]]


def train(
    preferences: Preferences, base: str, folder: Path, settings: RewardModelSettings, origin: dict[str, Any]
) -> dict[str, Any]:
    """Fill `folder` with a trained reward model and return its figures; reward.json includes `origin`."""
    check_tracker(settings.report_to)
    model, tokenizer = _start(preferences, base, settings)
    shown = Shown(tokenizer, model)
    counts: Counter[str] = Counter()
    _, encoded = _encode(preferences.train, shown, counts)
    held_out, validation = _encode(preferences.validation, shown, counts)
    if not encoded:
        raise DataError("no pairs to train on: the base model's chat template rejects every conversation")
    for reason, number in counts.items():
        console.warn(f"{number:,} {reason} (context of {shown.limit:,} tokens)")
    plan = _plan(model, base, len(encoded), settings)
    console.note(f"training on {device()}: {plan.steps:,} steps of {settings.batch} pairs, learning rate {plan.rate:g}")
    started = time.monotonic()
    with fitting_threads(model), disk_errors_as_output_errors(folder):
        pair_trainer(model, tokenizer, (encoded, validation[:_CURVE]), folder, plan).train(
            resume_from_checkpoint=newest_complete(folder)
        )
        refuse_broken(model)
        figures = _measured(Reader(model.eval(), tokenizer), held_out, validation)
    save(model, tokenizer, folder)
    input_details = {"shown": shown.how, "context": shown.limit, "dtype": str(model.dtype).removeprefix("torch.")}
    description = {**origin, "data": {**origin["data"], **counts}, **figures, **input_details, "plan": asdict(plan)}
    _write_descriptions(folder, {**description, "weights": digest(folder), "versions": versions()})
    forget_checkpoints(folder)
    share = {"accuracy": figures["validation"]["accuracy"]["value"]} if figures else {}
    # Not in reward.json: equal runs must write equal files.
    return {**counts, **share, "steps": plan.steps, "seconds": round(time.monotonic() - started, 1)}


def _write_descriptions(folder: Path, description: dict[str, Any]) -> None:
    """Write reward.json and the model card."""
    write_json(folder / REWARD_FILE, description)
    write_reward_model_card(folder, description)


def preview(preferences: Preferences, base: str, count: int, settings: RewardModelSettings) -> str:
    """Return both completions of the first pairs, decoded from the tokens that the model reads."""
    model, tokenizer = _start(preferences, base, settings)
    shown = Shown(tokenizer, model)
    parts = []
    for example in chain.from_iterable(preferences.train[:count]):
        ids = shown(example.prompt, example.completion)["input_ids"]
        parts.append(f"── {example.id}, {example.label}: {len(ids)} tokens\n{tokenizer.decode(ids)}\n")
    return "\n".join(parts)


def _start(preferences: Preferences, base: str, settings: RewardModelSettings) -> tuple[Any, Any]:
    """Return the base with a one-logit head, and its tokenizer with `model_max_length` set to the context."""
    set_seed(settings.seed)
    if base == TINY:
        rows = (example for pair in preferences.train for example in pair)
        conversations = (as_messages(example.prompt) + as_messages(example.completion, "assistant") for example in rows)
        model, tokenizer = make_tiny_classifier(conversations, settings.context or _TINY_CONTEXT, settings.seed)
    else:
        model, tokenizer = load_untrained(base)
    model.config.pad_token_id = tokenizer.pad_token_id  # decoders use it to find the last token, which the head reads
    model.config.use_cache = False
    limit = Shown(tokenizer, model).limit
    tokenizer.model_max_length = min(settings.context or limit, limit)
    return model, tokenizer


def _encode(pairs: Sequence[Pair], shown: Shown, counts: Counter[str]) -> Read:
    """Return the pairs that the chat template accepts, and their encoded rows; count skipped and shortened rows."""
    kept, encoded = [], []
    for pair in pairs:
        try:
            rows = [shown(example.prompt, example.completion) for example in pair]
        except Refused:
            counts["pairs left out: the base's chat template refuses the conversation"] += 1
            continue
        full = [example for example, row in zip(pair, rows, strict=True) if len(row["input_ids"]) == shown.limit]
        cut = sum(len(shown.whole(example.prompt, example.completion)["input_ids"]) > shown.limit for example in full)
        if cut:
            counts["rows shortened at the beginning"] += cut
        kept.append(pair)
        encoded.append(EncodedPair(*(dict(row) for row in rows)))
    return kept, encoded


def _plan(model: Any, base: str, pairs: int, settings: RewardModelSettings) -> TrainingPlan:
    """Return the plan with defaults for unset settings."""
    epochs = settings.epochs or (_TINY_EPOCHS if base == TINY else _DEFAULT_EPOCHS)
    return TrainingPlan(
        steps=math.ceil(pairs / settings.batch * epochs),
        batch=settings.batch,
        rate=settings.learning_rate or next(rate for limit, rate in _LEARNING_RATES if size_of(model) < limit),
        seed=settings.seed,
        accumulate=settings.accumulate,
        report_to=settings.report_to,
        bf16=resolve_precision(settings.precision, size_of(model), device=device()) == torch.bfloat16,
    )


def _measured(reader: Reader, pairs: Sequence[Pair], rows: Sequence[EncodedPair]) -> dict[str, Any]:
    """Return the accuracy on held-out pairs, computed as in scoring, or {} without held-out pairs."""
    if not pairs:
        console.note("validation: no pairs were held out")
        return {}
    logits = [logit for (logit,) in reader.logits([row for pair in rows for row in pair])]
    differences = [chosen - rejected for chosen, rejected in zip(logits[::2], logits[1::2], strict=True)]
    figures = accuracy(pairs, differences, Bootstrap(), calibrated=True)
    _report(figures)
    return {"validation": figures}


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
