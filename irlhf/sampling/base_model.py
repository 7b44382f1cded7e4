"""Sample a base model: a policy that knows no rewards, whose prompts stay as they are."""

import hashlib
from pathlib import Path

from irlhf.core.errors import ConfigError
from irlhf.io.resumable import digest_of
from irlhf.policy.policy_file import FILE, TINY, Policy
from irlhf.policy.templates import PLAIN, find_template
from irlhf.sampling.settings import SampleSettings

_DIGITS = 12  # of a digest, as a policy's has


def is_policy(folder: Path) -> bool:
    """Return whether the folder holds a policy; any other is taken for a base model, as is a name on the hub."""
    return (folder / FILE).is_file()


def read_base(name: str, settings: SampleSettings) -> Policy:
    """Return the base model in a folder or on the hub as a policy without rewards.

    Its digest is that of the folder's files, or the commit on the hub. Raises ConfigError where there is no model,
    or where the settings request rewards.
    """
    from irlhf.models.description import describe

    if name == TINY and not Path(name).is_dir():
        raise ConfigError(f"{TINY} starts from random weights, so its samples say nothing; name a pretrained base")
    _check(name, settings)
    model = describe(name)
    version = digest_of(Path(name)) if Path(name).is_dir() else model.commit or _digest(name)
    return Policy(
        base=name,
        template=find_template(PLAIN),
        rewards=(),
        reservoir=(),
        context=model.context,
        digest=version[:_DIGITS],
    )


def _check(name: str, settings: SampleSettings) -> None:
    """Raise ConfigError for options that only mean something with rewards."""
    given = {
        "--target": bool(settings.target),
        "--weights": bool(settings.weights),
        "--mix-from": bool(settings.pick),
        "--no-clamp": settings.raw,
        "--guidance": settings.guidance != 1,
        "--against": settings.against != "none",
    }
    if refused := [option for option, there in given.items() if there]:
        why = f"no {FILE} there, so it is sampled as a base model, which follows no rewards"
        mend = f"leave out {', '.join(refused)}, or name the folder that `irlhf finetune` wrote"
        raise ConfigError(f"{name}: {why}; {mend}")


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
