"""What is looked at before the first round, so that nothing is drawn, or paid for, that cannot be used."""

from collections.abc import Mapping
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.registry import did_you_mean
from irlhf.io.files import STREAM, TEMPORARY, check_output
from irlhf.io.resumable import beside
from irlhf.policy.policy_file import Policy
from irlhf.policy.remote_model import RemoteModel
from irlhf.policy.rewards_file import Rewards
from irlhf.rounds.arms import check_keep
from irlhf.rounds.round_targets import ASKS
from irlhf.rounds.settings import RoundsSettings
from irlhf.scoring.filters import GUARDS, parse_rules
from irlhf.scoring.runner import scorer_groups
from irlhf.training.hosted.settings import NOWHERE, HostedSettings, check_there, refuse_hosted
from irlhf.training.settings import FinetuneSettings
from irlhf.training.training_set import check_same

# Of the settings of one job, what means nothing to many.
_IDLE: Mapping[str, str] = {"dry_run": "--dry-run", "wait": "--no-wait"}


def check_settings(model: str, settings: RoundsSettings) -> None:
    """Raise ConfigError for what was asked for and cannot be."""
    training = settings.training
    if console.PROCESSES > 1:
        raise ConfigError("rounds are run by one process; start irlhf without torchrun")
    if not training.rewards:
        raise ConfigError("name the rewards.yaml whose scorers are asked in every round, with -r")
    if not (Path(model) / "policy.json").is_file():
        made = "irlhf finetune SCORED -r rewards.yaml -o policy"
        raise ConfigError(f"--model {model}: rounds go on from a policy; make one first ({made}), then name its folder")
    for flag, value in (
        ("--template", training.template),
        ("--baseline", training.baseline),
        ("--keep-scales-of", training.like),
    ):
        if value:
            raise ConfigError(f"{flag} {value}: rounds keep what the policy was trained with; leave it out")
    if training.limit:
        raise ConfigError("--limit: rounds take --prompts of the rows; leave it out")
    _ = training.objective_settings  # raises for an objective, or a setting of it, that cannot be
    if settings.ask not in ASKS:
        raise ConfigError(f"unknown --request '{settings.ask}'{did_you_mean(settings.ask, ASKS)}")
    if not 0 <= settings.replay < 1:
        raise ConfigError(f"--replay {settings.replay}: write a share from 0 to below 1")
    check_keep(settings.keep)


def check_policy(model: str, policy: Policy, settings: RoundsSettings) -> None:
    """Raise ConfigError for a policy that cannot go on so."""
    if policy.ranked:
        raise ConfigError(
            f"{model}: {', '.join(policy.ranked)} has scale within, on which a number is a rank among the samples of"
            " one round, so rounds cannot build on each other; train with scale quantile"
        )
    if policy.blind:
        raise ConfigError(f"{model}: a policy whose prompts hold no reward cannot be asked for one; train another")
    if policy.hosted is None:
        refuse_hosted(settings.hosted)
    else:
        _check_hosted(policy.hosted, settings)


def check_rewards(named: Rewards, policy: Policy, settings: RoundsSettings) -> None:
    """Raise ConfigError where new samples cannot be scored, or not by what the policy knows."""
    file = settings.training.rewards
    check_same(policy, named, (f"{file}: the policy", "name the same"))
    for section in (named.rewards, named.gold):
        for name, reward in section.items():
            if reward.column:
                problem = f"the column {reward.column} is in the data alone, and new samples have none"
                raise ConfigError(f"{file}: {name}: {problem}; name a scorer")
        scorer_groups(section, Path(file).parent.resolve())


def check_folder(out: Path, inputs: Mapping[str, Path]) -> None:
    """Raise ConfigError, or OutputError, for a folder that rounds cannot fill."""
    if out == STREAM:
        raise ConfigError("rounds are a folder; name it with -o")
    if STREAM in inputs.values():
        raise ConfigError("rounds read their rows more than once; name a file, not -")
    check_output(out, inputs)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file, and rounds fill a folder; name another output")


def check_ours(rounds: Path) -> None:
    """Raise ConfigError for a folder that holds what no rounds left, but for what a kill at their start leaves."""
    out = rounds.parent
    if not out.is_dir() or beside(rounds, ".run.json").exists():
        return
    if any(not path.name.startswith((TEMPORARY, rounds.name)) for path in out.iterdir()):
        raise ConfigError(f"{out} holds files that no rounds wrote; name another output or move it away")


def _check_hosted(there: RemoteModel, settings: RoundsSettings) -> None:
    given = settings.hosted
    for name, flag in _IDLE.items():
        if getattr(given, name) != getattr(NOWHERE, name):
            raise ConfigError(f"{flag} is for one job, and rounds need what each of them trains; leave it out")
    if given.base_url.rstrip("/") not in ("", there.base_url):
        raise ConfigError(f"--base-url: the policy lives at {there.base_url}, and so do its rounds; leave it out")
    check_there(settings.training, FinetuneSettings())
    for rule in parse_rules(settings.keep):
        if rule.name in GUARDS:
            problem = "a host tells neither a sample's entropy nor what another model makes of it"
            raise ConfigError(f"--keep {rule}: {problem}; take other rules, such as distinct,front")
    _check_paid(there, given)


def _check_paid(there: RemoteModel, given: HostedSettings) -> None:
    from irlhf.training.hosted.run import at_a_terminal

    if not given.yes and not at_a_terminal():
        raise ConfigError(f"every round pays {there.base_url} for a job and for samples; --yes agrees to that")
