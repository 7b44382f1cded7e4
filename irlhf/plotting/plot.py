"""Draw plots of rewards, training, rounds and evaluations, and write report.html."""

import contextlib
import html
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irlhf.core.errors import ConfigError
from irlhf.core.registry import PICTURES, resolve
from irlhf.io.files import STREAM, check_output, digest, whole_file
from irlhf.plotting.inputs import PlotInput, Rounds, input_file, read_input, report_damage
from irlhf.plotting.settings import PlotSettings
from irlhf.plotting.types import DrawnPlot, Plot, PlotData
from irlhf.policy.policy_file import FILE, find_policies

REPORT = "report.html"
_SOURCES = re.compile(r'<meta name="irlhf-sources" content="(?P<paths>[^"]*)">')


def plot(sources: Sequence[str | Path], output: str | Path, settings: PlotSettings = PlotSettings()) -> dict[str, Any]:
    """Draw all plots of the given files into the folder `output`, write report.html, and return the paths.

    Sources are eval.json (tracking, gold, cross-talk, trade-off, costs, comparisons, preference pairs), rounds.json
    (measurements after each round; several files side by side), scored rows (distributions and correlations), samples
    (shown in the report's browser) and policy folders (training curves). The result has the keys `output`, `pictures`
    and `report`.
    A report of files that are not among the sources is not replaced. Raises ConfigError for that and for a source that
    plot cannot read, and DataError for a file with nothing to draw.
    """
    folder = Path(output)
    page = Path(settings.report) if settings.report else folder / REPORT
    if folder == STREAM or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{folder}: plots are written to a folder; name one with -o")
    check_output(folder, {})
    data = PlotData()
    from irlhf.plotting.report import report
    from irlhf.plotting.style import look

    with look():
        runs = [run for source in sources if (run := _add(Path(source), data))]
        _check_other_report(page, sources)
        if runs:  # several runs of rounds are compared in one plot
            together = Rounds([arm for run in runs for arm in run.arms], runs[0].evaluations)
            _add_plots(PlotInput(rounds=together), [*data.sources], data)
        folders = [source for source in sources if Path(source).is_dir() and (Path(source) / FILE).is_file()]
        beside = find_policies(map(Path, data.sources)) | find_policies((), folders) if data.samples else {}
        data.policies.update({key: policy for key, (_, policy) in beside.items()})
        with report_damage(data.evaluations):
            text = report(data)
        folder.mkdir(exist_ok=True)
        for name, drawn in data.pictures.items():
            with whole_file(folder / f"{name}.{settings.format}") as temporary:
                temporary.write_bytes(drawn.png if settings.format == "png" else drawn.rendered(settings.format))
    with whole_file(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    pictures = [str(folder / f"{name}.{settings.format}") for name in data.pictures]
    return {"output": str(folder), "pictures": pictures, "report": str(page)}


def _check_other_report(page: Path, sources: Sequence[str | Path]) -> None:
    """Raise ConfigError if a page shows files that the new report would not show."""
    if not page.is_file():
        return
    recorded = _SOURCES.search(page.read_text(encoding="utf-8", errors="replace"))
    shown = json.loads(html.unescape(recorded["paths"])) if recorded else ["other files"]
    now = {input_file(Path(source)).resolve() for source in sources}
    if missing := [path for path in shown if Path(path).resolve() not in now]:
        problem = f"{page} also shows {', '.join(missing)}, which would be lost"
        raise ConfigError(f"{problem}; add them, choose another folder with -o, or delete the report")


def _add(source: Path, data: PlotData) -> Rounds | None:
    """Read one source and add its plots, its evaluation and its samples. A run of rounds is returned instead."""
    path = input_file(source)
    content = read_input(path)
    data.sources[str(path)] = digest(path)
    data.samples.extend(content.samples)
    if content.evaluation is not None:
        data.evaluations[str(path)] = content.evaluation
    if content.rounds is None:
        _add_plots(content, [path], data)
    return content.rounds


def _add_plots(content: PlotInput, paths: Sequence[str | Path], data: PlotData) -> None:
    # Other files were checked row by row.
    json_file = content.evaluation is not None or content.rounds is not None
    with report_damage(paths) if json_file else contextlib.nullcontext():
        for plot_name, path in PICTURES.items():
            kind: Plot = resolve(path)
            given = getattr(content, kind.INPUT)
            figure = None if given is None else kind.draw(given)
            if figure is not None:
                name = f"{plot_name}-{content.training.name}" if content.training else plot_name
                # A second file of one kind must not replace the plots of the first.
                names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
                free_name = next(candidate for candidate in names if candidate not in data.pictures)
                data.pictures[free_name] = DrawnPlot(figure, kind.CAPTION)
