"""Settings of `irlhf prepare`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class PrepareSettings:
    """How raw data is read and split. Shares are of prompts, in [0, 1]; what is left is the training split."""

    format: str = "auto"
    test: float = 0.1
    validation: float = 0.05
    limit: int = 0  # rows of each source; 0 is all
    on_bad_row: Literal["stop", "skip"] = "stop"
    map: Mapping[str, str] = field(default_factory=dict)  # what columns are to be called → what they are called
    drop_duplicates: bool = False  # rows whose prompt and completion stood before
    card: bool = False  # make a folder for a hub: typed rows, a file for each source, and a data card
    delimiter: str = ""  # of the cells of tables; empty: by the name and the header of each
