"""Settings of reward model training."""

from dataclasses import dataclass


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
