"""Settings of `irlhf rounds`."""

from dataclasses import asdict, dataclass
from typing import Any

from irlhf.training.hosted.settings import NOWHERE, HostedSettings
from irlhf.training.settings import FinetuneSettings

_DEFAULT_TRAINING = FinetuneSettings()


@dataclass(frozen=True)
class RoundsSettings:
    """Settings of training a policy on its own samples.

    Each of `rounds` draws `samples` samples of `prompts` training prompts. `ask` selects the targets: `uniform` on the
    scale, `data` those of training rows, `high` those of the better training rows, `weighted` the best by the weights
    of rewards.yaml, `past` above the rewards of the last round. `keep` holds rules of `score --keep` that select the
    training samples. `replay` is the share of offline rows in the training data, in [0, 1). `watch` is the number of
    validation prompts measured after every round. `training` holds the settings of each training, `hosted` those of
    hosted training; epochs refer to a round that keeps all samples (0 means 1).
    """

    rounds: int
    prompts: int = 128
    samples: int = 8
    ask: str = "weighted"
    keep: str = "distinct"
    replay: float = 0.5
    max_tokens: int = 128
    watch: int = 64
    training: FinetuneSettings = _DEFAULT_TRAINING
    hosted: HostedSettings = NOWHERE

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that determine the result, as JSON."""
        return {name: value for name, value in asdict(self).items() if name != "hosted"}
