"""Settings of `irlhf rounds`."""

from dataclasses import asdict, dataclass
from typing import Any

from irlhf.training.hosted.settings import NOWHERE, HostedSettings
from irlhf.training.settings import FinetuneSettings

_USUAL = FinetuneSettings()


@dataclass(frozen=True)
class RoundsSettings:
    """How a policy goes on learning from its own samples.

    Each of `rounds` asks `prompts` prompts of the training split for rewards, `samples` times each; `ask` says for
    which: `uniform` anywhere, `data` what training rows have, `high` what the better of them have, `weighted` the mix
    that rewards.yaml weighs, `past` more than the last round brought. `keep` are rules of `score --keep` that choose
    what is trained on. `replay` is the share of offline rows in what is trained on, in [0, 1). `watch` prompts of the
    validation split are asked the same after every round. With `controls` they run beside what they are held against;
    `fresh` are scored rows that no policy has seen, as many scorer calls for the offline control. `training` is how
    each round trains, at a host with `hosted`: epochs are those of a round that keeps all of its samples (0 is 1).
    """

    rounds: int
    prompts: int = 128
    samples: int = 8
    ask: str = "weighted"
    keep: str = "distinct"
    replay: float = 0.5
    max_tokens: int = 128
    watch: int = 64
    controls: bool = False
    fresh: str = ""
    training: FinetuneSettings = _USUAL
    hosted: HostedSettings = NOWHERE

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides what the rounds are."""
        return {name: value for name, value in asdict(self).items() if name != "hosted"}
