"""Manifest, provenance and training rows of reward models."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irlhf.core.example import CHOSEN, Message, as_messages
from irlhf.core.pairs import Pair
from irlhf.io.resumable import RunManifest
from irlhf.policy.judge_prompt import NO, YES, verdict_messages
from irlhf.policy.remote_model import REWARD_VERSION
from irlhf.training.reward_model.pair_split import Preferences
from irlhf.training.reward_model.ratings import Ratings
from irlhf.training.reward_model.settings import RewardModelSettings

COMMAND = "reward-model"


def reward_model_manifest(source: Path, model: str, settings: RewardModelSettings) -> RunManifest:
    """Return the manifest of a run."""
    inputs = {"model": Path(model)} if model and Path(model).exists() else {}
    return RunManifest(COMMAND, {"pairs": source, **inputs}, {**asdict(settings), "model": model})


def origin(manifest: RunManifest, preferences: Preferences | Ratings) -> dict[str, Any]:
    """Return the provenance of a reward model: base, digests of the inputs, settings and row counts."""
    record = manifest.with_digests()
    digests = {role: entry.sha256 for role, entry in record.inputs.items()}
    settings = {name: value for name, value in record.settings.items() if name != "model"}
    counts = {**preferences.counts, "validation pairs are from": preferences.held_out}
    return {
        "version": REWARD_VERSION,
        "base": record.settings["model"],
        "digests": digests,
        "settings": settings,
        "data": counts,
    }


def verdict_rows(pairs: Sequence[Pair], seed: int) -> Iterator[tuple[str, list[Message]]]:
    """Yield each completion of the pairs once, in random order: its id, and the messages with the answer 1 or 0."""
    rows = {example.id: example for pair in pairs for example in pair}
    for example in random.Random(f"{seed}/verdicts").sample(list(rows.values()), len(rows)):
        answer = as_messages(YES if example.label == CHOSEN else NO, "assistant")
        yield example.id, verdict_messages(example.prompt, example.completion) + answer
