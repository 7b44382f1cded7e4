"""Measurements after each round, of one or several runs of rounds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Round, Rounds

INPUT = "rounds"
CAPTION = (
    "Rounds: samples of the policies on the same validation prompts. The bold line is the first run."
    " Bars and the band are 95% intervals; for distinct-2 and distinct completions, one standard error."
    " Tracking is the mean over the rewards, KL is from the first policy without targets. If the path of gold against"
    " reward bends down (numbers are rounds), the reward is over-optimised."
)

Interval = Mapping[str, float]  # value, low, high
Point = tuple[int, Interval | None, Interval]  # round, x if it is not the round, y


@dataclass(frozen=True)
class Arm:
    """A run of rounds and its look."""

    look: style.Look
    rounds: Sequence[Round]
    is_first: bool

    @property
    def joined(self) -> dict[str, Any]:
        """Arguments of matplotlib for markers joined by a line. The first run is drawn bolder than others."""
        weight = {"linewidth": 2.8, "markersize": 6.5} if self.is_first else {"linewidth": 1.3, "markersize": 4.5}
        return {**self.look.joined, **weight, "zorder": 3 if self.is_first else 2}


def drawn_arms(rounds: Rounds) -> list[Arm]:
    """Return the runs with their looks."""
    named = {str(i): {"name": arm.name, "baseline": i > 0, "blind": False} for i, arm in enumerate(rounds.arms)}
    looks = style.looks(named).values()
    return [Arm(look, arm.rounds, i == 0) for i, (look, arm) in enumerate(zip(looks, rounds.arms, strict=True))]


def _measured(row: Round, name: str) -> Interval | None:
    """Return a measurement with its interval, or with one standard error on each side; None if it is not available."""
    if name == "tracking":  # the mean over the rewards; the mean of the intervals is conservative
        each = row.get(name, {}).values()
        if not each or not all(map(style.measured, each)):
            return None
        return {part: fmean(figures[part] for figures in each) for part in ("value", "low", "high")}
    figure: dict[str, Any] = row.get(name, {})
    if not style.measured(figure):
        return None
    if name in _WITH_ERROR:
        value, error = figure["value"], figure.get("error") or 0.0
        return {"value": value, "low": value - error, "high": value + error}
    return figure


@dataclass(frozen=True)
class _Panel:
    """The content of one panel: a measurement along the rounds, or along another measurement."""

    title: str
    label: str
    figure: str  # its name in rounds.json
    along: str = ""  # another one, for the x axis
    span: float = 0.0  # smallest range of the axis, so that noise does not look large
    top: float = math.inf  # upper limit of the axis


_WITH_ERROR = ("distinct_2", "unique")  # have a standard error instead of an interval
_NUMBERS = 8  # most numbered points of the path
_FULL = 1.01  # upper limit for shares, with room for a marker at 1
_PANELS = (
    _Panel("weighted reward", "sd above the data mean", "reward"),
    _Panel("weighted gold", "sd above the first policy", "gold"),
    _Panel("gold against reward", "weighted gold", "gold", along="reward"),
    _Panel("tracking within prompts", "Spearman's ρ", "tracking", span=0.2),
    _Panel("entropy", "nats per token", "entropy", span=0.1),
    _Panel("KL", "nats per completion", "kl"),
    _Panel("distinct-2", "share of distinct word pairs", "distinct_2", span=0.1, top=_FULL),
    _Panel("distinct completions", "share", "unique", span=0.1, top=_FULL),
    _Panel("length", "words per completion", "words"),
)


def draw(rounds: Rounds) -> Figure | None:
    """Return one figure, a panel for each measurement, a line for each run."""
    arms = drawn_arms(rounds)
    shown = [panel for panel in _PANELS if any(_points(arm, panel) for arm in arms)]
    if not shown:
        return None
    figure, axes = style.panels(len(shown), width=4.6, height=3.7)
    handles: dict[str, Any] = {}
    for panel, axis in zip(shown, axes, strict=True):
        _draw(axis, panel, arms, handles)
    absent = [panel.title for panel in _PANELS if panel not in shown]
    figure.suptitle("\n".join(_heading(arms[0].rounds, absent)), fontsize=12)
    style.legend_under(figure, handles, columns=min(6 if len(shown) > 4 else 3, len(handles)))
    return figure


def _heading(rows: Sequence[Round], absent: Sequence[str]) -> Iterator[str]:
    """Yield the lines above the panels: number of samples, early end, missing measurements."""
    last = rows[-1]
    if "samples" in last:
        measured = "reward and gold" if style.measured(last.get("gold")) else "reward"
        yield f"{measured}: {last['samples']:,} samples of {last['prompts']:,} prompts after each round"
    if "gold fell" in last:
        yield f"round {last['round']}: gold fell {last['gold fell']} while the rewards rose, so the rounds stopped"
    if absent:
        yield f"not available: {', '.join(absent)}"


def _points(arm: Arm, panel: _Panel) -> list[Point]:
    """Return the points of the rounds that have all values of the panel."""
    points = [(row["round"], _measured(row, panel.along), _measured(row, panel.figure)) for row in arm.rounds]
    return [(number, along, given) for number, along, given in points if given and (along or not panel.along)]


def _draw(axis: Any, panel: _Panel, arms: Sequence[Arm], handles: dict[str, Any]) -> None:
    for i, arm in enumerate(arms):
        points = _points(arm, panel)
        if points and panel.along:
            _path(axis, arm, points)
        elif points:
            aside = 0.05 * (i - (len(arms) - 1) / 2)  # so that intervals do not overlap
            handles.setdefault(arm.look.label, _line(axis, arm, points, aside))
    axis.locator_params(axis="x", integer=not panel.along, nbins=6)
    axis.set(title=panel.title, xlabel="weighted reward" if panel.along else "round", ylabel=panel.label)
    low, high = axis.get_ylim()
    missing = max(0.0, panel.span - (high - low)) / 2
    high = min(high + missing, panel.top)
    axis.set_ylim(min(low - missing, high - panel.span), high)


def _line(axis: Any, arm: Arm, points: Sequence[Point], aside: float) -> Any:
    """Draw a run along the rounds. Only the first has an interval at round 0, which others usually share."""
    values = [given["value"] for _, _, given in points]
    if arm.is_first:
        numbers = [number for number, _, _ in points]
        edges = [[given[edge] for _, _, given in points] for edge in ("low", "high")]
        axis.fill_between(numbers, *edges, color=arm.look.colour, alpha=0.16, linewidth=0)
        return axis.plot(numbers, values, **arm.joined)[0]
    places = [number + aside * (number > 0) for number, _, _ in points]
    later = [(position, given) for position, (number, _, given) in zip(places, points, strict=True) if number]
    figures = [given for _, given in later]
    bars = {"fmt": "none", "ecolor": arm.look.colour, "elinewidth": 0.9, "zorder": arm.joined["zorder"]}
    at = [position for position, _ in later], [given["value"] for given in figures]
    axis.errorbar(*at, yerr=style.whiskers(figures), **bars)
    return axis.plot(places, values, **arm.joined)[0]


def _path(axis: Any, arm: Arm, points: Sequence[Point]) -> None:
    """Draw the path of a run. The points of the first run have intervals, and some are numbered."""
    both = [(along, given) for _, along, given in points if along]
    places = [(along["value"], given["value"]) for along, given in both]
    axis.plot(*zip(*places, strict=True), **arm.joined)
    if not arm.is_first:
        return
    reach = [style.whiskers(figures) for figures in zip(*both, strict=True)]
    bars = {"fmt": "none", "ecolor": arm.look.colour, "elinewidth": 0.7, "zorder": arm.joined["zorder"]}
    axis.errorbar(*zip(*places, strict=True), xerr=reach[0], yerr=reach[1], **bars)
    for i in style.spread(len(points), _NUMBERS):
        axis.plot(*places[i], **{**arm.joined, "markersize": 12})
        text = {"ha": "center", "va": "center", "color": "white", "fontsize": 8, "zorder": 4}
        axis.annotate(str(points[i][0]), places[i], **text)
