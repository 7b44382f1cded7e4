"""Train locally with transformers: loss on the completion alone, checkpoints that survive a kill."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, set_seed

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import LENGTH, Example, as_messages
from irlhf.models.chat_template_writer import write_chat_template
from irlhf.models.description import describe
from irlhf.models.distributed import from_first
from irlhf.models.loading import add_tokens, context_of, device, end_tokens, fitting_threads, load_causal, size_of
from irlhf.models.precision import BF16, FP32, precision_name, resolve_precision
from irlhf.models.prompt_encoding import PromptEncoder, PromptTooLong, Refused
from irlhf.models.tiny import make_tiny
from irlhf.policy.model_card import write_model_card
from irlhf.policy.policy_file import TINY, Policy, read_policy, write_policy
from irlhf.policy.scales import UNIT
from irlhf.policy.steering_report import JOINT, SIBLING, STEERING, Figures, ignored, ignores, spelled
from irlhf.policy.templates import INSTRUCTION, RequestedValue, find_template
from irlhf.training.baselines import BLIND, PROMPTED
from irlhf.training.batching import Collator, Encoded, Family, alone, together
from irlhf.training.callbacks import TrainingPlan, check_tracker, forget_checkpoints, newest_complete
from irlhf.training.checkpoints import digest, disk_errors_as_output_errors, refuse_broken, save, versions
from irlhf.training.lora import with_lora
from irlhf.training.pairing import Rewarded, check_pairs
from irlhf.training.settings import BUCKETED, SHARED, FinetuneSettings
from irlhf.training.steering_information import Probes, SteeringMonitor, measured_rows, probes
from irlhf.training.target_contrast import ContrastDraw, ContrastFamilies
from irlhf.training.trainer import sharing_agrees, trainer
from irlhf.training.training_set import VALIDATION_ROWS, Row, TrainingSet

_TINY_CONTEXT = 512  # tokens
_TINY_EPOCHS = 8.0
_DEFAULT_EPOCHS = 2.0
# Parameters below which a learning rate fits: small models need large steps.
_LEARNING_RATES = ((1e6, 3e-3), (1e8, 5e-4), (1e9, 5e-5), (math.inf, 1e-5))
# Low-rank updates learn best at about ten times the rate of all weights (Schulman et al. 2025, "LoRA Without
# Regret"); beyond the second number a small base was seen to diverge.
_LORA_RATE, _LORA_FASTEST = 10, 1e-2
_SHARES_FROM = 1_000_000  # parameters
_DIGITS = ("decimal", "integer")
_READS_DIGITS = 1_000_000  # parameters; a base of a quarter of them read none
_SPARES = 0.1  # of the tokens, at least
_CUT_OFF = "cut off by the limit on new tokens: trained without an end of turn"
_WIDEST = 2  # times the longest row that a family may be


def train(training: TrainingSet, base: str, folder: Path, settings: FinetuneSettings) -> dict[str, Any]:
    """Fill `folder` with a trained policy and return its figures."""
    check_tracker(settings.report_to)
    _check_keep_best(training, settings)
    model, tokenizer, policy = _start(training, base, settings)
    room = policy.context - _reserve(tokenizer, policy, settings)
    encoder = RowEncoder(PromptEncoder(tokenizer, policy.template, policy.names), end_tokens(model, tokenizer), room)
    kept = encoder.rows(training.with_targets(policy, training.learnt(policy, settings), settings))
    counts, rows = encoder.counts, [row for _, row in kept]
    held_out = replace(encoder, counts=Counter())
    validation = held_out.rows(training.with_targets(policy, training.validation[:VALIDATION_ROWS], settings))
    if not rows:
        raise DataError(f"no completion fits into the context of {policy.context} tokens")
    encoder.warn(policy.context)
    if settings.lora:
        model = with_lora(model, settings.lora, base)
    targets, objective = training.target_draw(policy, settings), settings.objective_settings
    actual = training.actual(policy)
    draw = ContrastDraw(encoder.rewarded(kept, actual), encoder.prompt, targets, objective, settings.seed)
    families, layout = (
        _compared_families(model, tokenizer.pad_token_id, draw)
        if objective.compares
        else _families(model, tokenizer.pad_token_id, rows, settings)
    )
    plan = replace(_plan(model, base, (len(rows), len(families)), settings), layout=layout)
    console.note(f"training on {device()}: {plan.steps:,} steps of {settings.batch} rows, learning rate {plan.rate:g}")
    started = time.monotonic()
    made = trainer(model, tokenizer.pad_token_id, (families, alone([row for _, row in validation])), folder, plan)
    if not policy.blind:
        measured = held_out.rows(training.with_targets(policy, measured_rows(training.validation), settings))
        compared = probes(held_out.rewarded(measured, actual), draw.rows, encoder.prompt, draw.targets, settings.seed)
        made.monitor = _monitor(model, tokenizer.pad_token_id, compared)
    with fitting_threads(model), disk_errors_as_output_errors(folder):
        made.train(resume_from_checkpoint=from_first(newest_complete(folder) if console.FIRST else None))
        steering = made.steering()
    refuse_broken(model)
    if not console.FIRST:
        return {}
    completion = sum(len(row.completion) for row in rows)
    figures = {"rows": len(rows), "steps": plan.steps, "completion tokens": completion, **counts}
    model = model.merge_and_unload() if settings.lora and settings.merge else model
    _save(model, tokenizer, folder)
    made_of = {**_made(model, settings), "plan": asdict(plan), **({STEERING: steering} if steering else {})}
    _remember(folder, policy, {**figures, **made_of})
    forget_checkpoints(folder)
    report_steering(steering, policy.names)
    # Not in policy.json: equal runs make equal policies.
    return {**figures, "seconds": round(time.monotonic() - started, 1)}


def _check_keep_best(training: TrainingSet, settings: FinetuneSettings) -> None:
    """Raise ConfigError if there is nothing to choose the best checkpoint by."""
    if settings.keep_best and settings.baseline in BLIND:
        raise ConfigError(f"--keep-best needs reward lines, which the baseline {settings.baseline} lacks; remove it")
    if settings.keep_best and not training.validation:
        raise ConfigError("--keep-best needs rows of the validation split; make some with `irlhf prepare --validation`")


def leave(training: TrainingSet, base: str, folder: Path, settings: FinetuneSettings) -> dict[str, Any]:
    """Fill `folder` with the base as it is, and with the card by which it is asked; return its figures."""
    model, tokenizer, policy = _start(training, base, settings)
    console.note("prompted: nothing is trained, so epochs, learning rate, batch and drop mean nothing")
    beyond = [reward.name for reward in policy.rewards if reward.scale.kind not in UNIT]
    if settings.template == INSTRUCTION and beyond:
        console.warn(f"{INSTRUCTION} speaks of 0 to 1, not so the scale of {', '.join(beyond)}; write a template")
    figures = {"steps": 0, "completion tokens": 0}
    _save(model, tokenizer, folder)
    plan = {"steps": 0, "seed": settings.seed}
    _remember(folder, policy, {**figures, **_made(model, settings), "plan": plan})
    return figures


def preview(training: TrainingSet, base: str, count: int, settings: FinetuneSettings) -> str:
    """Return the text, the tokens and the loss mask of the first rows: what trains stands in [brackets]."""
    model, tokenizer, policy = _start(training, base, settings)
    encoder = RowEncoder(
        PromptEncoder(tokenizer, policy.template, policy.names), end_tokens(model, tokenizer), policy.context
    )
    parts = []
    for example, requested in training.with_targets(policy, training.train[:count], settings):
        for _, row in encoder.rows([(example, requested)]):
            shown = [tokenizer.decode([token]) for token in row.prompt]
            learnt = [f"[{tokenizer.decode([token])}]" for token in row.completion]
            text = tokenizer.decode(row.prompt + row.completion)
            sizes = f"{len(shown)} tokens of prompt, {len(learnt)} of completion (these train)"
            parts.append(f"── {example.id}: {sizes}\n{text}\n── tokens\n{'|'.join(shown + learnt)}\n")
    return "\n".join(parts)


def _start(training: TrainingSet, base: str, settings: FinetuneSettings) -> tuple[Any, Any, Policy]:
    policy = training.policy(base, settings)
    set_seed(settings.seed)
    if base == TINY:
        lines = [] if policy.template.tokens is False else policy.template.vocabulary(policy.names)
        conversations = (
            as_messages(example.prompt) + as_messages(example.completion, "assistant") for example in training.train
        )
        model, tokenizer = make_tiny(conversations, lines, settings.context or _TINY_CONTEXT, settings.seed)
    else:
        # In bfloat16 most steps are smaller than a weight's last digit. Beside low-rank updates, which are in
        # single precision themselves, a frozen base on an accelerator may stay as it was saved.
        spare = settings.baseline == PROMPTED or (settings.lora and device() != "cpu")
        model, tokenizer = load_causal(base, None if spare else torch.float32)
        if policy.template.tokens:
            add_tokens(model, tokenizer, policy.template.vocabulary(policy.names))
        elif size_of(model) < _READS_DIGITS and _spells_digits(policy, tokenizer):
            console.note("a base this small hardly learns to read digits; --template words teaches it (docs/asking.md)")
    return model, tokenizer, replace(policy, context=min(policy.context or context_of(model), context_of(model)))


def _spells_digits(policy: Policy, tokenizer: Any) -> bool:
    """Return whether a reward stands in the prompt in digits that are tokens of their own."""
    lines = policy.template.vocabulary(policy.names)
    return policy.template.spelling.kind in _DIGITS and not set(lines[:1]) <= tokenizer.get_added_vocab().keys()


@dataclass(frozen=True)
class RowEncoder:
    """Turns rows into token ids. `ends` end a turn; prompt and completion fit into `room` tokens together."""

    chat: PromptEncoder
    ends: Sequence[int]
    room: int
    counts: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, int] = field(default_factory=dict)  # tokens of each completion, by the id of its row

    def rows(self, rows: Iterable[Row]) -> list[tuple[Example, Encoded]]:
        """Return the rows that fit. A long conversation loses its beginning; a completion that is too long is left out.

        A completion that was cut off by the limit on new tokens is trained without an end of turn.
        """
        kept = []
        for example, requested in rows:
            try:
                completion = self.completion(example)
                prompt = self.chat.prompt(example.prompt, requested, self.room - len(completion))
            except PromptTooLong:
                self.counts["left out: the completion does not fit"] += 1
                continue
            except Refused:
                self.counts["left out: the base's chat template refuses the conversation"] += 1
                continue
            self.counts["shortened at the beginning of the conversation"] += prompt.cut
            self.counts["cut off by the limit on new tokens: trained without an end of turn"] += (
                example.finish == LENGTH
            )
            self.lengths[example.id] = len(completion)
            kept.append((example, Encoded(prompt.ids, completion, example.cluster)))
        return kept

    def warn(self, context: int) -> None:
        """Say what became of rows that are not trained as they are."""
        for what, number in self.counts.items():
            if number:
                console.warn(f"{number:,} rows {what} (context of {context} tokens)")

    def completion(self, example: Example) -> list[int]:
        """Return the tokens of a row's completion."""
        ids = self.chat.completion(example.completion, example.prompt)
        if example.finish != LENGTH:
            return ids
        return ids[: next((i for i in range(len(ids) - 1, -1, -1) if ids[i] in self.ends), len(ids))]

    def prompt(self, example: Example, requested: Mapping[str, RequestedValue]) -> list[int]:
        """Return the tokens of a row's prompt that requests this."""
        return self.chat.prompt(example.prompt, requested, self.room - self.lengths[example.id]).ids

    def rewarded(
        self, kept: Iterable[tuple[Example, Encoded]], actual: Mapping[str, Mapping[str, float]]
    ) -> list[Rewarded]:
        """Return rows with their rewards in the units of the scales, of which `actual` has each row's by its id."""
        return [Rewarded(example, row.completion, actual[example.id]) for example, row in kept]


