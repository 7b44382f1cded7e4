"""Draw the pictures: what the rewards are, how training and its rounds went, whether the policy gave what was asked."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import from_json
from irlhf.core.registry import PICTURES, resolve
from irlhf.io.files import STREAM, check_output, digest, read_json, read_rows, whole_file
from irlhf.plotting import eval_file, rounds_file
from irlhf.plotting.result_file import sound
from irlhf.plotting.settings import PlotSettings
from irlhf.plotting.types import DrawnPlot, Plot, PlotData
from irlhf.policy.policy_file import FILE, METRICS

REPORT = "report.html"


def plot(sources: Sequence[str | Path], output: str | Path, settings: PlotSettings = PlotSettings()) -> dict[str, Any]:
    """Draw every picture that the files allow into the folder `output`, write report.html, return the paths.

    Reads eval.json (tracking, gold, cross-talk, trade-off, price, comparisons, preference pairs), rounds.json (what
    became of a policy round after round), scored rows (distributions and correlations; samples go into the report's
    browser) and policy folders (training curves).
    Raises DataError for a file without a picture.
    """
    folder = Path(output)
    page = Path(settings.report) if settings.report else folder / REPORT
    if folder == STREAM or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder}: pictures go into a folder; name one with -o")
    check_output(folder, {})
    data = PlotData()
    from irlhf.plotting.report import report
    from irlhf.plotting.style import look

    with look():
        for source in sources:
            _read(Path(source), data)
        with sound(data.evaluations):
            text = report(data)
        folder.mkdir(exist_ok=True)
        for name, drawn in data.pictures.items():
            with whole_file(folder / f"{name}.{settings.format}") as temporary:
                temporary.write_bytes(drawn.png if settings.format == "png" else drawn.rendered(settings.format))
    with whole_file(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    pictures = [str(folder / f"{name}.{settings.format}") for name in data.pictures]
    return {"output": str(folder), "pictures": pictures, "report": str(page)}


def _read(source: Path, data: PlotData) -> None:
    path = _metrics(source) if source.is_dir() else source
    first = _first_row(path)
    data.sources[str(path)] = digest(path)
    is_evaluation = eval_file.holds(first)
    if is_evaluation:
        data.evaluations[str(path)] = eval_file.read(path)
    if "policy" in first and "completion" in first:
        data.samples.extend(from_json(row, where) for where, row in read_rows(path))
        return  # samples are read, not drawn: their rewards are what was asked, not what the data holds
    with sound([path]) if is_evaluation or rounds_file.holds(first) else contextlib.nullcontext():
        drawn = _draw(path, first)
    if not drawn and not is_evaluation:
        raise DataError(
            f"{path}: nothing to draw; plot reads eval.json, rounds.json, scored rows, samples, policy folders"
        )
    for name, picture in drawn.items():
        # The second file of a kind must not take the first one's name.
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        data.pictures[next(free_name for free_name in names if free_name not in data.pictures)] = picture


def _metrics(folder: Path) -> Path:
    """Return where a policy's training curve stands. Raises ConfigError where there is none."""
    path = folder / METRICS
    if path.is_file():
        return path
    if (folder / FILE).is_file():
        raise ConfigError(f"{folder}: nothing was trained in it (`--baseline untouched`), so no curve; leave it out")
    raise ConfigError(f"{folder} is not a policy's folder; name files, or folders that `irlhf finetune` wrote")


def _draw(path: Path, first: dict[str, Any]) -> dict[str, DrawnPlot]:
    kinds: list[Plot] = [resolve(door) for door in PICTURES.values()]
    wanted = [kind for kind in kinds if kind.wants(path, first)]
    return {name: DrawnPlot(figure, kind.CAPTION) for kind in wanted for name, figure in kind.draw(path)}


def _first_row(path: Path) -> dict[str, Any]:
    if path == STREAM:
        raise ConfigError("plot reads files, not a stream")
    if path.suffix == ".json":
        with contextlib.suppress(DataError):  # then it is a file of rows, or read_rows says what is wrong
            content = read_json(path)
            if eval_file.holds(content) or rounds_file.holds(content):
                return content
    return next(row for _, row in read_rows(path))
