"""Render the reward into the prompt, train on the completions, remember how."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.registry import did_you_mean
from irlhf.io.files import STREAM, write_json
from irlhf.io.resumable import RunManifest, recorded_setting, resumable_folder, resumable_output
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
    """Write a policy's folder, a plain Hugging Face one with a policy.json, and return what was done.

    Only rows of the training split (or of none) are trained on. The same command again goes on behind
    the last complete checkpoint. The baseline `prompted` trains nothing: its folder holds the base's own
    weights, and the rows give it the scales. A base called `openai:NAME` is trained at a host, as `hosted` says.
    Raises ConfigError, DataError and BackendError.
    """
    settings = _checked(settings)
    source, out = Path(scored), Path(output)
    if out == STREAM:
        raise ConfigError("a policy is a folder; name it with -o")
    if is_hosted(model):
        check_there(settings, FinetuneSettings())
        from irlhf.training.hosted.run import finetune as train_at_host
        from irlhf.training.hosted.task import policy

        return train_at_host(policy(source, model, settings), out, model, hosted)
    refuse_hosted(hosted)
    _check_base(model, settings)
    settings = _with_precision(settings, model, out)
    manifest = finetune_manifest("finetune", source, model, settings)
    with _joined(out, manifest) as folder:
        if folder is None:
            return {"output": str(out), "finished": True}
        training = read_training(source, settings)
        from irlhf.training.policy_run import leave, train

        work = leave if settings.baseline == PROMPTED else train
        trained = work(training, model, folder, settings)
    return {"output": str(out), "finished": False, "rewards": list(training.specs), **training.counts, **trained}


def _with_precision(settings: FinetuneSettings, model: str, out: Path) -> FinetuneSettings:
    """Return the settings with the arithmetic of training: as requested, as recorded, or as is faster here.

    The manifest records it, so that a run goes on in the arithmetic that it began in.
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
def _joined(out: Path, manifest: RunManifest) -> Iterator[Path | None]:
    """Open the workshop; of several processes the first opens it, and the others work in its folder."""
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
    """Write the training file that hosts and other trainers read: one {"messages": […]} a row.

    With the objective ra-dpo it is a preference file, see irlhf/training/preference_file.py.
    `<output>.meta.json` beside it holds what sampling needs: the policy's card, without weights.
    """
    settings = _with_training(_checked(settings))
    refuse_contrast(settings)
    source, out = Path(scored), Path(output)
    from irlhf.training.preference_file import training_preferences

    with resumable_output(
        out, finetune_manifest("finetune --render-only", source, "", settings), resumable=False
    ) as book:
        if book.finished:
            return book.summary()
        training = read_training(source, settings)
        policy = training.policy("", settings)
        if settings.objective == RA_DPO:
            for _, line in training_preferences(training, policy, settings):
                book.write_row(line)
        else:
            for _, messages in training.messages(policy, training.learnt(policy, settings), settings):
                book.write_row({"messages": messages})
        if out != STREAM:
            write_json(out.with_name(f"{out.stem}.meta.json"), policy.to_json())
    return {**training.counts, **book.summary()}


def preview(scored: str | Path, model: str, count: int, settings: FinetuneSettings = FinetuneSettings()) -> str:
    """Return the exact text, tokens and loss mask of the first `count` training rows."""
    settings = _with_training(_checked(settings))
    if is_hosted(model):
        refuse_contrast(settings)
    training = read_training(Path(scored), settings)
    if is_hosted(model):
        from irlhf.training.hosted.run import preview as preview_at_host

        return preview_at_host(training, model, count, settings)
    from irlhf.training.policy_run import preview as preview_here

    return preview_here(training, model, count, settings)


def _checked(settings: FinetuneSettings) -> FinetuneSettings:
    """Return the settings with the template named. Raises ConfigError."""
    _ = settings.objective_settings  # raises for an objective, or a setting of it, that cannot be
    if settings.baseline and settings.baseline not in BASELINES:
        raise ConfigError(f"unknown baseline '{settings.baseline}'{did_you_mean(settings.baseline, BASELINES)}")
    if settings.baseline and settings.objective != LIKELIHOOD:
        raise ConfigError(
            f"--baseline {settings.baseline}: baselines are trained by likelihood or not at all; leave out --objective"
            f" {settings.objective}"
        )
    for name, chance in (("drop", settings.drop), ("drop_all", settings.drop_all)):
        if not 0 <= chance < 1:
            raise ConfigError(f"{name} is {chance}; it is a chance from 0 to below 1")
    if settings.batch < settings.accumulate * console.PROCESSES:
        parts = f"{settings.accumulate} parts" + f" of {console.PROCESSES} processes" * (console.PROCESSES > 1)
        raise ConfigError(f"a batch of {settings.batch} rows cannot be computed in {parts}; each needs a row")
    if settings.like:
        for flag, given in (("--template", settings.template), ("--baseline", settings.baseline)):
            if given:
                raise ConfigError(f"{flag} {given}: with --keep-scales-of, that policy decides it; remove one of them")
        return settings
    usual = INSTRUCTION if settings.baseline == PROMPTED else DEFAULT
    return replace(settings, template=settings.template or usual)


def _check_base(model: str, settings: FinetuneSettings) -> None:
    """Refuse to leave at random what a random start, or a new token, has to learn."""
    if settings.baseline == PROMPTED and model == TINY:
        raise ConfigError(
            "tiny starts from random weights, so without training it can say nothing; name a base with --model"
        )
    if settings.lora and model == TINY:
        raise ConfigError("tiny starts from random weights, which --lora would leave random; train them all")
    fixed = settings.lora or settings.baseline == PROMPTED
    if fixed and not settings.like and settings.baseline not in BLIND and find_template(settings.template).tokens:
        untrained = "--lora" if settings.lora else f"--baseline {PROMPTED}"
        raise ConfigError(
            f"template {settings.template}: {untrained} leaves its new tokens random; say `tokens: false`"
        )


def _with_training(settings: FinetuneSettings) -> FinetuneSettings:
    if settings.baseline == PROMPTED:
        raise ConfigError("the baseline prompted trains on nothing, so it has no training rows to show or to write")
    return settings