def _reserve(tokenizer: Any, policy: Policy, settings: FinetuneSettings) -> int:
    """Return the tokens that a baseline leaves free, so that it trains on the rows that fit beside rewards."""
    if not settings.baseline:
        return 0
    block = find_template(settings.template).reward_block(dict.fromkeys(policy.names, 0.5))
    return len(tokenizer(f"\n\n{block}", add_special_tokens=False)["input_ids"])


def _compared_families(model: Any, padding: int, draw: ContrastDraw) -> tuple[ContrastFamilies, str]:
    """Return the families that are compared, and their layout. Raises DataError where nothing can be compared."""
    families = ContrastFamilies(draw)
    check_pairs(len(families), sum(bool(family.comparisons) for family in families), draw.objective.name)
    return families, SHARED if shares_prompts(model, padding, families) else BUCKETED


def _families(model: Any, padding: int, rows: list[Encoded], settings: FinetuneSettings) -> tuple[list[Family], str]:
    """Return the rows as families, and the layout: rows of a prompt share its beginning where that pays.

    Below a million parameters the mask costs more than the sharing spares. A family is small enough that each
    part of a step holds one, or a step would be of more rows than it should.
    """
    if size_of(model) < _SHARES_FROM:
        return alone(rows), BUCKETED
    most = settings.batch // (settings.accumulate * console.PROCESSES)
    families = together(rows, _WIDEST * max(map(len, rows)), most)
    spared = 1 - sum(family.width for family in families) / sum(map(len, rows))
    if spared < _SPARES or not sharing_agrees(model, padding, families):
        return alone(rows), BUCKETED
    console.note(f"completions of one prompt share it: {spared:.0%} fewer tokens to compute")
    return families, SHARED


