"""What a host can be taught: a policy from scored rows, or a reward model that answers in words from pairs."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from irlhf.finetune import FinetuneSettings, card_of, read_training
from irlhf.finetune.baselines import UNTOUCHED
from irlhf.finetune.preferences import read_preferences, tell
from irlhf.finetune.reward import RewardModelSettings, card_of_pairs, origin, verdict_rows
from irlhf.finetune.rows import VALIDATION_ROWS
from irlhf.hosted import KEY, REWARD_FILE, Hosted
from irlhf.journal import RunCard
from irlhf.policy import FILE
from irlhf.records import Example, Message

CONTEXT = 8192  # tokens; hosts do not tell theirs

Row = tuple[str, list[Message]]  # the id of an example, and its conversation, whose last message is learnt


@dataclass(frozen=True)
class Lesson:
    """Rows that were read, and the card of what comes of learning them."""

    source: Path
    learnt: Iterable[Row]
    held_out: Iterable[Row]
    counts: Mapping[str, Any]  # for the summary
    card: Callable[[Hosted, Mapping[str, Any]], dict[str, Any]]  # of where it lives, and how it was trained


@dataclass(frozen=True)
class Subject:
    """What a host is to train, before anything is read."""

    file: str  # its card, in the folder
    settings: FinetuneSettings | RewardModelSettings
    card: RunCard
    read: Callable[[], Lesson]
    untouched: bool = False  # nothing is trained, and the base is merely asked


def policy(source: Path, model: str, settings: FinetuneSettings) -> Subject:
    """Return a policy to be trained from scored rows."""
    settings = replace(settings, context=settings.context or CONTEXT)
    card = card_of("finetune", source, model, settings)
    return Subject(FILE, settings, card, lambda: _scored(source, model, settings), settings.baseline == UNTOUCHED)


def reward_model(source: Path, model: str, settings: RewardModelSettings) -> Subject:
    """Return a reward model to be trained from pairs: it answers 1 or 0."""
    settings = replace(settings, context=settings.context or CONTEXT)
    card = card_of_pairs(source, model, settings)
    return Subject(REWARD_FILE, settings, card, lambda: _paired(source, card, settings))


def _scored(source: Path, model: str, settings: FinetuneSettings) -> Lesson:
    training = read_training(source, settings)
    made = training.policy(model, settings)

    def rows(examples: list[Example]) -> Iterator[Row]:
        for example, messages in training.messages(made, examples, settings):
            yield example.id, messages

    def card(hosted: Hosted, figures: Mapping[str, Any]) -> dict[str, Any]:
        return replace(made, training={**figures, "settings": asdict(settings)}, hosted=hosted).to_json()

    learnt = [] if settings.baseline == UNTOUCHED else training.learnt(made, settings)
    counts = {"rewards": list(training.specs), **training.counts}
    return Lesson(source, rows(learnt), rows(training.validation[:VALIDATION_ROWS]), counts, card)


def _paired(source: Path, run: RunCard, settings: RewardModelSettings) -> Lesson:
    preferences = read_preferences(source, settings)
    tell(preferences)

    def card(hosted: Hosted, figures: Mapping[str, Any]) -> dict[str, Any]:
        return {**origin(run, preferences), "training": dict(figures), KEY: hosted.to_json()}

    learnt = verdict_rows(preferences.train, settings.seed)
    held_out = islice(verdict_rows(preferences.validation, settings.seed), VALIDATION_ROWS)
    return Lesson(source, learnt, held_out, preferences.counts, card)
