"""What a policy is trained for: likelihood, contrast over targets, reward-augmented DPO.

All three read the log probabilities log p(c | x, r) of whole completions c behind prompts x with targets r.
"""

from dataclasses import dataclass

from irlhf.core.errors import ConfigError

BUCKETED, SHARED = "bucketed", "shared"  # how rows become batches, see irlhf/training/batching.py
_MOST_ALTERNATIVES = 64  # of one completion, whose losses share a step
OBJECTIVES = LIKELIHOOD, CONTRAST, RA_DPO = ("likelihood", "contrast", "ra-dpo")


@dataclass(frozen=True)
class Objective:
    """What a policy is trained to do with the rewards in its prompt.

    likelihood  -log p(c | x, r), the mean over completion tokens
    contrast    the same, plus `weight` times the cross-entropy of a completion's own target among itself and
                `alternatives` targets that it does not have, the summed log probabilities under each as logits. With
                one alternative its value at chance is ln 2. It bounds the mutual information between target and
                completion from below (van den Oord et al. 2018, arXiv 1807.03748). An alternative is another row's
                target. After the first `whole_targets` of the training, with probability `one_reward` only one of
                its rewards is another's, so that each reward is learnt on its own.
    ra-dpo      DPO (Rafailov et al. 2023, arXiv 2305.18290) on each pair twice, each completion preferred under its
                own target (Zhang et al. 2024, arXiv 2410.08067); `beta` is the strength of the tie to the base model
    """

    name: str = LIKELIHOOD
    weight: float = 1.0
    alternatives: int = 1
    one_reward: float = 0.5  # in [0, 1]
    whole_targets: float = 0.5  # share of the steps, in [0, 1]
    beta: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise ConfigError(f"unknown objective '{self.name}'; choose from {', '.join(OBJECTIVES)}")
        if not 0 <= self.one_reward <= 1:
            raise ConfigError(f"one-reward is {self.one_reward}; it is a probability, from 0 to 1")
        if not 0 <= self.whole_targets <= 1:
            raise ConfigError(f"whole-targets is {self.whole_targets}; it is a share of the training, from 0 to 1")
        if not 1 <= self.alternatives <= _MOST_ALTERNATIVES:
            raise ConfigError(f"alternatives is {self.alternatives}; a contrast needs at least 1, at most 64")
        if self.weight < 0:
            raise ConfigError(f"the weight of the contrast is {self.weight}; it is at least 0")

    @property
    def compares(self) -> bool:
        """Whether its loss compares the members of a family."""
        return self.name != LIKELIHOOD


DEFAULT_OBJECTIVE = Objective()


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
    template: str = ""  # a name or a YAML; empty: `reward-end`, or `instruction` for the baseline `prompted`
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
