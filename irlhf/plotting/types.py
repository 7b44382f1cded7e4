"""A plot module, a drawn plot, and the data of one `plot` run."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from irlhf.core.example import Example
from irlhf.plotting.inputs import Evaluation


class Plot(Protocol):
    """A module that draws one plot. To add one, write the module and add a line to PICTURES."""

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
    sources: dict[str, str] = field(default_factory=dict)  # sha256 by path
