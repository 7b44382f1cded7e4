"""Train the policy of a round, here or at a host."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.io.files import read_json
from irlhf.policy.policy_file import FILE, read_policy
from irlhf.policy.remote_model import PREFIX, RemoteModel
from irlhf.rounds.types import Loop
from irlhf.training.finetune import finetune
from irlhf.training.hosted.settings import NOWHERE, HostedSettings
from irlhf.training.settings import FinetuneSettings

_SLOWER = 1 / 3  # of the rate that the policy was trained with: it knows most of it already
_MILLION = 1e6


def train_round(loop: Loop, policy: Path, folder: Path, number: int, epochs: float) -> None:
    """Train the policy of a round from the policy before it, whose scales are kept."""
    rows, trained = folder / "train.jsonl", folder / "policy"
    settings = _settings(loop, policy, number)
    there = read_policy(policy).hosted
    if there is None:
        rate = settings.learning_rate or _usual_rate(loop) * _SLOWER
        here = replace(settings, epochs=epochs, learning_rate=float(f"{rate:.3g}"))
        _finetune(rows, trained, str(policy), here, NOWHERE)
    else:
        hosted = _hosted(loop, there, left(loop, trained))
        _finetune(rows, trained, _base(there), _whole_epochs(settings), hosted)


def rehearse(loop: Loop) -> None:
    """Check all that a host is going to be told, and send nothing. Raises ConfigError and DataError."""
    there = read_policy(loop.start).hosted
    assert there is not None
    hosted = replace(_hosted(loop, there, loop.settings.hosted.max_spend), dry_run=True)
    settings = _whole_epochs(_settings(loop, loop.start, 1))
    _finetune(loop.scored, loop.out / "policy", _base(there), settings, hosted)


def _finetune(rows: Path, output: Path, model: str, settings: FinetuneSettings, hosted: HostedSettings) -> None:
    with console.silenced():
        finetune(rows, output, model, settings, hosted)


def _settings(loop: Loop, policy: Path, number: int) -> FinetuneSettings:
    """Return the settings of the rounds' training with what a round decides: the scales to keep, and the seed."""
    seed = (loop.seed + number) % 2**32
    return replace(loop.settings.training, rewards=loop.rewards, like=str(policy), seed=seed)


def _whole_epochs(settings: FinetuneSettings) -> FinetuneSettings:
    return replace(settings, epochs=settings.epochs or 1.0)


def _usual_rate(loop: Loop) -> float:
    plan = loop.policy.training.get("plan", {})
    if "rate" not in plan:
        raise ConfigError(f"{loop.start}: its card does not say how fast it learnt; name a --learning-rate")
    return float(plan["rate"])


def _base(there: RemoteModel) -> str:
    """Return the name of a host's base that goes on from what the host trained before."""
    return PREFIX + (there.trained or there.model)


def _hosted(loop: Loop, there: RemoteModel, most: float) -> HostedSettings:
    """Return the settings of a job at the policy's host that comes to no more than `most`."""
    given = loop.settings.hosted
    return replace(given, host=given.host or there.host, base_url=there.base_url, max_spend=most)


def spent(loop: Loop, but: Path | None = None) -> float:
    """Return about what the jobs came to that are done, those of all controls, but for that of one policy."""
    policy_files = {*loop.out.glob(f"round-*/policy/{FILE}"), *loop.out.glob(f"*/round-*/policy/{FILE}")}
    return loop.settings.hosted.price / _MILLION * _tokens(policy_files - {but / FILE} if but else policy_files)


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
