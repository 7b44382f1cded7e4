"""Settings of `irlhf prepare`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of reading and splitting raw data. Shares are of prompts, in [0, 1]; the rest is the training split."""

    format: str = "auto"
    test: float = 0.1
    validation: float = 0.05
    limit: int = 0  # rows per source; 0: all
    on_bad_row: Literal["stop", "skip"] = "stop"
    map: Mapping[str, str] = field(default_factory=dict)  # new column name → existing column
    drop_duplicates: bool = False  # reject rows whose prompt and completion already occurred
    card: bool = False  # write a hub folder: typed rows, one file per source, and a data card
    delimiter: str = ""  # of table cells; empty: detected from file name and header
