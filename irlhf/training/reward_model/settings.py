"""Settings of reward model training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RewardModelSettings:
    """How a reward model is trained. What is 0 is chosen to fit the base, and said.

    `batch` is in pairs a step, computed in `accumulate` parts to spare memory; `context` is in tokens, prompt and
    completion together. `half`, proxy or gold, trains on one of two halves of the conversations, which share none, so
    that two reward models never saw the same data. `report_to` names a tracker that transformers knows. `precision` is
    the arithmetic of training, see irlhf/models/precision.py.
    """

    epochs: float = 0.0
    learning_rate: float = 0.0
    batch: int = 16
    context: int = 0
    seed: int = 0
    limit: int = 0
    accumulate: int = 1
    half: str = ""
    report_to: str = "none"
    precision: str = "auto"