def faster_precision(base: str) -> str:
    """Return the arithmetic that trains this base faster on this machine, see irlhf/models/precision.py."""
    if base == TINY:
        return FP32
    model = describe(base)
    chosen = precision_name(resolve_precision("auto", model.parameters, model.width, device()))
    if chosen == BF16:
        console.note("matrix products are computed in bfloat16, which is faster here; --precision fp32 in float32")
    return chosen


def shares_prompts(model: Any, padding: int, families: Iterable[Family]) -> bool:
    """Return whether members that are compared share what they begin with, see `_families`."""
    return size_of(model) >= _SHARES_FROM and sharing_agrees(model, padding, list(families))


def _monitor(model: Any, padding: int, measured: Probes) -> SteeringMonitor | None:
    """Return what measures steering information, or None where no held-out row can be measured."""
    if not measured.families:
        return None
    shares = shares_prompts(model, padding, measured.families)
    return SteeringMonitor(measured, Collator(padding, shares=shares))


def report_steering(figures: Figures, names: Sequence[str]) -> None:
    """Say how much each reward line tells about held-out completions, and warn of those that tell nothing."""
    for kind, measured in figures.items():
        about = {JOINT: "all rewards", SIBLING: "another completion of the prompt"}.get(kind, kind)
        console.note(
            f"steering information, {about}: {spelled(measured['information'])} nats a completion, at most"
            f" {math.log(measured['options']):.2f}; margin {spelled(measured['margin'])};"
            f" {measured['right']['value']:.0%} of {measured['n']} right"
        )
    if none := ignored(figures, names):
        console.warn(ignores(none))


