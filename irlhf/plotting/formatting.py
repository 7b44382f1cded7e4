"""Format numbers, intervals and weightings as they appear in plots and in the report."""

from collections.abc import Mapping
from typing import Any


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


def ratio(weights: Mapping[str, float]) -> str:
    """Return weights in the order of their rewards, such as 2 : 3."""
    return " : ".join(f"{weight:g}" for weight in weights.values())
