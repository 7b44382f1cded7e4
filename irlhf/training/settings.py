"""Settings of policy training, and its objectives: likelihood, contrast over targets, reward-augmented DPO.

All three objectives use log p(c | x, r), the log probability of a completion c given a prompt x with targets r.
"""

from dataclasses import dataclass

from irlhf.core.errors import ConfigError

BUCKETED, SHARED = "bucketed", "shared"  # batch layouts, see irlhf/training/batching.py
_MOST_ALTERNATIVES = 64  # per completion; all are computed in the same step
OBJECTIVES = LIKELIHOOD, CONTRAST, RA_DPO = ("likelihood", "contrast", "ra-dpo")


@dataclass(frozen=True)
class Objective:
    """The training objective.

    likelihood  -log p(c | x, r), the mean over completion tokens
    contrast    the same, plus `weight` times the cross-entropy of a completion's own target among that target and
                `alternatives` targets that it does not satisfy; the logits are the log probabilities of the completion
                under each target. With one alternative, its value at chance is ln 2. It gives a lower bound of the
                mutual information between target and completion (van den Oord et al. 2018, arXiv 1807.03748). An
                alternative is the target of another row. After the share `whole_targets` of the steps, with
                probability `one_reward`, an alternative differs in one reward only, so that each reward is learned
                separately.
    ra-dpo      DPO (Rafailov et al. 2023, arXiv 2305.18290) on each pair twice: each completion is preferred under
                its own target (Zhang et al. 2024, arXiv 2410.08067). `beta` is DPO's beta.
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
            raise ConfigError(f"one-reward is {self.one_reward}; it must be a probability from 0 to 1")
        if not 0 <= self.whole_targets <= 1:
            raise ConfigError(f"whole-targets is {self.whole_targets}; it must be a share of the training from 0 to 1")
        if not 1 <= self.alternatives <= _MOST_ALTERNATIVES:
            raise ConfigError(f"alternatives is {self.alternatives}; it must be from 1 to {_MOST_ALTERNATIVES}")
        if self.weight < 0:
            raise ConfigError(f"the weight of the contrast is {self.weight}; it must be at least 0")

    @property
    def compares(self) -> bool:
        """Whether the loss compares the members of a family."""
        return self.name != LIKELIHOOD


DEFAULT_OBJECTIVE = Objective()
COMPLETE = "COMPLETE"  # written last into a checkpoint; a checkpoint without it is incomplete
CHECKPOINTS = f"checkpoint-*/{COMPLETE}"


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of policy training. 0 selects a value that fits the base model; the value is reported.

    `batch` is in rows per step, computed in `accumulate` parts to save memory. `context` is in tokens. `drop` is the
    probability in [0, 1) of omitting a reward line of a training row, so that any subset of the rewards can be
    requested; `drop_all` is the probability of omitting all lines. `lora` is the rank of a LoRA adapter (Hu et al.
    2021, arXiv 2106.09685); 0 trains all weights. `merge` merges the adapter into the weights at the end; otherwise
    the folder holds the adapter alone. `drop_cut` leaves out completions that were cut off by the limit on new tokens;
    otherwise they are trained without an end of turn. `report_to` is a tracker known to transformers. `like` is a
    policy folder whose scales and template are reused, for example to continue training from it.
    """

    rewards: str = ""  # path of a rewards.yaml
    template: str = ""  # name or YAML file; empty: `reward-end`, or `instruction` for the baseline `prompted`
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
    drop_cut: bool = False
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
        """The objective with its settings."""
        return Objective(
            name=self.objective,
            weight=self.contrast_weight,
            alternatives=self.alternatives,
            one_reward=self.one_reward,
            whole_targets=self.whole_targets,
            beta=self.beta,
        )


@dataclass(frozen=True)
class RewardModelSettings:
    """Settings of reward model training. 0 selects a value that fits the base model; the value is reported.

    With `reward`, the model learns the ratings of that name instead of pairs. `batch` is in pairs or ratings per step,
    computed in `accumulate` parts to save memory. `context` is in tokens, prompt and completion together. `half` (proxy
    or gold) trains on one of two disjoint halves of the conversations, so that two reward models share no data.
    `report_to` is a tracker known to transformers. For `precision` see irlhf/models/precision.py.
    """

    epochs: float = 0.0
    learning_rate: float = 0.0
    batch: int = 16
    context: int = 0
    seed: int = 0
    limit: int = 0
    accumulate: int = 1
    half: str = ""
    reward: str = ""
    report_to: str = "none"
    precision: str = "auto"
