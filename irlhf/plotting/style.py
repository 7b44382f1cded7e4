"""The common style of plots and numbers: readable at half width, safe for colour-blind readers, names without math."""

import io
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

# The colours of Okabe and Ito, which are distinct for all types of colour vision.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
INK, GREY = "#222222", "#7a7a7a"
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++")
MARKERS = ("o", "s", "^", "D", "v", "P")
SOLID, DASHED, DOTTED = "-", (0, (4, 3)), (0, (1, 2))
DIVERGING = "PuOr"  # from ColorBrewer, colour-blind safe; its middle is white

_BASELINE_LINES = (DASHED, (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_NAME = 28  # most characters of a name in a plot
# Files without dates: equal data gives equal bytes.
_DATES: Mapping[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

_LOOK: dict[Any, Any] = {
    "savefig.dpi": 150,
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "text.parse_math": False,  # a reward can have the name $x^{$
    "svg.hashsalt": "irlhf",  # equal data, equal bytes
}


@dataclass(frozen=True)
class Look:
    """Label, colour, marker and line of one policy in all plots of an evaluation."""

    label: str
    colour: str
    marker: str
    line: Any  # solid for a policy, dashed for a baseline
    steered: bool  # its prompts contain the targets

    @property
    def joined(self) -> dict[str, Any]:
        """Arguments of matplotlib for markers joined by a line."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line, "markersize": 6, "linewidth": 2}


Arm = tuple[Look, dict[str, Any]]  # the look of a policy, and its metrics for one reward


@contextmanager
def look() -> Iterator[None]:
    """Draw and save in this style, without changing the caller's matplotlib settings."""
    with matplotlib.rc_context(_LOOK), warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; the report shows them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure as a png, svg or pdf file without dates."""
    held = io.BytesIO()
    figure.savefig(held, format=kind, metadata=_DATES[kind])
    return held.getvalue()


def panels(count: int, width: float = 4.6, height: float = 4.4, columns: int = 0) -> tuple[Figure, list[Any]]:
    """Return a figure with `count` axes of the given size in inches, two to a row, or three if there are over four."""
    columns = min(count, columns or (2 if count <= 4 else 3))
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def looks(policies: Mapping[str, Mapping[str, Any]]) -> dict[str, Look]:
    """Return the look of each policy by its key. Labels differ, and so do colours and markers as far as possible."""
    names = Counter(policy["name"] for policy in policies.values())
    drawn = {}
    broken = 0
    for i, (key, policy) in enumerate(policies.items()):
        label = short(policy["name"]) + (f" {key:.6}" if names[policy["name"]] > 1 else "")
        line = _BASELINE_LINES[broken % len(_BASELINE_LINES)] if policy["baseline"] else SOLID
        broken += bool(policy["baseline"])
        # Repeated colours get other markers.
        marker = MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]
        drawn[key] = Look(label, COLOURS[i % len(COLOURS)], marker, line, not (policy["baseline"] or policy["blind"]))
    return drawn


def numbered(number: int) -> dict[str, str]:
    """Return the colour and the marker of a curve by its number."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def steps(count: int) -> list[Any]:
    """Return `count` ordered colours, from light to dark."""
    shades = matplotlib.colormaps["cividis_r"]
    return [shades(0.15 + 0.85 * i / max(1, count - 1)) for i in range(count)]


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` positions of `count` items, evenly spaced, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def rewards_of(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the rewards that any policy was evaluated on, in the order of the file."""
    return list(dict.fromkeys(name for policy in evaluation["policies"].values() for name in policy["rewards"]))


def arms(evaluation: Mapping[str, Any], reward: str) -> list[Arm]:
    """Return the look and the metrics of each policy that was evaluated on a reward."""
    known = looks(evaluation["policies"])
    return [
        (known[key], policy["rewards"][reward])
        for key, policy in evaluation["policies"].items()
        if reward in policy["rewards"]
    ]


def weightings(evaluation: Mapping[str, Any], key: str) -> list[tuple[Mapping[str, float], dict[str, Any]]]:
    """Return each weighting of the trade-off with the metrics of a policy for it."""
    return [(mix["weights"], arm) for mix in evaluation["tradeoff"] for arm in mix["arms"] if arm["policy"] == key]


def followed(evaluation: Mapping[str, Any]) -> dict[str, list[Arm]]:
    """Return the look and the metrics of each policy by reward, for rewards that have a curve."""
    each = {reward: arms(evaluation, reward) for reward in rewards_of(evaluation)}
    return {reward: measured for reward, measured in each.items() if any(metrics["curve"] for _, metrics in measured)}


def whiskers(figures: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """Return the lengths of the intervals below and above their values, for matplotlib's `xerr` and `yerr`."""
    below = [max(0.0, figure["value"] - figure["low"]) for figure in figures]
    above = [max(0.0, figure["high"] - figure["value"]) for figure in figures]
    return [below, above]


def legend_below(axis: Any, columns: int = 1) -> None:
    """Put the legend of an axis below it."""
    figure = axis.get_figure(root=True)
    below = axis.transAxes + ScaledTranslation(0, -0.55, figure.dpi_scale_trans)  # inches
    placement = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below, "borderaxespad": 0}
    axis.legend(**placement, ncols=columns, handlelength=2.6)


def legend_under(figure: Any, handles: Mapping[str, Any], columns: int = 1) -> None:
    """Put one legend under all panels of a figure."""
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns, handlelength=2.6)


def short(name: str, room: int = _NAME) -> str:
    """Return a name on one line of at most `room` characters."""
    line = " ".join(name.split())
    # matplotlib hides legend entries that begin with an underscore.
    line = f" {line}" if line.startswith("_") else line
    return line if len(line) <= room else line[: room - 1] + "…"


def heat(axis: Any, cells: Sequence[Sequence[float]], reach: float) -> Any:
    """Draw a table of numbers as a heat map from -reach to reach. 0 is white, NaN is grey."""
    colours = matplotlib.colormaps[DIVERGING].with_extremes(bad="#dddddd")
    drawn = axis.imshow(cells, cmap=colours, vmin=-reach, vmax=reach)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return drawn


def heat_key(figure: Any, axes: Sequence[Any], drawn: Any) -> None:
    """Draw one colour bar for all heat maps of a figure."""
    reach = drawn.get_clim()[1]
    ticks = [-reach, -reach / 2, 0, reach / 2, reach]
    height = 2.2 / figure.get_size_inches()[1]
    key = figure.colorbar(drawn, ax=axes, ticks=ticks, format="%.2g", shrink=min(1.0, height), aspect=14)
    key.outline.set_visible(False)


def write_cell(axis: Any, cell: tuple[int, int], value: float, reach: float, under: str = "") -> None:
    """Write a number, and an interval under it, into its cell of a heat map (row, column)."""
    row, column = cell
    colour = "white" if abs(value) > 0.7 * reach else INK
    text = "–" if math.isnan(value) else f"{value:z.2f}".replace("-", "−")
    axis.text(column, row - (0.12 if under else 0), text, ha="center", va="center", color=colour, fontsize=12)
    axis.text(column, row + 0.2, under, ha="center", va="center", color=colour, fontsize=9.5)


def name_cells(axis: Any, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Label the rows and columns of a heat map. Long or many labels are rotated."""
    aslant = len(columns) > 4 or max(map(len, columns)) > 10
    turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if aslant else {}
    axis.set_xticks(range(len(columns)), columns, **turn)
    axis.set_yticks(range(len(rows)), rows)


def measured(figure: object) -> bool:
    """Return whether a value of eval.json is a number with its interval, and not "not available" or absent."""
    return isinstance(figure, Mapping) and "value" in figure


def shown(figure: Mapping[str, float], digits: int = 2) -> str:
    """Return a number with its interval, such as 0.91 [0.90, 0.92]."""
    value, low, high = (number(figure[part], digits) for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def between(ends: Mapping[str, Any]) -> str:
    """Return the bounds of a number, such as "1.20 to 2.91", or "1.20 or more" without an upper bound."""
    low = number(ends["low"]["value"])
    return f"{low} to {number(ends['high']['value'])}" if measured(ends["high"]) else f"{low} or more"


def number(value: float, digits: int = 2) -> str:
    """Return a number with a minus sign (not a hyphen), and without one if it rounds to 0."""
    return f"{value:z,.{digits}f}".replace("-", "−")


def mix(weights: Mapping[str, float]) -> str:
    """Return weights in words, such as 2 × kindness + detail."""
    terms = [name if weight == 1 else f"{weight:g} × {name}" for name, weight in weights.items() if weight]
    return " + ".join(terms) or "nothing"


def compared(figure: Mapping[str, Any]) -> str:
    """Return what a paired figure compares: a reward, or a mix, written as in `mix`."""
    if figure["figure"] != "weighted":
        return str(figure["reward"])
    return "mix " + re.sub(r"(^|\+ )1\*", r"\1", figure["reward"]).replace("*", " × ")


def ratio(weights: Mapping[str, float]) -> str:
    """Return weights in the order of their rewards, such as 2 : 3."""
    return " : ".join(f"{weight:g}" for weight in weights.values())
