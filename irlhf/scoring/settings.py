"""Settings of `irlhf score`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ScoreSettings:
    """How rewards are asked for. With `gold` the gold scorers are asked, and `gold` is filled instead.

    `shard` ("2/8") leaves all but one part of the rows to other runs: those of the prompts whose ids fall into it.
    `cache` is the file that keeps what models and servers said; empty is replies.sqlite beside the output.
    """

    gold: bool = False
    limit: int = 0  # rows; 0 is all
    on_bad_row: Literal["stop", "skip"] = "stop"
    shard: str = ""
    cache: str = ""


BEST, NEAREST = "best", "nearest"


@dataclass(frozen=True)
class KeepSettings:
    """Which sample of a group is kept.

    best     the highest weighted reward: by `weights`, else by those the sample was asked with, else by the policy's
    nearest  the smallest mean distance between asked and actual reward, in the units of the prompt
    """

    keep: str = BEST
    weights: str = ""
    policies: tuple[str, ...] = ()  # folders; empty: those that stand beside the samples
    limit: int = 0  # rows; 0 is all


@dataclass(frozen=True)
class SelectSettings:
    """Which rules choose, and by which weights samples are compared; empty: by the policy's own."""

    rules: str
    weights: str = ""
    policies: tuple[str, ...] = ()  # folders; empty: those that stand beside the samples
    limit: int = 0  # rows; 0 is all
    seed: int = 0
