"""Train a policy locally with transformers; the loss covers the completion only."""

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
from irlhf.models.adapters import with_lora
from irlhf.models.chat_template_writer import write_chat_template
from irlhf.models.description import describe
from irlhf.models.distributed import from_first
from irlhf.models.loading import add_tokens, context_of, device, end_tokens, fitting_threads, load_causal, size_of
from irlhf.models.precision import BF16, FP32, precision_name, resolve_precision
from irlhf.models.prompt_encoding import PromptEncoder, PromptTooLong
from irlhf.models.tiny import make_tiny
from irlhf.models.turn_probe import Refused, turn_format
from irlhf.policy.model_card import write_model_card
from irlhf.policy.policy_file import TINY, Policy, read_policy, write_policy
from irlhf.policy.scales import UNIT
from irlhf.policy.steering_report import JOINT, SIBLING, STEERING, Figures, ignored, ignores, spelled
from irlhf.policy.templates import INSTRUCTION, RequestedValue, find_template
from irlhf.policy.turn_format import TurnFormat
from irlhf.training.baselines import BLIND, PROMPTED
from irlhf.training.batching import Collator, Encoded, Family, alone, together
from irlhf.training.callbacks import (
    TrainingPlan,
    check_tracker,
    disk_errors_as_output_errors,
    forget_checkpoints,
    newest_complete,
    refuse_broken,
    save,
)
from irlhf.training.settings import BUCKETED, SHARED, FinetuneSettings
from irlhf.training.steering_information import SteeringMonitor, measured_rows, probes
from irlhf.training.target_contrast import ContrastDraw, ContrastFamilies
from irlhf.training.target_draw import Rewarded, check_pairs
from irlhf.training.trainer import sharing_agrees, trainer
from irlhf.training.training_set import VALIDATION_ROWS, Row, TrainingSet

_TINY_CONTEXT = 512  # tokens
_TINY_EPOCHS = 8.0
_DEFAULT_EPOCHS = 2.0
# (parameters, learning rate): the rate of models with fewer parameters than the bound.
_LEARNING_RATES = ((1e6, 3e-3), (1e8, 5e-4), (1e9, 5e-5), (math.inf, 1e-5))
# LoRA learns best at about ten times the rate of full fine-tuning (Schulman et al. 2025, "LoRA Without Regret");
# above the second number a small base model diverged.
_LORA_RATE, _LORA_FASTEST = 10, 1e-2
_SHARES_FROM = 1_000_000  # parameters
_DIGITS = ("decimal", "integer")
_LEFT_OUT = "left out: "
_READS_DIGITS = 1_000_000  # parameters; a base with a quarter of these did not learn to read digits
_MIN_SAVED = 0.1  # smallest share of tokens worth saving
_WIDEST = 2  # largest width of a family, in multiples of the longest row


