"""Train reward models on preference pairs or ratings."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.example import dumps
from irlhf.core.registry import did_you_mean
from irlhf.io.files import STREAM, write_json
from irlhf.io.resumable import outcome, resumable_folder, resumable_output
from irlhf.models.gguf import model_folder
from irlhf.training.hosted.settings import NOWHERE, HostedSettings, check_there, is_hosted, refuse_hosted
from irlhf.training.reward_model.training_data import (
    HALVES,
    Preferences,
    Ratings,
    origin,
    read_preferences,
    read_ratings,
    reward_model_manifest,
    tell,
    verdict_rows,
)
from irlhf.training.settings import CHECKPOINTS, RewardModelSettings


def train_reward_model(
    pairs: str | Path,
    output: str | Path,
    model: str,
    settings: RewardModelSettings = RewardModelSettings(),
    hosted: HostedSettings = NOWHERE,
) -> dict[str, Any]:
    """Train a reward model and return a summary.

    The output folder is a Hugging Face classifier with a reward.json. With `settings.reward` it learns the ratings of
    that name by regression and returns rewards in their units; otherwise it learns pairs. Rows of the training split,
    or without a split, are trained on; those of the validation split are measured. An interrupted run resumes from its
    last complete checkpoint. A base named `openai:NAME` is fine-tuned by a provider with the settings in `hosted`: it
    learns to answer 1 or 0, its folder holds everything except the weights, and it is not measured. Raises ConfigError,
    DataError and BackendError.
    """
    _check(settings)
    source, out = Path(pairs), Path(output)
    if out == STREAM:
        raise ConfigError("a reward model is a folder and cannot go to stdout; choose an output with -o")
    if is_hosted(model):
        _refuse_ratings(settings, f"--model {model}")
        check_there(settings, RewardModelSettings())
        from irlhf.training.hosted.run import finetune as train_at_host
        from irlhf.training.hosted.task import reward_model

        return train_at_host(reward_model(source, model, settings), out, model, hosted)
    refuse_hosted(hosted)
    if console.PROCESSES > 1:
        raise ConfigError("reward models are trained by one process; run irlhf without torchrun")
    model = model_folder(model)
    manifest = reward_model_manifest(source, model, settings)
    with resumable_folder(out, manifest, CHECKPOINTS) as folder:
        if folder is None:
            return outcome(out, already=True)
        data = _read(source, settings)
        tell(data.counts, data.held_out)
        from irlhf.training.reward_model.run import train

        figures = train(data, model, folder, settings, origin(manifest, data))
    return {**outcome(out), **data.counts, **figures}


def render_verdicts(
    pairs: str | Path, output: str | Path, settings: RewardModelSettings = RewardModelSettings()
) -> dict[str, Any]:
    """Write the training file of a model that answers 1 for a chosen completion and 0 for a rejected one.

    Each line is {"messages": […]}. Each completion of the training pairs occurs once, in random order, because some
    trainers read in file order. `<output>.meta.json` describes the rows. Returns the counts.
    """
    _check(settings)
    _refuse_ratings(settings, "--render-only")
    source, out = Path(pairs), Path(output)
    manifest = reward_model_manifest(source, "", settings)
    manifest = replace(manifest, command=f"{manifest.command} --render-only")
    with resumable_output(out, manifest, resumable=False) as writer:
        if writer.finished:
            return writer.summary()
        preferences = read_preferences(source, settings)
        tell(preferences.counts, preferences.held_out)
        for _, messages in verdict_rows(preferences.train, settings.seed):
            writer.write_row({"messages": messages})
        if out != STREAM:
            write_json(out.with_name(f"{out.stem}.meta.json"), origin(manifest, preferences))
    return {**preferences.counts, **writer.summary()}


def preview(pairs: str | Path, model: str, count: int, settings: RewardModelSettings = RewardModelSettings()) -> str:
    """Return the first `count` pairs as the model reads them, or the first training file rows of a hosted model."""
    _check(settings)
    if is_hosted(model):
        _refuse_ratings(settings, f"--model {model}")
        preferences = read_preferences(Path(pairs), settings)
        rows = islice(verdict_rows(preferences.train, settings.seed), count)
        return "\n".join(f"── {name}\n{dumps({'messages': messages}).decode()}" for name, messages in rows)
    from irlhf.training.reward_model.run import preview as preview_locally

    return preview_locally(_read(Path(pairs), settings), model, count, settings)


def _read(source: Path, settings: RewardModelSettings) -> Preferences | Ratings:
    return read_ratings(source, settings) if settings.reward else read_preferences(source, settings)


def _refuse_ratings(settings: RewardModelSettings, option: str) -> None:
    if settings.reward:
        raise ConfigError(f"{option}: a model that answers 1 or 0 learns from pairs; remove --reward {settings.reward}")


def _check(settings: RewardModelSettings) -> None:
    if settings.half and settings.half not in HALVES:
        raise ConfigError(f"unknown half '{settings.half}'{did_you_mean(settings.half, HALVES)}")
    if settings.batch < settings.accumulate:
        problem = f"a batch of {settings.batch} pairs cannot be split into {settings.accumulate} parts"
        raise ConfigError(f"{problem}; raise --batch or lower --accumulate")
