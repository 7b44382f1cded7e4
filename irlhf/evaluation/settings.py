"""Settings of `irlhf eval`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvalSettings:
    """Policies of the samples, tolerance, bootstrap, calibration, and rewards of preference pairs."""

    policies: tuple[str, ...] = ()  # folders; empty: those beside the samples
    tolerance: float = 0.1  # in scale units: largest distance between target and actual that is a success
    resamples: int = 1000
    seed: int = 0
    calibrate: str = ""  # folder of a policy to calibrate
    rewards: str = ""  # a rewards.yaml with the direction of each reward of preference pairs
