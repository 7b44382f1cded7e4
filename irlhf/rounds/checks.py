"""Check all inputs before the first round, so that no samples are drawn or paid for in vain."""

from collections.abc import Mapping
from pathlib import Path

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.registry import did_you_mean
from irlhf.io.files import STREAM, TEMPORARY, check_output
from irlhf.io.manifest import manifest_path
from irlhf.policy.policy_file import Policy
from irlhf.policy.remote_model import RemoteModel
from irlhf.policy.rewards_file import Rewards
from irlhf.rounds.round_targets import ASKS
from irlhf.rounds.settings import RoundsSettings
from irlhf.scoring.filters import GUARDS, parse_rules
from irlhf.scoring.runner import scorer_groups
from irlhf.training.hosted.settings import NOWHERE, HostedSettings, check_there, refuse_hosted
from irlhf.training.settings import FinetuneSettings
from irlhf.training.training_set import check_same

# Settings of a single hosted job that do not apply to rounds.
_SINGLE_JOB_ONLY: Mapping[str, str] = {"dry_run": "--dry-run", "wait": "--no-wait"}


def check_settings(model: str, settings: RoundsSettings) -> None:
    """Raise ConfigError for invalid settings."""
    training = settings.training
    if console.PROCESSES > 1:
        raise ConfigError("rounds run in one process; run irlhf without torchrun")
    if not training.rewards:
        raise ConfigError("missing rewards.yaml; add -r with the scorers of every round")
    if not (Path(model) / "policy.json").is_file():
        command = "irlhf finetune SCORED -r rewards.yaml -o policy"
        raise ConfigError(f"--model {model}: rounds start from a policy folder; train one first ({command})")
    for flag, value in (
        ("--template", training.template),
        ("--baseline", training.baseline),
        ("--keep-scales-of", training.like),
    ):
        if value:
            raise ConfigError(f"{flag} {value}: rounds reuse the setting of the policy; remove {flag}")
    if training.limit:
        raise ConfigError("--limit: rounds use --prompts instead; remove --limit")
    _ = training.objective_settings  # raises for an invalid objective
    if settings.ask not in ASKS:
        raise ConfigError(f"unknown --request '{settings.ask}'{did_you_mean(settings.ask, ASKS)}")
    if not 0 <= settings.replay < 1:
        raise ConfigError(f"--replay {settings.replay}: it must be a share from 0 to below 1")
    if settings.keep in ("best", "nearest"):
        problem = "this keeps one sample per prompt; rounds need rules, such as front or top=0.5"
        raise ConfigError(f"--keep {settings.keep}: {problem}")
    parse_rules(settings.keep)


def check_policy(model: str, policy: Policy, settings: RoundsSettings) -> None:
    """Raise ConfigError for a policy that cannot be trained in rounds."""
    if policy.ranked:
        raise ConfigError(
            f"{model}: {', '.join(policy.ranked)} has scale within, which ranks the samples of one round, so rounds"
            " cannot be compared; train the policy with scale quantile"
        )
    if policy.blind:
        raise ConfigError(
            f"{model}: this policy was trained without reward lines and does not follow targets; use another policy"
        )
    if policy.hosted is None:
        refuse_hosted(settings.hosted)
    else:
        _check_hosted(policy.hosted, settings)


def check_rewards(named: Rewards, policy: Policy, settings: RoundsSettings) -> None:
    """Raise ConfigError if new samples cannot be scored, or if the rewards differ from those of the policy."""
    file = settings.training.rewards
    check_same(policy, named, who=f"{file}: the policy", fix="use the same rewards")
    for section in (named.rewards, named.gold):
        for name, reward in section.items():
            if reward.column:
                problem = f"new samples have no column {reward.column}"
                learn = f"`irlhf reward-model RATED --reward {reward.column}` learns one from the ratings"
                raise ConfigError(f"{file}: {name}: {problem}; use a scorer: {learn}")
        scorer_groups(section, Path(file).parent.resolve())


def check_folder(out: Path, inputs: Mapping[str, Path]) -> None:
    """Raise ConfigError or OutputError for an invalid output folder."""
    if out == STREAM:
        raise ConfigError("the output of rounds is a folder and cannot go to stdout; choose an output with -o")
    if STREAM in inputs.values():
        raise ConfigError("rounds read their rows more than once and cannot use stdin; use a file")
    check_output(out, inputs)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file, but the output of rounds is a folder; choose another output")


def check_ours(rounds: Path) -> None:
    """Raise ConfigError if the output folder holds other files than those of (interrupted) rounds."""
    out = rounds.parent
    if not out.is_dir() or manifest_path(rounds).exists():
        return
    if any(not path.name.startswith((TEMPORARY, rounds.name)) for path in out.iterdir()):
        raise ConfigError(f"{out} holds files that are not from rounds; choose another output, or move the folder")


def _check_hosted(remote: RemoteModel, settings: RoundsSettings) -> None:
    hosted = settings.hosted
    for name, flag in _SINGLE_JOB_ONLY.items():
        if getattr(hosted, name) != getattr(NOWHERE, name):
            raise ConfigError(f"{flag} applies to a single job, and rounds wait for every job; remove {flag}")
    if hosted.base_url.rstrip("/") not in ("", remote.base_url):
        raise ConfigError(f"--base-url: the rounds use the URL of the policy, {remote.base_url}; remove --base-url")
    check_there(settings.training, FinetuneSettings())
    for rule in parse_rules(settings.keep):
        if rule.name in GUARDS:
            problem = "hosted policies return neither the entropy nor the KL of a sample"
            raise ConfigError(f"--keep {rule}: {problem}; use other rules, such as distinct,front")
    _check_payment(remote, hosted)


def _check_payment(remote: RemoteModel, hosted: HostedSettings) -> None:
    from irlhf.training.hosted.run import at_a_terminal

    if not hosted.yes and not at_a_terminal():
        raise ConfigError(f"every round pays {remote.base_url} for a job and for samples; confirm with --yes")
