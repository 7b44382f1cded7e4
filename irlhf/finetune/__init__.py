"""Render the reward into the prompt, train on the completions, remember how."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from irlhf import console
from irlhf.errors import ConfigError
from irlhf.files import STREAM, write_json
from irlhf.finetune.baselines import BLIND, UNTOUCHED
from irlhf.finetune.hosting import NOWHERE, HostedSettings, check_there, is_hosted, refuse_contrast, refuse_hosted
from irlhf.finetune.rows import TrainingSet, read_training_set
from irlhf.journal import RunCard, journal, recorded_setting, workshop
from irlhf.policy import TINY, read_policy
from irlhf.registry import did_you_mean, resolve
from irlhf.templates import DEFAULT, INSTRUCTION, find_template
from irlhf.training.settings import LIKELIHOOD, RA_DPO, Objective

BASELINES = (*BLIND, UNTOUCHED)
BUCKETED, SHARED = "bucketed", "shared"  # how rows become batches, see irlhf/training/batching.py
COMPLETE = "COMPLETE"  # written last into a checkpoint; one without it was cut short by a kill
CHECKPOINTS = f"checkpoint-*/{COMPLETE}"


@dataclass(frozen=True)
class FinetuneSettings:
    """How a policy is trained. What is 0 is chosen to fit the base, and said.

    `batch` is in rows a step, computed in `accumulate` parts to spare memory; `context` is in tokens; `drop`
    is the chance in [0, 1] that a reward line is left out of a training row, so that every subset of the
    rewards can be asked for, and `drop_all` the chance that all of them are. With `lora` only low-rank updates of
    that rank are trained (Hu et al. 2021, arXiv 2106.09685); `merge` adds them to the weights at the end, else the
    folder holds them alone. `report_to` names a tracker that transformers knows. `like` is a policy's
    folder whose scales and template are kept, as when training on from it: no number changes its meaning.
    """

    rewards: str = ""  # a rewards.yaml
    template: str = ""  # a name or a YAML; empty: `reward-end`, or `instruction` for the baseline `untouched`
    baseline: str = ""
    epochs: float = 0.0
    learning_rate: float = 0.0
    batch: int = 16
    context: int = 0
    drop: float = 0.1
    seed: int = 0
    limit: int = 0
    accumulate: int = 1
    lora: int = 0
    merge: bool = True
    report_to: str = "none"
    drop_all: float = 0.0
    like: str = ""
    objective: str = LIKELIHOOD
    contrast_weight: float = 1.0
    alternatives: int = 1
    one_reward: float = 0.5
    whole_targets: float = 0.5
    beta: float = 0.1
    precision: str = "auto"
    keep_best: bool = False

    @property
    def objective_settings(self) -> Objective:
        """The objective with its own settings, see irlhf/training/settings.py."""
        return Objective(
            name=self.objective,
            weight=self.contrast_weight,
            alternatives=self.alternatives,
            one_reward=self.one_reward,
            whole_targets=self.whole_targets,
            beta=self.beta,
        )


def finetune(
    scored: str | Path,
    output: str | Path,
    model: str,
    settings: FinetuneSettings = FinetuneSettings(),
    hosted: HostedSettings = NOWHERE,
) -> dict[str, Any]:
    """Write a policy's folder, a plain Hugging Face one with a policy.json, and return what was done.

    Only rows of the training split (or of none) are trained on. The same command again goes on behind
    the last complete checkpoint. The baseline `untouched` trains nothing: its folder holds the base's own
    weights, and the rows give it the scales. A base called `openai:NAME` is trained at a host, as `hosted` says.
    Raises ConfigError, DataError and BackendError.
    """
    settings = _checked(settings)
    source, out = Path(scored), Path(output)
    if out == STREAM:
        raise ConfigError("a policy is a folder; name it with -o")
    if is_hosted(model):
        check_there(settings, FinetuneSettings())
        subject = resolve("irlhf.finetune.lessons:policy")(source, model, settings)
        there: dict[str, Any] = resolve("irlhf.finetune.hosted:finetune")(subject, out, model, hosted)
        return there
    refuse_hosted(hosted)
    _check_base(model, settings)
    settings = _with_precision(settings, model, out)
    card = card_of("finetune", source, model, settings)
    with _joined(out, card) as folder:
        if folder is None:
            return {"output": str(out), "finished": True}
        training = read_training(source, settings)
        work = "leave" if settings.baseline == UNTOUCHED else "train"
        trained: dict[str, Any] = resolve(f"irlhf.finetune.train:{work}")(training, model, folder, settings)
    return {"output": str(out), "finished": False, "rewards": list(training.specs), **training.counts, **trained}


def _with_precision(settings: FinetuneSettings, model: str, out: Path) -> FinetuneSettings:
    """Return the settings with the arithmetic of training: as requested, as recorded, or as is faster here.

    The manifest records it, so that a run goes on in the arithmetic that it began in.
    """
    from irlhf.models.precision import AUTO, DTYPES, check_precision

    check_precision(settings.precision)
    chosen = recorded_setting(out, "precision") if settings.precision == AUTO else settings.precision
    if chosen not in DTYPES:
        chosen = resolve("irlhf.finetune.train:faster_precision")(model)
    if console.PROCESSES > 1:
        chosen = resolve("irlhf.engines.processes:from_first")(chosen)
    return replace(settings, precision=chosen)


@contextmanager
def _joined(out: Path, card: RunCard) -> Iterator[Path | None]:
    """Open the workshop; of several processes the first opens it, and the others work in its folder."""
    if console.PROCESSES == 1:
        with workshop(out, card, CHECKPOINTS) as folder:
            yield folder
        return
    from_first = resolve("irlhf.engines.processes:from_first")
    if console.FIRST:
        with workshop(out, card, CHECKPOINTS) as folder:
            yield from_first(folder)
    else:
        yield from_first(None)


def render(scored: str | Path, output: str | Path, settings: FinetuneSettings = FinetuneSettings()) -> dict[str, Any]:
    """Write the training file that hosts and other trainers read: one {"messages": […]} a row.

    With the objective ra-dpo it is a preference file, see irlhf/finetune/preference_file.py.
    `<output>.meta.json` beside it holds what sampling needs: the policy's card, without weights.
    """
    settings = _with_training(_checked(settings))
    refuse_contrast(settings)
    source, out = Path(scored), Path(output)
    with journal(out, card_of("finetune --render-only", source, "", settings), resumable=False) as book:
        if book.finished:
            return book.summary()
        training = read_training(source, settings)
        policy = training.policy("", settings)
        if settings.objective == RA_DPO:
            for _, line in resolve("irlhf.finetune.preference_file:training_preferences")(training, policy, settings):
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
    work = "hosted" if is_hosted(model) else "train"
    text: str = resolve(f"irlhf.finetune.{work}:preview")(training, model, count, settings)
    return text


def read_training(source: Path, settings: FinetuneSettings) -> TrainingSet:
    """Read the rows, and say how many are trained on and how many are not."""
    like = read_policy(Path(settings.like)) if settings.like else None
    training = read_training_set(source, settings.rewards, settings.limit, like)
    skipped = {name: n for name, n in training.counts.items() if name.startswith("skipped")}
    told = "".join(f"; {name} {n:,}" for name, n in skipped.items())
    purpose = "fit the scales" if settings.baseline == UNTOUCHED else "train"
    console.note(f"{training.counts['rows']:,} rows to {purpose} on{told}")
    return training


def card_of(command: str, source: Path, model: str, settings: FinetuneSettings) -> RunCard:
    """Return what a run makes."""
    named = {"rewards": settings.rewards, "model": model, "template": settings.template, "like": settings.like}
    inputs = {role: Path(name) for role, name in named.items() if name and Path(name).exists()}
    return RunCard(command, {"examples": source, **inputs}, {**asdict(settings), "model": model})


def _checked(settings: FinetuneSettings) -> FinetuneSettings:
    """Return the settings with the template named. Raises ConfigError."""
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
                raise ConfigError(f"{flag} {given}: with --like all is spelled as by that policy; leave one out")
        return settings
    usual = INSTRUCTION if settings.baseline == UNTOUCHED else DEFAULT
    return replace(settings, template=settings.template or usual)


def _check_base(model: str, settings: FinetuneSettings) -> None:
    """Refuse to leave at random what a random start, or a new token, has to learn."""
    if settings.baseline == UNTOUCHED and model == TINY:
        raise ConfigError("tiny starts from random weights, so untouched it can say nothing; name a base with --model")
    if settings.lora and model == TINY:
        raise ConfigError("tiny starts from random weights, which --lora would leave random; train them all")
    fixed = settings.lora or settings.baseline == UNTOUCHED
    if fixed and not settings.like and settings.baseline not in BLIND and find_template(settings.template).tokens:
        untrained = "--lora" if settings.lora else f"--baseline {UNTOUCHED}"
        raise ConfigError(
            f"template {settings.template}: {untrained} leaves its new tokens random; say `tokens: false`"
        )


def _with_training(settings: FinetuneSettings) -> FinetuneSettings:
    if settings.baseline == UNTOUCHED:
        raise ConfigError("untouched trains on nothing, so it has no training rows to show or to write")
    return settings
