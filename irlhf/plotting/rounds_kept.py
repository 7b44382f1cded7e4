"""What the samples that a round kept and those that it dropped differ in."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from irlhf.plotting import style
from irlhf.plotting.inputs import Round, Rounds
from irlhf.plotting.rounds import Arm, drawn_arms

INPUT = "rounds"
CAPTION = (
    "What rounds kept and dropped: the means of the samples that each round drew and trained on, and of those that its"
    " rules dropped. Dropped by lot, the two are alike but for chance. What nobody measured is left out."
)

_MEASURES = {"reward": "weighted reward, sd", "entropy": "entropy, nats a token", "tokens": "tokens a completion"}
_SIDES: dict[str, dict[str, Any]] = {
    "kept": {"color": style.BLUE, "marker": "o", "markersize": 7},
    "dropped": {"color": style.RED, "marker": "s", "markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.8},
}
_TICKS = 7  # rounds named at most, evenly taken
_DROPPED = "dropped by "  # what the counts of a round begin with


def draw(rounds: Rounds) -> Figure | None:
    """Return one figure: a row for each arm that dropped samples, a panel for each thing that was measured."""
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
            axis.sharey(first)  # so that what a lot makes differ looks as small as it is
        above = above or axes
    style.legend_under(figure, handles, columns=len(handles))
    return figure


def _drawn(arm: Arm) -> list[Round]:
    """Return the rounds that drew samples, where any of them dropped some."""
    rows = [row for row in arm.rounds if "sides" in row]
    return rows if any("dropped" in row["sides"] for row in rows) else []


def _heading(arm: Arm, rows: Sequence[Round]) -> str:
    """Return how many samples were kept, and how many each rule dropped, over all rounds."""
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
    """Return what is known of a round's two sides."""
    return [number for side in _SIDES if (number := _side(row, side, name)) is not None]


def _panel(axis: Any, rows: Sequence[Round], name: str, handles: dict[str, Any]) -> None:
    for row in rows:
        axis.plot([row["round"]] * len(_ends(row, name)), _ends(row, name), color=style.GREY, linewidth=1.2)
    for side, look in _SIDES.items():
        points = [(row["round"], number) for row in rows if (number := _side(row, side, name)) is not None]
        if points:
            handles.setdefault(side, axis.plot(*zip(*points, strict=True), linestyle="", **look)[0])
    shown = [rows[i] for i in style.spread(len(rows), _TICKS)]
    counts = [f"{row['round']}\n" + "\n".join(f"{_n(row, side):,}" for side in _SIDES) for row in shown]
    axis.set_xticks([row["round"] for row in shown], counts)
    axis.set(xlabel="round; samples kept, dropped", ylabel=_MEASURES[name])
    axis.set_xlim(rows[0]["round"] - 0.5, rows[-1]["round"] + 0.5)
    axis.margins(y=0.12)


def _n(row: Round, side: str) -> int:
    return int(row["sides"].get(side, {"n": 0})["n"])
