"""Settings of `irlhf plot`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PlotSettings:
    """The file type of plots, and the path of the report (empty: beside the plots)."""

    format: Literal["png", "svg", "pdf"] = "png"
    report: str = ""