def train(training: TrainingSet, base: str, folder: Path, settings: FinetuneSettings) -> dict[str, Any]:
    """Fill `folder` with a trained policy and return its figures."""
    check_tracker(settings.report_to)
    _check_keep_best(training, settings)
    model, tokenizer, policy = _start(training, base, settings)
    encoder = RowEncoder(
        PromptEncoder(tokenizer, policy.template, policy.names, turns=policy.turns),
        policy.context - _reserve(tokenizer, policy, settings),
    )
    kept = encoder.rows(training.with_targets(policy, training.learnt(policy, settings), settings))
    counts, rows = encoder.counts, [row for _, row in kept]
    held_out = replace(encoder, counts=Counter(), first={})
    validation = held_out.rows(training.with_targets(policy, training.validation[:VALIDATION_ROWS], settings))
    encoder.report(policy.context, len(rows))
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
    plan = replace(_plan(model, base, settings, rows=len(rows), families=len(families)), layout=layout)
    console.note(f"training on {device()}: {plan.steps:,} steps of {settings.batch} rows, learning rate {plan.rate:g}")
    started = time.monotonic()
    policy_trainer = trainer(
        model, tokenizer.pad_token_id, (families, alone([row for _, row in validation])), folder, plan
    )
    if not policy.blind:
        measured = held_out.rows(training.with_targets(policy, measured_rows(training.validation), settings))
        compared = probes(held_out.rewarded(measured, actual), draw.rows, encoder.prompt, draw.targets, settings.seed)
        if compared:
            shares = shares_prompts(model, tokenizer.pad_token_id, [probe.family for probe in compared])
            policy_trainer.monitor = SteeringMonitor(compared, Collator(tokenizer.pad_token_id, shares=shares))
    with fitting_threads(model), disk_errors_as_output_errors(folder):
        policy_trainer.train(resume_from_checkpoint=from_first(newest_complete(folder) if console.FIRST else None))
        steering = policy_trainer.steering()
    refuse_broken(model)
    if not console.FIRST:
        return {}
    completion = sum(len(row.completion) for row in rows)
    figures = {"rows": len(rows), "steps": plan.steps, "completion tokens": completion, **counts}
    model = model.merge_and_unload() if settings.lora and settings.merge else model
    details = {"plan": asdict(plan), **({STEERING: steering} if steering else {})}
    _write(model, tokenizer, folder, policy=policy, settings=settings, figures=figures, details=details)
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
    """Fill `folder` with the untrained base model and a policy.json, and return its figures."""
    model, tokenizer, policy = _start(training, base, settings)
    console.note("baseline prompted: nothing is trained; epochs, learning rate, batch and drop have no effect")
    beyond = [reward.name for reward in policy.rewards if reward.scale.kind not in UNIT]
    if settings.template == INSTRUCTION and beyond:
        console.warn(
            f"template {INSTRUCTION} describes rewards from 0 to 1, but the scale of {', '.join(beyond)} exceeds them"
        )
    figures = {"steps": 0, "completion tokens": 0}
    details = {"plan": {"steps": 0, "seed": settings.seed}}
    _write(model, tokenizer, folder, policy=policy, settings=settings, figures=figures, details=details)
    return figures


def preview(training: TrainingSet, base: str, count: int, settings: FinetuneSettings) -> str:
    """Return the text, the tokens and the loss mask of the first rows; trained tokens are in [brackets]."""
    _, tokenizer, policy = _start(training, base, settings)
    turns = policy.turns or turn_format(tokenizer)
    encoder = RowEncoder(PromptEncoder(tokenizer, policy.template, policy.names, turns=turns), policy.context)
    parts = [f"── chat template: {turns.describe()}\n"]
    for example, requested in training.with_targets(policy, training.train[:count], settings):
        for _, row in encoder.rows([(example, requested)]):
            shown = [tokenizer.decode([token]) for token in row.prompt]
            learnt = [f"[{tokenizer.decode([token])}]" for token in row.completion]
            text = tokenizer.decode(row.prompt + row.completion)
            sizes = f"{len(shown)} tokens of prompt, {len(learnt)} of completion (these train)"
            parts.append(f"── {example.id}: {sizes}\n{text}\n── tokens\n{'|'.join(shown + learnt)}\n")
    encoder.report(policy.context, len(parts) - 1)
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
        # In bfloat16 most updates are below the precision of a weight, so trained weights are float32. LoRA adapters
        # are float32, so their frozen base keeps the saved dtype on an accelerator.
        keeps_dtype = settings.baseline == PROMPTED or (settings.lora and device() != "cpu")
        model, tokenizer = load_causal(base, None if keeps_dtype else torch.float32)
        if policy.template.tokens:
            add_tokens(model, tokenizer, policy.template.vocabulary(policy.names))
        elif size_of(model) < _READS_DIGITS and policy.template.spelling.kind in _DIGITS:
            lines = policy.template.vocabulary(policy.names)
            if not set(lines[:1]) <= tokenizer.get_added_vocab().keys():  # lines that are no single tokens
                console.note("models this small rarely learn to read digits; use --template words (docs/asking.md)")
    most = context_of(model)
    turns = _turns(training, base, tokenizer)
    policy = replace(policy, context=min(policy.context or most, most), turns=turns)
    _check_rewards_fit(policy, tokenizer, settings)
    return model, tokenizer, policy


def _turns(training: TrainingSet, base: str, tokenizer: Any) -> TurnFormat:
    """Return where an answer begins and ends. Raises ConfigError if nothing ends it."""
    turns = turn_format(tokenizer)
    if not turns.ends:
        raise ConfigError(
            f"{base}: its tokenizer has no eos token and its chat template ends a turn with no special token, so a"
            " policy could not learn to stop; set eos_token in tokenizer_config.json or choose another base"
        )
    return replace(turns, thoughts=any(turns.has_thoughts(row.completion) for row in training.train))


