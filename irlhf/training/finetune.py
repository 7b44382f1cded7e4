"""Fine-tune a policy: render rewards into prompts and train on the completions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.registry import did_you_mean
from irlhf.io.files import STREAM, expanded, write_json
from irlhf.io.resumable import RunManifest, outcome, recorded_setting, resumable_folder, resumable_output
from irlhf.models.gguf import model_folder
from irlhf.policy.policy_file import TINY
from irlhf.policy.templates import DEFAULT, INSTRUCTION, find_template
from irlhf.training.baselines import BLIND, PROMPTED
from irlhf.training.hosted.settings import (
    NOWHERE,
    HostedSettings,
    check_there,
    is_hosted,
    refuse_contrast,
    refuse_hosted,
)
from irlhf.training.settings import CHECKPOINTS, LIKELIHOOD, RA_DPO, FinetuneSettings
from irlhf.training.training_set import finetune_manifest, read_training

BASELINES = (*BLIND, PROMPTED)


def finetune(
    scored: str | Path,
    output: str | Path,
    model: str,
    settings: FinetuneSettings = FinetuneSettings(),
    hosted: HostedSettings = NOWHERE,
) -> dict[str, Any]:
    """Fine-tune a policy and return a summary.

    The output folder is a Hugging Face model with a policy.json. Only rows of the training split, or without a split,
    are trained on. An interrupted run resumes from its last complete checkpoint. The baseline `prompted` trains
    nothing: its folder holds the weights of the base model, and the rows are used to fit the scales. A base named
    `openai:NAME` is fine-tuned by a provider with the settings in `hosted`. Raises ConfigError, DataError and
    BackendError.
    """
    settings, model = _checked(settings), model_folder(model)
    source, out = Path(scored), Path(output)
    if out == STREAM:
        raise ConfigError("a policy is a folder and cannot go to stdout; choose an output with -o")
    if is_hosted(model):
        check_there(settings, FinetuneSettings())
        from irlhf.training.hosted.run import finetune as train_at_host
        from irlhf.training.hosted.task import policy

        return train_at_host(policy(source, model, settings), out, model, hosted)
    refuse_hosted(hosted)
    _check_base(model, settings)
    settings = _with_precision(settings, model, out)
    manifest = finetune_manifest("finetune", source, model, settings)
    with _shared_folder(out, manifest) as folder:
        if folder is None:
            return outcome(out, already=True)
        training = read_training(source, settings)
        from irlhf.training.policy_run import leave, train

        work = leave if settings.baseline == PROMPTED else train
        trained = work(training, model, folder, settings)
    return {**outcome(out), "rewards": list(training.specs), **training.counts, **trained}


def _with_precision(settings: FinetuneSettings, model: str, out: Path) -> FinetuneSettings:
    """Return the settings with the precision resolved: as requested, as recorded, or the faster one on this machine.

    The manifest records the precision, so a resumed run keeps it.
    """
    from irlhf.models.precision import AUTO, DTYPES, check_precision

    check_precision(settings.precision)
    chosen = recorded_setting(out, "precision") if settings.precision == AUTO else settings.precision
    if chosen not in DTYPES:
        from irlhf.training.policy_run import faster_precision

        chosen = faster_precision(model)
    if console.PROCESSES > 1:
        from irlhf.models.distributed import from_first

        chosen = from_first(chosen)
    return replace(settings, precision=chosen)


@contextmanager
def _shared_folder(out: Path, manifest: RunManifest) -> Iterator[Path | None]:
    """Yield the run's working folder, or None if the run is complete. The first process opens it for all processes."""
    if console.PROCESSES == 1:
        with resumable_folder(out, manifest, CHECKPOINTS) as folder:
            yield folder
        return
    from irlhf.models.distributed import from_first

    if console.FIRST:
        with resumable_folder(out, manifest, CHECKPOINTS) as folder:
            yield from_first(folder)
    else:
        yield from_first(None)