def _plan(model: Any, base: str, sizes: tuple[int, int], settings: FinetuneSettings) -> TrainingPlan:
    """Choose what the user left open, from the numbers of rows and of families."""
    rows, families = sizes
    size = size_of(model)
    epochs = settings.epochs or (_TINY_EPOCHS if base == TINY else _DEFAULT_EPOCHS)
    usual = next(rate for limit, rate in _LEARNING_RATES if size < limit)
    usual = min(_LORA_RATE * usual, _LORA_FASTEST) if settings.lora else usual
    return TrainingPlan(
        steps=math.ceil(rows / settings.batch * epochs),
        batch=settings.batch * families / rows,
        rate=settings.learning_rate or usual,
        seed=settings.seed,
        accumulate=settings.accumulate,
        report_to=settings.report_to,
        objective=settings.objective_settings,
        bf16=settings.precision == BF16,
        keeps_best=settings.keep_best,
    )


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    # A server that honours generation_config.json must sample, or every target gets one answer.
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        eos_token_id=end_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    save(model, tokenizer, folder)


def _made(model: Any, settings: FinetuneSettings) -> dict[str, Any]:
    return {"settings": asdict(settings), "dtype": str(model.dtype).removeprefix("torch.")}


def _remember(folder: Path, policy: Policy, figures: dict[str, Any]) -> None:
    """Write policy.json, which vouches for the weights, what serves them, and the card that a hub shows."""
    training = {**figures, "weights": digest(folder), "versions": versions()}
    write_policy(folder, replace(policy, training=training))
    kept = read_policy(folder)
    write_model_card(folder, kept, write_chat_template(folder, kept))
