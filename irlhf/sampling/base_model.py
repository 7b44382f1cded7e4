"""Sample a base model: a policy without rewards, whose prompts are not changed."""

import hashlib
from pathlib import Path

from irlhf.core.errors import ConfigError
from irlhf.io.resumable import digest_of
from irlhf.policy.policy_file import FILE, TINY, Policy
from irlhf.policy.templates import PLAIN, find_template
from irlhf.sampling.settings import SampleSettings

_DIGITS = 12  # of a digest, as for policies


def is_policy(folder: Path) -> bool:
    """Return whether a folder has a policy.json; otherwise it is a base model or a name on the hub."""
    return (folder / FILE).is_file()


def read_base(name: str, settings: SampleSettings) -> Policy:
    """Return the base model in a folder or on the hub as a policy without rewards.

    Its digest is that of the folder's files, or the commit on the hub. Raises ConfigError if there is no model, or if
    the settings request rewards.
    """
    from irlhf.models.description import describe

    if name == TINY and not Path(name).is_dir():
        raise ConfigError(f"{TINY} has random weights, so its samples are meaningless; use a pretrained base")
    _check(name, settings)
    model = describe(name)
    unversioned = hashlib.sha256(name.encode()).hexdigest()
    version = digest_of(Path(name)) if Path(name).is_dir() else model.commit or unversioned
    return Policy(
        base=name,
        template=find_template(PLAIN),
        rewards=(),
        reservoir=(),
        context=model.context,
        digest=version[:_DIGITS],
    )


def _check(name: str, settings: SampleSettings) -> None:
    """Raise ConfigError for options that need rewards."""
    given = {
        "--target": bool(settings.target),
        "--weights": bool(settings.weights),
        "--mix-from": bool(settings.pick),
        "--no-clamp": settings.raw,
        "--guidance": settings.guidance != 1,
        "--against": settings.against != "none",
    }
    if invalid := [option for option, is_set in given.items() if is_set]:
        why = f"without a {FILE}, this is a base model, which has no rewards"
        fix = f"remove {', '.join(invalid)}, or use a folder written by `irlhf finetune`"
        raise ConfigError(f"{name}: {why}; {fix}")