def render(scored: str | Path, output: str | Path, settings: FinetuneSettings = FinetuneSettings()) -> dict[str, Any]:
    """Write a training file for providers and other trainers, one {"messages": […]} per line; return the counts.

    With the objective ra-dpo it is a preference file, see irlhf/training/preference_file.py.
    `<output>.meta.json` holds the policy.json that sampling needs.
    """
    settings = _with_training(_checked(settings))
    refuse_contrast(settings)
    source, out = Path(scored), Path(output)
    from irlhf.training.preference_file import training_preferences

    with resumable_output(
        out, finetune_manifest("finetune --render-only", source, "", settings), resumable=False
    ) as writer:
        if writer.finished:
            return writer.summary()
        training = read_training(source, settings)
        policy = training.policy("", settings)
        if settings.objective == RA_DPO:
            for _, line in training_preferences(training, policy, settings):
                writer.write_row(line)
        else:
            for _, line in training.lines(policy, training.learnt(policy, settings), settings):
                writer.write_row(line)
        training.warn_of_cut()
        if out != STREAM:
            write_json(out.with_name(f"{out.stem}.meta.json"), policy.to_json())
    return {**training.counts, **writer.summary()}


def preview(scored: str | Path, model: str, count: int, settings: FinetuneSettings = FinetuneSettings()) -> str:
    """Return the exact text, tokens and loss mask of the first `count` training rows."""
    settings, model = _with_training(_checked(settings)), model_folder(model)
    if is_hosted(model):
        refuse_contrast(settings)
    training = read_training(Path(scored), settings)
    if is_hosted(model):
        from irlhf.training.hosted.run import preview as preview_at_host

        return preview_at_host(training, model, count, settings)
    from irlhf.training.policy_run import preview as preview_locally

    return preview_locally(training, model, count, settings)


def _checked(settings: FinetuneSettings) -> FinetuneSettings:
    """Return the settings with the default template filled in. Raises ConfigError for invalid settings."""
    settings = replace(settings, like=expanded(settings.like))
    _ = settings.objective_settings  # raises for an invalid objective
    if settings.baseline and settings.baseline not in BASELINES:
        raise ConfigError(f"unknown baseline '{settings.baseline}'{did_you_mean(settings.baseline, BASELINES)}")
    if settings.baseline and settings.objective != LIKELIHOOD:
        raise ConfigError(
            f"--baseline {settings.baseline}: baselines do not support --objective"
            f" {settings.objective}; remove one of the two options"
        )
    for name, probability in (("drop", settings.drop), ("drop_all", settings.drop_all)):
        if not 0 <= probability < 1:
            raise ConfigError(f"{name} is {probability}; it must be a probability from 0 to below 1")
    if settings.batch < settings.accumulate * console.PROCESSES:
        parts = f"{settings.accumulate} parts" + f" of {console.PROCESSES} processes" * (console.PROCESSES > 1)
        raise ConfigError(f"a batch of {settings.batch} rows cannot be split into {parts}; raise --batch")
    if settings.like:
        for flag, given in (("--template", settings.template), ("--baseline", settings.baseline)):
            if given:
                raise ConfigError(
                    f"{flag} {given}: --keep-scales-of takes it from that policy; remove one of the two options"
                )
        return settings
    default = INSTRUCTION if settings.baseline == PROMPTED else DEFAULT
    settings = replace(settings, template=settings.template or default)
    find_template(settings.template)  # raises for an unknown or invalid template, before the rows are read
    return settings


def _check_base(model: str, settings: FinetuneSettings) -> None:
    """Raise ConfigError if randomly initialized weights or tokens would stay untrained."""
    if settings.baseline == PROMPTED and model == TINY:
        raise ConfigError(
            "tiny has random weights and cannot be used without training; choose a pretrained base with --model"
        )
    if settings.lora and model == TINY:
        raise ConfigError("tiny has random weights, which --lora would leave untrained; remove --lora")
    if settings.lora and not settings.merge and model != TINY:
        from irlhf.models.description import adapted_base

        if base := adapted_base(model):
            raise ConfigError(
                f"--no-merge: {model} holds LoRA weights of {base}, and new ones alone would need both to be loaded;"
                " remove --no-merge to write a whole model, or train from the base"
            )
    fixed = settings.lora or settings.baseline == PROMPTED
    if fixed and not settings.like and settings.baseline not in BLIND and find_template(settings.template).tokens:
        untrained = "--lora" if settings.lora else f"--baseline {PROMPTED}"
        raise ConfigError(
            f"template {settings.template}: {untrained} leaves its new tokens untrained; set `tokens: false`"
        )


def _with_training(settings: FinetuneSettings) -> FinetuneSettings:
    if settings.baseline == PROMPTED:
        raise ConfigError("the baseline prompted is not trained, so it has no training rows to preview or render")
    return settings
