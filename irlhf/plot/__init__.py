"""Draw the pictures: what the rewards are, how training went, whether the policy gave what was asked."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from irlhf.errors import ConfigError, DataError
from irlhf.files import STREAM, check_output, parse_row, read_json, read_lines, read_rows, whole_file
from irlhf.records import Example, from_json
from irlhf.registry import PICTURES, resolve

REPORT = "report.html"


@dataclass(frozen=True)
class PlotSettings:
    """How pictures are written, and where the report goes (empty: beside them)."""

    format: Literal["png", "svg", "pdf"] = "png"
    report: str = ""


class Picture(Protocol):
    """A module that draws one kind of picture. Adding one is a file and a row in the registry."""

    def wants(self, path: Path, first: dict[str, Any]) -> bool:
        """Return whether a file, by its first object, can be drawn."""

    def draw(self, path: Path) -> list[tuple[str, Any]]:
        """Return matplotlib figures with the names they are saved under."""


@dataclass
class _Found:
    """What the files hold between them."""

    figures: dict[str, Any]
    evaluation: dict[str, Any]
    samples: list[Example]


def plot(sources: Sequence[str | Path], output: str | Path, settings: PlotSettings = PlotSettings()) -> dict[str, Any]:
    """Draw every picture that the files allow into the folder `output`, write report.html, return the paths.

    Reads eval.json (target against actual, trade-off), scored rows (distributions; samples go into the
    report's browser) and policy folders (training curves). Raises DataError for a file without a picture.
    """
    folder = Path(output)
    page = Path(settings.report) if settings.report else folder / REPORT
    if folder == STREAM or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder}: pictures go into a folder; name one with -o")
    check_output(folder, {})
    with resolve("irlhf.plot.style:look")():
        found = _Found({}, {}, [])
        for source in sources:
            _read(Path(source), found)
        folder.mkdir(exist_ok=True)
        for name, figure in found.figures.items():
            with whole_file(folder / f"{name}.{settings.format}") as temporary:
                figure.savefig(temporary, format=settings.format)
        text = resolve("irlhf.plot.report:report")(found.figures.items(), found.evaluation, found.samples)
    with whole_file(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    pictures = [str(folder / f"{name}.{settings.format}") for name in found.figures]
    return {"output": str(folder), "pictures": pictures, "report": str(page)}


def _read(source: Path, found: _Found) -> None:
    path = source / "metrics.jsonl" if source.is_dir() else source
    first = read_json(path) if path.suffix == ".json" else _first_row(path)
    if "policies" in first:
        found.evaluation = first
    if "policy" in first and "completion" in first:
        found.samples += [from_json(row, where) for where, row in read_rows(path)]
        return  # samples are read, not drawn: their rewards are what was asked, not what the data holds
    pictures: list[Picture] = [resolve(door) for door in PICTURES.values()]
    drawn = {name: figure for one in pictures if one.wants(path, first) for name, figure in one.draw(path)}
    if not drawn:
        raise DataError(f"{path}: nothing to draw; plot reads eval.json, scored rows, samples and policy folders")
    for name, figure in drawn.items():
        # The second file of a kind must not take the first one's name.
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        found.figures[next(one for one in names if one not in found.figures)] = figure


def _first_row(path: Path) -> dict[str, Any]:
    if path == STREAM:
        raise ConfigError("plot reads files, not a stream")
    where, line = next(iter(read_lines(path)))
    return parse_row(line, where)
