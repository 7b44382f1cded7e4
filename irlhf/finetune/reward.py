"""Reward models: learn from preference pairs which completion people choose."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from irlhf import console
from irlhf.errors import ConfigError
from irlhf.files import STREAM, write_json
from irlhf.finetune import CHECKPOINTS, FinetuneSettings
from irlhf.finetune.hosting import NOWHERE, HostedSettings, check_there, is_hosted, refuse_hosted
from irlhf.finetune.preferences import HALVES, Preferences, read_preferences, tell
from irlhf.journal import RunCard, journal, workshop
from irlhf.pairs import Pair
from irlhf.records import CHOSEN, Message, as_messages
from irlhf.registry import did_you_mean, resolve
from irlhf.verdicts import NO, YES, verdict_messages

_COMMAND = "finetune --objective reward"


@dataclass(frozen=True)
class RewardModelSettings:
    """How a reward model is trained. What is 0 is chosen to fit the base, and said.

    `batch` is in pairs a step, computed in `accumulate` parts to spare memory; `context` is in tokens, prompt and
    completion together. `half`, proxy or gold, trains on one of two halves of the conversations, which share none, so
    that two reward models never saw the same data. `report_to` names a tracker that transformers knows. `precision` is
    the arithmetic of training, see irlhf/models/precision.py.
    """

    epochs: float = 0.0
    learning_rate: float = 0.0
    batch: int = 16
    context: int = 0
    seed: int = 0
    limit: int = 0
    accumulate: int = 1
    half: str = ""
    report_to: str = "none"
    precision: str = "auto"


def reward_model(
    pairs: str | Path,
    output: str | Path,
    model: str,
    settings: RewardModelSettings = RewardModelSettings(),
    hosted: HostedSettings = NOWHERE,
) -> dict[str, Any]:
    """Write a reward model's folder, a plain Hugging Face classifier with a reward.json, and return what was done.

    It learns from the pairs of the training split (or of none) and is measured on those of the validation split. The
    same command again goes on behind the last complete checkpoint. A base called `openai:NAME` is taught at a host, as
    `hosted` says, to answer 1 or 0; its folder holds all but the weights, and it is not measured. Raises ConfigError,
    DataError and BackendError.
    """
    _check(settings)
    source, out = Path(pairs), Path(output)
    if out == STREAM:
        raise ConfigError("a reward model is a folder; name it with -o")
    if is_hosted(model):
        check_there(settings, RewardModelSettings())
        subject = resolve("irlhf.finetune.lessons:reward_model")(source, model, settings)
        there: dict[str, Any] = resolve("irlhf.finetune.hosted:finetune")(subject, out, model, hosted)
        return there
    refuse_hosted(hosted)
    if console.PROCESSES > 1:
        raise ConfigError("a reward model is trained by one process; start irlhf without torchrun")
    card = card_of_pairs(source, model, settings)
    with workshop(out, card, CHECKPOINTS) as folder:
        if folder is None:
            return {"output": str(out), "finished": True}
        preferences = read_preferences(source, settings)
        tell(preferences)
        learn = resolve("irlhf.finetune.train_reward:train")
        made: dict[str, Any] = learn(preferences, model, folder, settings, origin(card, preferences))
    return {"output": str(out), "finished": False, **preferences.counts, **made}


def render_verdicts(
    pairs: str | Path, output: str | Path, settings: RewardModelSettings = RewardModelSettings()
) -> dict[str, Any]:
    """Write the training file of a model that answers 1 for a chosen completion and 0 for a rejected one.

    One {"messages": […]} a row, of the pairs that `reward_model` would learn from, each completion once, in an order
    drawn by the seed: a trainer that reads in file order meets neither labels in turns nor all of one prompt at a time.
    `<output>.meta.json` beside it says what the rows are.
    """
    _check(settings)
    source, out = Path(pairs), Path(output)
    made = card_of_pairs(source, "", settings)
    card = replace(made, command=f"{made.command} --render-only")
    with journal(out, card, resumable=False) as book:
        if book.finished:
            return book.summary()
        preferences = read_preferences(source, settings)
        tell(preferences)
        for _, messages in verdict_rows(preferences.train, settings.seed):
            book.write_row({"messages": messages})
        if out != STREAM:
            write_json(out.with_name(f"{out.stem}.meta.json"), origin(card, preferences))
    return {**preferences.counts, **book.summary()}


def settings_from(policy: FinetuneSettings, half: str = "", preview: int = 0) -> RewardModelSettings:
    """Return the settings of a policy that a reward model has too. Raises ConfigError for one that it has not."""
    own = {one.name for one in fields(RewardModelSettings)}
    useless = [one for one in fields(policy) if one.name not in own and getattr(policy, one.name) != one.default]
    flags = [f"--{'no-' * (one.name == 'merge')}{one.name.replace('_', '-')}" for one in useless]
    flags += ["--preview"] * bool(preview)
    if flags:
        raise ConfigError(f"{flags[0]} means nothing to a reward model; leave it out")
    return RewardModelSettings(half=half, **{name: getattr(policy, name) for name in own - {"half"}})


def _check(settings: RewardModelSettings) -> None:
    if settings.half and settings.half not in HALVES:
        raise ConfigError(f"unknown half '{settings.half}'{did_you_mean(settings.half, HALVES)}")
    if settings.batch < settings.accumulate:
        told = f"a batch of {settings.batch} pairs cannot be computed in {settings.accumulate} parts"
        raise ConfigError(f"{told}; each needs a pair")


def card_of_pairs(source: Path, model: str, settings: RewardModelSettings) -> RunCard:
    """Return what a run makes."""
    inputs = {"model": Path(model)} if model and Path(model).exists() else {}
    return RunCard(_COMMAND, {"pairs": source, **inputs}, {**asdict(settings), "model": model})


def origin(card: RunCard, preferences: Preferences) -> dict[str, Any]:
    """Return what a reward model is made of: the base, the digest of every input, the settings, what was left out."""
    made = card.to_json()
    digests = {role: one["sha256"] for role, one in made["inputs"].items()}
    settings = {name: value for name, value in made["settings"].items() if name != "model"}
    counts = {**preferences.counts, "validation pairs are from": preferences.held_out}
    return {"base": made["settings"]["model"], "digests": digests, "settings": settings, "data": counts}


def verdict_rows(pairs: Sequence[Pair], seed: int) -> Iterator[tuple[str, list[Message]]]:
    """Yield each completion of the pairs once, at random: its id, the question and the answer 1 or 0."""
    rows = {example.id: example for pair in pairs for example in pair}
    for example in random.Random(f"{seed}/verdicts").sample(list(rows.values()), len(rows)):
        answer = as_messages(YES if example.label == CHOSEN else NO, "assistant")
        yield example.id, verdict_messages(example.prompt, example.completion) + answer
