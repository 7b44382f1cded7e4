"""Means of the samples that each round kept and dropped."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Round, Rounds
from irlhf.plotting.rounds import Arm, drawn_arms

INPUT = "rounds"
CAPTION = (
    "Kept and dropped samples: means of the samples that each round trained on, and of those that its rules dropped."
    " For randomly dropped samples the two differ by chance only. Measurements that are not available are left out."
)

_MEASURES = {"reward": "weighted reward, sd", "entropy": "entropy, nats per token", "tokens": "tokens per completion"}
_SIDES: dict[str, dict[str, Any]] = {
    "kept": {"color": style.BLUE, "marker": "o", "markersize": 7},
    "dropped": {"color": style.RED, "marker": "s", "markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.8},
}
_TICKS = 7  # most labelled rounds, evenly spaced
_DROPPED = "dropped by "  # prefix of the counts of dropped samples


def draw(rounds: Rounds) -> Figure | None:
    """Return one figure: a row for each run that dropped samples, a panel for each measurement."""
    arms = [(arm, rows) for arm in drawn_arms(rounds) if (rows := _drawn(arm))]
    measured = [name for name in _MEASURES if any(_ends(row, name) for _, rows in arms for row in rows)]
    if not measured:
        return None
    figure = Figure(figsize=(4.4 * len(measured), 3.7 * len(arms) + 0.4), layout="constrained")
    handles: dict[str, Any] = {}
    above: Sequence[Any] = ()
    for subfigure, (arm, rows) in zip(figure.subfigures(len(arms), 1, squeeze=False).flat, arms, strict=True):
        subfigure.suptitle(_heading(arm, rows), fontsize=13)
        axes = list(subfigure.subplots(1, len(measured), squeeze=False).flat)
        for name, axis in zip(measured, axes, strict=True):
            _panel(axis, rows, name, handles)
        for axis, first in zip(axes, above or axes, strict=True):
            axis.sharey(first)  # one scale, so that random differences look small
        above = above or axes
    style.legend_under(figure, handles, columns=len(handles))
    return figure


def _drawn(arm: Arm) -> list[Round]:
    """Return the rounds that drew samples, if any of them dropped some."""
    rows = [row for row in arm.rounds if "sides" in row]
    return rows if any("dropped" in row["sides"] for row in rows) else []


def _heading(arm: Arm, rows: Sequence[Round]) -> str:
    """Return the number of samples kept, and dropped by each rule, over all rounds."""
    counts: dict[str, int] = {}
    for row in rows:
        for name, number in row["drawn"].items():
            counts[name] = counts.get(name, 0) + number
    dropped = [f"{number:,} {name}" for name, number in counts.items() if name.startswith(_DROPPED) and number]
    kept = f"{counts['kept']:,} of {counts['samples']:,} samples kept"
    return f"{arm.look.label}: {', '.join([kept, *dropped])}"


def _side(row: Round, side: str, name: str) -> float | None:
    number = row["sides"].get(side, {}).get(name)
    return number if isinstance(number, int | float) else None


def _ends(row: Round, name: str) -> list[float]:
    """Return the known means of kept and dropped samples."""
    return [number for side in _SIDES if (number := _side(row, side, name)) is not None]


def _panel(axis: Any, rows: Sequence[Round], name: str, handles: dict[str, Any]) -> None:
    for row in rows:
        axis.plot([row["round"]] * len(_ends(row, name)), _ends(row, name), color=style.GREY, linewidth=1.2)
    for side, look in _SIDES.items():
        points = [(row["round"], number) for row in rows if (number := _side(row, side, name)) is not None]
        if points:
            handles.setdefault(side, axis.plot(*zip(*points, strict=True), linestyle="", **look)[0])
    shown = [rows[i] for i in style.spread(len(rows), _TICKS)]
    ticks = []
    for row in shown:
        counts = [int(row["sides"].get(side, {"n": 0})["n"]) for side in _SIDES]
        ticks.append("\n".join([str(row["round"]), *(f"{count:,}" for count in counts)]))
    axis.set_xticks([row["round"] for row in shown], ticks)
    axis.set(xlabel="round; samples kept, dropped", ylabel=_MEASURES[name])
    axis.set_xlim(rows[0]["round"] - 0.5, rows[-1]["round"] + 0.5)
    axis.margins(y=0.12)