def _check_rewards_fit(policy: Policy, tokenizer: Any, settings: FinetuneSettings) -> None:
    """Raise ConfigError if the chat template rejects every prompt with rewards."""
    chat = PromptEncoder(tokenizer, policy.template, policy.names, turns=policy.turns)
    try:
        chat.text("Hello", {})
    except Refused:
        return  # the rows say more
    try:
        chat.text("Hello", dict.fromkeys(policy.names, 0.5))
    except Refused as error:
        named = f"--template {settings.template}" if settings.template else "the reward template"
        raise ConfigError(f"{named}: {error}; use another one, such as reward-end") from error


@dataclass(frozen=True)
class RowEncoder:
    """Turns rows into token ids; `room` is the limit for prompt plus completion."""

    chat: PromptEncoder
    room: int
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)  # the first row of each count
    lengths: dict[str, int] = field(default_factory=dict)  # completion tokens by example id

    def rows(self, rows: Iterable[Row]) -> list[tuple[Example, Encoded]]:
        """Return the encoded rows that fit.

        Long conversations are shortened at the beginning; rows with too long completions are skipped, and so are rows
        that the chat template rejects or whose answer it drops. A completion that was cut off by the limit on new
        tokens is trained without an end of turn.
        """
        kept = []
        for example, requested in rows:
            cut_off, tools = example.finish == LENGTH, []
            try:
                tools = example.tools
                answer = self.chat.completion(example.completion, example.prompt, tools, ended=not cut_off)
                prompt = self.chat.prompt(example.prompt, requested, self.room - len(answer.ids), tools)
                dropped = self.chat.dropped(example.prompt, tools)
            except PromptTooLong:
                what = "the completion and the tools do" if tools else "the completion does"
                self._count(f"{_LEFT_OUT}{what} not fit; raise --context", example)
                continue
            except DataError as error:
                self._count(f"{_LEFT_OUT}{error}", example)
                continue
            if prompt.cut:
                self._count("shortened at the beginning of the conversation", example)
            if cut_off:
                self._count("cut off by the limit on new tokens: trained without an end of turn", example)
            for what in (*answer.dropped, *dropped):
                self._count(f"trained without {what}, which the chat template drops", example)
            self.lengths[example.id] = len(answer.ids)
            kept.append((example, Encoded(prompt.ids, answer.ids, example.cluster)))
        return kept

    def report(self, context: int, kept: int) -> None:
        """Warn about skipped and changed rows. Raises DataError if none is kept."""
        for what, number in self.counts.items():
            console.warn(f"{number:,} rows {what} (context of {context} tokens; first row: {self.first[what]})")
        if not kept:
            reasons = "; ".join(what.removeprefix(_LEFT_OUT) for what in self.counts)
            raise DataError(f"none of the {self.counts.total():,} rows can be trained on: {reasons}")

    def prompt(self, example: Example, requested: Mapping[str, RequestedValue]) -> list[int]:
        """Return the token ids of a prompt with these targets."""
        room = self.room - self.lengths[example.id]
        return self.chat.prompt(example.prompt, requested, room, example.tools).ids

    def _count(self, what: str, example: Example) -> None:
        self.counts[what] += 1
        self.first.setdefault(what, example.id)

    def rewarded(
        self, kept: Iterable[tuple[Example, Encoded]], actual: Mapping[str, Mapping[str, float]]
    ) -> list[Rewarded]:
        """Return the rows with their rewards; `actual` holds the scaled rewards by example id."""
        return [Rewarded(example, row.completion, actual[example.id]) for example, row in kept]


def _reserve(tokenizer: Any, policy: Policy, settings: FinetuneSettings) -> int:
    """Return the tokens that a baseline reserves, so that it trains on the same rows as a policy with rewards."""
    if not settings.baseline:
        return 0
    block = find_template(settings.template).reward_block(dict.fromkeys(policy.names, 0.5))
    return len(tokenizer(f"\n\n{block}", add_special_tokens=False)["input_ids"])


