"""A plot module, a drawn plot, and the data of one `plot` run."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from irlhf.core.example import Example
from irlhf.plotting.inputs import Evaluation
from irlhf.policy.policy_file import Policy

_PIXELS = 78  # per inch of a figure: the plots' 12 points are then 13 pixels


class Plot(Protocol):
    """A module that draws one plot."""

    INPUT: Literal["evaluation", "rounds", "rewards", "training"]  # the field of PlotInput that `draw` takes
    CAPTION: str  # one line

    def draw(self, data: Any) -> Any:
        """Return a matplotlib figure, or None if the data has nothing to draw."""


@dataclass(frozen=True)
class DrawnPlot:
    """A matplotlib figure and its caption."""

    figure: Any
    caption: str

    def rendered(self, kind: str) -> bytes:
        """Return the figure as a png, svg or pdf file."""
        from irlhf.plotting.style import rendered

        return rendered(self.figure, kind)

    @property
    def width(self) -> int:
        """The width in the report, in pixels, so that all figures have type of one size."""
        return round(_PIXELS * float(self.figure.get_size_inches()[0]))

    @cached_property
    def png(self) -> bytes:
        """The figure as embedded in the report, rendered once."""
        return self.rendered("png")


@dataclass(frozen=True)
class PlotData:
    """The plots of all input files, and the data that the report shows."""

    pictures: dict[str, DrawnPlot] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)  # by path
    samples: list[Example] = field(default_factory=list)
    policies: dict[str, Policy] = field(default_factory=dict)  # of the samples, by digest
    sources: dict[str, str] = field(default_factory=dict)  # sha256 by path
