"""An eval.json as the pictures and the report read it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irlhf.plotting.result_file import Shape

_PARTS = {"policies": dict, "tradeoff": list, "fronts": dict, "comparisons": list, "pairs": dict}
# Version 2 held two figures more.
_SHAPE = Shape("eval.json", 3, _PARTS, "irlhf eval", "run `irlhf eval` on the samples again", older=(2,))

holds = _SHAPE.holds


def read(path: Path) -> dict[str, Any]:
    """Return an evaluation whose texts are safe to show. Raises DataError where it is of another shape."""
    return _SHAPE.read(path, {"pairs": {}})


def rewards_of(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the rewards that some policy was asked for, in the order of the file."""
    return list(dict.fromkeys(name for policy in evaluation["policies"].values() for name in policy["rewards"]))


def measured(figure: object) -> bool:
    """Return whether this is a figure with its interval, not "not available" or nothing."""
    return isinstance(figure, Mapping) and "value" in figure


def shown(figure: Mapping[str, float], digits: int = 2) -> str:
    """Return a figure and its interval, as in 0.91 [0.90, 0.92]."""
    value, low, high = (number(figure[part], digits) for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def between(ends: Mapping[str, Any]) -> str:
    """Return what a figure lies between, as in 1.20 to 2.91 or 1.20 or more."""
    low = number(ends["low"]["value"])
    return f"{low} to {number(ends['high']['value'])}" if measured(ends["high"]) else f"{low} or more"


def number(value: float, digits: int = 2) -> str:
    """Return a number with a true minus, and none before what rounds to 0."""
    return f"{value:z,.{digits}f}".replace("-", "−")


def ratio(weights: Mapping[str, float]) -> str:
    """Return weights in the order of their rewards, as in 2 : 3."""
    return " : ".join(f"{weight:g}" for weight in weights.values())
