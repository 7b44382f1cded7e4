"""The command line that trains a round, here or at a host."""

from collections.abc import Iterable
from pathlib import Path

from irlhf.core.errors import ConfigError
from irlhf.io.files import read_json
from irlhf.io.resumable import PARTIAL, beside
from irlhf.policy.policy_file import FILE, read_policy
from irlhf.policy.remote_model import PREFIX, RemoteModel
from irlhf.rounds.types import Loop
from irlhf.training.settings import FinetuneSettings

_SLOWER = 1 / 3  # of the rate that the policy was trained with: it knows most of it already
_MILLION = 1e6
_FLAGS = (
    "batch",
    "context",
    "drop",
    "drop_all",
    "accumulate",
    "lora",
    "report_to",
    "objective",
    "contrast_weight",
    "alternatives",
    "one_reward",
    "whole_targets",
    "beta",
    "precision",
)


def training_line(loop: Loop, policy: Path, folder: Path, how: tuple[int, float]) -> list[str]:
    """Return `finetune` for the round's number and epochs: from the policy of before, its scales kept."""
    number, epochs = how
    trained = folder / "policy"
    line = _line(loop, policy, (folder / "train.jsonl", trained), number)
    there = read_policy(policy).hosted
    if there is None:
        rate = loop.settings.training.learning_rate or _usual_rate(loop) * _SLOWER
        return [*line, "--model", str(policy), "--epochs", f"{epochs:g}", "--learning-rate", f"{rate:.3g}"]
    return [*line, *_at_host(loop, there, left(loop, trained)), *_mending(loop, trained)]


def rehearsal(loop: Loop) -> list[str]:
    """Return `finetune` that looks at all that a host is going to be told, and sends nothing."""
    there = read_policy(loop.start).hosted
    assert there is not None
    line = _line(loop, loop.start, (loop.scored, loop.out / "policy"), 1)
    return [*line, *_at_host(loop, there, loop.settings.hosted.max_spend), "--dry-run"]


def _line(loop: Loop, policy: Path, places: tuple[Path, Path], number: int) -> list[str]:
    rows, trained = places
    line = ["finetune", rows, "--like", policy, "-r", loop.rewards, "-o", trained]
    line += ["--seed", (loop.seed + number) % 2**32]
    usual = FinetuneSettings()
    for name in _FLAGS:
        if getattr(loop.settings.training, name) != getattr(usual, name):
            line += [f"--{name.replace('_', '-')}", getattr(loop.settings.training, name)]
    line += ["--no-merge"] * (not loop.settings.training.merge) + ["--keep-best"] * loop.settings.training.keep_best
    return [*map(str, line)]


def _usual_rate(loop: Loop) -> float:
    plan = loop.policy.training.get("plan", {})
    if "rate" not in plan:
        raise ConfigError(f"{loop.start}: its card does not say how fast it learnt; name a --learning-rate")
    return float(plan["rate"])


def _at_host(loop: Loop, there: RemoteModel, most: float) -> list[str]:
    """Return the flags of a job that goes on from what the host trained before, and comes to no more than `most`."""
    training, given = loop.settings.training, loop.settings.hosted
    base = there.trained or there.model
    line = ["--model", PREFIX + base, "--host", given.host or there.host, "--base-url", there.base_url]
    line += ["--epochs", f"{training.epochs or 1:g}"]
    line += ["--learning-rate", f"{training.learning_rate:g}"] if training.learning_rate else []
    for pair in given.hyperparameters:
        line += ["--hyperparameter", pair]
    for flag, value in (("--extra-body", given.extra_body), ("--api-key-env", given.api_key_env)):
        line += [flag, value] if value else []
    line += ["--price-per-mtok", f"{given.price:g}"] if given.price else []
    line += ["--max-spend", f"{most:.6g}"] if most else []
    return [*line, *(["--yes"] if given.yes else [])]


def _mending(loop: Loop, trained: Path) -> list[str]:
    """Return what a user says of one job: of the one that is open, or that made a model which has no name yet."""
    given = loop.settings.hosted
    if beside(trained, PARTIAL).is_dir():
        return [*(["--again"] if given.again else []), *(["--job", given.job] if given.job else [])]
    there = read_policy(trained).hosted if (trained / FILE).is_file() else None
    return ["--served-name", given.served_name] if there and not there.model and given.served_name else []


def spent(loop: Loop, but: Path | None = None) -> float:
    """Return about what the jobs came to that are done, those of all controls, but for that of one policy."""
    cards = {*loop.out.glob(f"round-*/policy/{FILE}"), *loop.out.glob(f"*/round-*/policy/{FILE}")}
    return loop.settings.hosted.price / _MILLION * _tokens(cards - {but / FILE} if but else cards)


def _tokens(policy_files: Iterable[Path]) -> float:
    return sum(float(read_json(policy_file)["training"]["estimated tokens"]) for policy_file in policy_files)


def left(loop: Loop, trained: Path) -> float:
    """Return what the other jobs leave of --max-spend; 0 is no limit. Raises ConfigError where they leave nothing."""
    most = loop.settings.hosted.max_spend
    gone = spent(loop, trained) if most else 0.0
    if most and gone >= most:
        spending = f"about {gone:,.2f} is spent, so nothing is left of --max-spend {most:,.2f}"
        raise ConfigError(f"{spending}; allow more to go on")
    return most - gone
