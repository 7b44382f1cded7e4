"""A plot module, a drawn plot, and everything that the input files hold."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from irlhf.core.example import Example


class Plot(Protocol):
    """A module that draws one kind of picture. Adding one is a file and a row in the registry."""

    CAPTION: str  # what the picture shows, in one line

    def wants(self, path: Path, first: dict[str, Any]) -> bool:
        """Return whether a file, by its first object, may hold something to draw."""

    def draw(self, path: Path) -> list[tuple[str, Any]]:
        """Return matplotlib figures with the names they are saved under; none where nothing was measured."""


@dataclass(frozen=True)
class DrawnPlot:
    """A picture and what it shows."""

    figure: Any
    caption: str

    def rendered(self, kind: str) -> bytes:
        """Return the picture as a file of a kind."""
        from irlhf.plotting.style import rendered

        return rendered(self.figure, kind)

    @cached_property
    def png(self) -> bytes:
        """The picture as the report embeds it, rendered once."""
        return self.rendered("png")


@dataclass(frozen=True)
class PlotData:
    """What the files hold between them."""

    pictures: dict[str, DrawnPlot] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the path of the file
    samples: list[Example] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)  # path: sha256
