"""Settings of `irlhf score`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ScoreSettings:
    """Settings of scoring. With `gold`, the gold scorers run and fill `gold` instead of `rewards`.

    `shard` ("2/8") selects the rows of the prompts whose ids fall into this shard. `cache` is the file with cached
    replies of models and servers; if empty, replies.sqlite in the folder of the output.
    """

    gold: bool = False
    limit: int = 0  # number of rows; 0 means all
    on_bad_row: Literal["stop", "skip"] = "stop"
    shard: str = ""
    cache: str = ""


BEST, NEAREST = "best", "nearest"


@dataclass(frozen=True)
class KeepSettings:
    """The sample of each group to keep.

    best     the highest weighted reward, by `weights`, else by the sample's weights, else by the policy's
    nearest  the smallest mean distance between target and actual reward, in the units of the prompt
    """

    keep: str = BEST
    weights: str = ""
    policies: tuple[str, ...] = ()  # folders; if empty, those beside the samples
    limit: int = 0  # number of rows; 0 means all


@dataclass(frozen=True)
class SelectSettings:
    """The rules that filter samples, and the weights of rewards (if empty, those of the policy)."""

    rules: str
    weights: str = ""
    policies: tuple[str, ...] = ()  # folders; if empty, those beside the samples
    limit: int = 0  # number of rows; 0 means all
    seed: int = 0
