"""Settings of `irlhf plot`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PlotSettings:
    """How pictures are written, and where the report goes (empty: beside them)."""

    format: Literal["png", "svg", "pdf"] = "png"
    report: str = ""
