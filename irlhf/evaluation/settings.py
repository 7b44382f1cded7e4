"""Settings of `irlhf eval`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvalSettings:
    """Which policies the samples may come from, what counts as a hit, and how intervals are drawn."""

    policies: tuple[str, ...] = ()  # folders; empty: those that stand beside the samples
    tolerance: float = 0.1  # in scale units: an actual reward this near to its target is a success
    resamples: int = 1000
    seed: int = 0
    calibrate: str = ""  # folder of a policy that is to remember what it can reach
    rewards: str = ""  # a rewards.yaml that says which way each reward of preference pairs is better
