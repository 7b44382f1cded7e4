"""Train the policy of a round, locally or hosted."""

from dataclasses import replace
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.io.files import read_json
from irlhf.policy.policy_file import FILE, read_policy
from irlhf.policy.remote_model import RemoteModel
from irlhf.rounds.types import Loop
from irlhf.training.finetune import finetune
from irlhf.training.hosted.settings import NOWHERE, PREFIX, HostedSettings
from irlhf.training.settings import FinetuneSettings

_RATE_FACTOR = 1 / 3  # factor of the learning rate of the first policy
_MILLION = 1e6


def train_round(loop: Loop, policy: Path, folder: Path, number: int, epochs: float) -> None:
    """Train the policy of a round, starting from `policy` and keeping its scales."""
    rows, trained = folder / "train.jsonl", folder / "policy"
    settings = _settings(loop, policy, number)
    remote = read_policy(policy).hosted
    if remote is None:
        rate = settings.learning_rate or _first_rate(loop) * _RATE_FACTOR
        local = replace(settings, epochs=epochs, learning_rate=float(f"{rate:.3g}"))
        _finetune(rows, trained, str(policy), local, NOWHERE)
    else:
        hosted = _hosted(loop, remote, left(loop, trained))
        _finetune(rows, trained, _base(remote), _whole_epochs(settings), hosted)


def rehearse(loop: Loop) -> None:
    """Check the settings of the hosted jobs without sending a request. Raises ConfigError and DataError."""
    remote = read_policy(loop.start).hosted
    assert remote is not None
    # All known rows cost more than those of a round, so the limit does not apply to them.
    most = 0.0 if loop.settings.hosted.price else loop.settings.hosted.max_spend
    hosted = replace(_hosted(loop, remote, most), dry_run=True)
    settings = _whole_epochs(_settings(loop, loop.start, 1))
    _finetune(loop.scored, loop.out / "policy", _base(remote), settings, hosted)


def _finetune(rows: Path, output: Path, model: str, settings: FinetuneSettings, hosted: HostedSettings) -> None:
    with console.silenced():
        finetune(rows, output, model, settings, hosted)


def _settings(loop: Loop, policy: Path, number: int) -> FinetuneSettings:
    """Return the training settings of a round, with the policy whose scales are kept and the seed."""
    seed = (loop.seed + number) % 2**32
    return replace(loop.settings.training, rewards=loop.rewards, like=str(policy), seed=seed)


def _whole_epochs(settings: FinetuneSettings) -> FinetuneSettings:
    return replace(settings, epochs=settings.epochs or 1.0)


def _first_rate(loop: Loop) -> float:
    plan = loop.policy.training.get("plan", {})
    if "rate" not in plan:
        raise ConfigError(f"{loop.start}: its policy.json has no learning rate; set --learning-rate")
    return float(plan["rate"])


def _base(remote: RemoteModel) -> str:
    """Return the model name that continues training from a hosted model."""
    return PREFIX + (remote.trained or remote.model)


def _hosted(loop: Loop, remote: RemoteModel, most: float) -> HostedSettings:
    """Return the settings of a job at the provider of the policy that costs at most `most`."""
    hosted = loop.settings.hosted
    return replace(hosted, host=hosted.host or remote.host, base_url=remote.base_url, max_spend=most)


def spent(loop: Loop, but: Path | None = None) -> float:
    """Return the approximate cost of all finished jobs, except that of the policy `but`."""
    policy_files = [path for path in loop.out.glob(f"round-*/policy/{FILE}") if path.parent != but]
    tokens = sum(float(read_json(path)["training"]["estimated tokens"]) for path in policy_files)
    return loop.settings.hosted.price / _MILLION * tokens


def left(loop: Loop, trained: Path) -> float:
    """Return the rest of --max-spend after the other jobs; 0 is no limit. Raises ConfigError if nothing is left."""
    most = loop.settings.hosted.max_spend
    used = spent(loop, trained) if most else 0.0
    if most and used >= most:
        spending = f"about {used:,.2f} is spent, which exhausts --max-spend {most:,.2f}"
        raise ConfigError(f"{spending}; raise it to continue")
    return most - used