def _compared_families(model: Any, padding: int, draw: ContrastDraw) -> tuple[ContrastFamilies, str]:
    """Return the families to compare, and their layout. Raises DataError if no completions can be compared."""
    families = ContrastFamilies(draw)
    check_pairs(len(families), sum(bool(family.comparisons) for family in families), draw.objective.name)
    return families, SHARED if shares_prompts(model, padding, families) else BUCKETED


def _families(model: Any, padding: int, rows: list[Encoded], settings: FinetuneSettings) -> tuple[list[Family], str]:
    """Return the rows as families, and their layout; rows of a prompt share its beginning if that saves time.

    Below a million parameters, the attention mask costs more than sharing saves. A family has at most as many rows as a
    part of a step, so that steps do not exceed the batch size.
    """
    if size_of(model) < _SHARES_FROM:
        return alone(rows), BUCKETED
    most = settings.batch // (settings.accumulate * console.PROCESSES)
    families = together(rows, _WIDEST * max(map(len, rows)), most)
    saved = 1 - sum(family.width for family in families) / sum(map(len, rows))
    if saved < _MIN_SAVED or not sharing_agrees(model, padding, families):
        return alone(rows), BUCKETED
    console.note(f"prompts are computed once for all their completions: {saved:.0%} fewer tokens")
    return families, SHARED


def faster_precision(base: str) -> str:
    """Return the precision that trains this base faster on this machine, see irlhf/models/precision.py."""
    if base == TINY:
        return FP32
    model = describe(base)
    chosen = precision_name(resolve_precision("auto", model.parameters, model.width, device()))
    if chosen == BF16:
        console.note(
            "training uses bfloat16 matrix products, which are faster on this machine; --precision fp32 turns them off"
        )
    return chosen


def shares_prompts(model: Any, padding: int, families: Iterable[Family]) -> bool:
    """Return whether compared members share their beginning in a batch, see `_families`."""
    return size_of(model) >= _SHARES_FROM and sharing_agrees(model, padding, list(families))


def report_steering(figures: Figures, names: Sequence[str]) -> None:
    """Report the steering information of each reward line, and warn about lines that the policy ignores."""
    for kind, measured in figures.items():
        about = {JOINT: "all rewards", SIBLING: "another completion of the prompt"}.get(kind, kind)
        console.note(
            f"steering information, {about}: {spelled(measured['information'])} nats per completion, at most"
            f" {math.log(measured['options']):.2f}; margin {spelled(measured['margin'])};"
            f" {measured['right']['value']:.0%} of {measured['n']} right"
        )
    if ignored_names := ignored(figures, names):
        console.warn(ignores(ignored_names))


def _plan(model: Any, base: str, settings: FinetuneSettings, *, rows: int, families: int) -> TrainingPlan:
    """Return the plan with defaults for unset settings, for this number of rows in so many families."""
    size = size_of(model)
    epochs = settings.epochs or (_TINY_EPOCHS if base == TINY else _DEFAULT_EPOCHS)
    default = next(rate for limit, rate in _LEARNING_RATES if size < limit)
    default = min(_LORA_RATE * default, _LORA_FASTEST) if settings.lora else default
    return TrainingPlan(
        steps=math.ceil(rows / settings.batch * epochs),
        batch=settings.batch * families / rows,
        rate=settings.learning_rate or default,
        seed=settings.seed,
        accumulate=settings.accumulate,
        report_to=settings.report_to,
        objective=settings.objective_settings,
        bf16=settings.precision == BF16,
        keeps_best=settings.keep_best,
    )


def _write(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    policy: Policy,
    settings: FinetuneSettings,
    figures: Mapping[str, Any],
    details: Mapping[str, Any],
) -> None:
    """Write the weights, policy.json with their digest, the chat template and the model card."""
    # Servers that read generation_config.json must sample; greedy decoding gives one completion per target.
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        eos_token_id=end_tokens(model, tokenizer, policy.turns),
        pad_token_id=tokenizer.pad_token_id,
    )
    saved = save(model, tokenizer, folder)
    made_with = {"settings": asdict(settings), "dtype": str(model.dtype).removeprefix("torch.")}
    training = {**figures, **made_with, **details, **saved}
    write_policy(folder, replace(policy, training=training))
    kept = read_policy(folder)
    write_model_card(folder, kept, write_chat_template(folder, kept))
