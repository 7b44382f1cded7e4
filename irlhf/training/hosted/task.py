"""Hosted training tasks: a policy from scored rows, or a reward model that answers 1 or 0 from pairs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from irlhf.core.example import Example, Message
from irlhf.io.resumable import RunManifest
from irlhf.openai_api.providers import DPO, SUPERVISED
from irlhf.policy.policy_file import FILE
from irlhf.policy.remote_model import HOSTED_KEY, REWARD_FILE, RemoteModel
from irlhf.training.baselines import PROMPTED
from irlhf.training.preference_file import preference_rows, training_preferences
from irlhf.training.reward_model.training_data import (
    origin,
    read_preferences,
    reward_model_manifest,
    tell,
    verdict_rows,
)
from irlhf.training.settings import RA_DPO, FinetuneSettings, RewardModelSettings
from irlhf.training.training_set import VALIDATION_ROWS, finetune_manifest, read_training

CONTEXT = 8192  # tokens; providers do not report theirs

Row = tuple[str, Mapping[str, Any]]  # the id of an example, and its line of a training file, see `conversations`


@dataclass(frozen=True)
class HostedData:
    """The training data of a hosted job, and a function that builds the resulting policy.json or reward.json."""

    source: Path
    learnt: Iterable[Row]
    held_out: Iterable[Row]
    counts: Mapping[str, Any]  # for the summary
    description: Callable[[RemoteModel, Mapping[str, Any]], dict[str, Any]]  # from the remote model and the figures


@dataclass(frozen=True)
class HostedTask:
    """A hosted training before its data are read."""

    file: str  # policy.json or reward.json
    settings: FinetuneSettings | RewardModelSettings
    manifest: RunManifest
    read: Callable[[], HostedData]
    untouched: bool = False  # nothing is trained; the base model is used as it is
    method: str = SUPERVISED
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)  # of the method


def policy(source: Path, model: str, settings: FinetuneSettings) -> HostedTask:
    """Return the task of training a policy on scored rows."""
    settings = replace(settings, context=settings.context or CONTEXT)
    manifest = finetune_manifest("finetune", source, model, settings)
    task = HostedTask(FILE, settings, manifest, lambda: _scored(source, model, settings), settings.baseline == PROMPTED)
    if settings.objective == RA_DPO:
        return replace(task, method=DPO, hyperparameters={"beta": settings.beta})
    return task


def reward_model(source: Path, model: str, settings: RewardModelSettings) -> HostedTask:
    """Return the task of training a reward model that answers 1 or 0 on pairs."""
    settings = replace(settings, context=settings.context or CONTEXT)
    manifest = reward_model_manifest(source, model, settings)
    return HostedTask(REWARD_FILE, settings, manifest, lambda: _paired(source, manifest, settings))


def _scored(source: Path, model: str, settings: FinetuneSettings) -> HostedData:
    training = read_training(source, settings)
    training.warn_of_cut()
    trained_policy = training.policy(model, settings)

    def rows(examples: list[Example]) -> Iterator[Row]:
        for example, line in training.lines(trained_policy, examples, settings):
            yield example.id, line

    def description(hosted: RemoteModel, figures: Mapping[str, Any]) -> dict[str, Any]:
        return replace(trained_policy, training={**figures, "settings": asdict(settings)}, hosted=hosted).to_json()

    counts = {"rewards": list(training.specs), **training.counts}
    held_out = training.validation[:VALIDATION_ROWS]
    if settings.objective == RA_DPO:
        pairs = training_preferences(training, trained_policy, settings)
        return HostedData(
            source, pairs, preference_rows(training, trained_policy, held_out, settings), counts, description
        )
    learnt = [] if settings.baseline == PROMPTED else training.learnt(trained_policy, settings)
    return HostedData(source, rows(learnt), rows(held_out), counts, description)


def _paired(source: Path, run: RunManifest, settings: RewardModelSettings) -> HostedData:
    preferences = read_preferences(source, settings)
    tell(preferences.counts, preferences.held_out)

    def description(hosted: RemoteModel, figures: Mapping[str, Any]) -> dict[str, Any]:
        return {**origin(run, preferences), "training": dict(figures), HOSTED_KEY: hosted.to_json()}

    def rows(verdicts: Iterable[tuple[str, list[Message]]]) -> Iterator[Row]:
        for name, messages in verdicts:
            yield name, {"messages": messages}

    learnt = rows(verdict_rows(preferences.train, settings.seed))
    held_out = rows(islice(verdict_rows(preferences.validation, settings.seed), VALIDATION_ROWS))
    return HostedData(source, learnt, held_out, preferences.counts, description)


def conversations(line: Mapping[str, Any]) -> list[list[Message]]:
    """Return the conversations of a training file line: one, or a preferred and a non-preferred one."""
    if "messages" in line:
        return [line["messages"]]
    prompt = line["input"]["messages"]
    return [[*prompt, *line[output]] for output in ("preferred_output", "non_preferred_output")]
