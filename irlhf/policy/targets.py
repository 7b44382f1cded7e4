"""Parse targets and weights. The syntax is the same for --target, files and Python, and needs no shell quotes.

    helpful=0.8         exactly              helpful=~0.6..    drawn from the training data above 0.6
    helpful=0.6..       at least             helpful=p90       a percentile of the training data
    helpful=..0.4       at most              helpful=0:1:0.1   a sweep, both ends included
    helpful=0.2..0.9    between              helpful=uniform   anywhere on the scale
    helpful=data        joint vectors of the training data, together with every other `data`

    helpful=raw:4       a reward of 4 in the units of its scorer; also raw:4.., raw:..2 and raw:2..4

A reward without a target gets no reward line. 'helpful>=0.6' and 'helpful<=0.4' in quotes are also accepted.

Weights, as in "2*helpful + 3*harmless", request the best weighted mix instead of single numbers. A sample stores a
weight as the target "2*".
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil, floor, inf
from typing import Literal

from irlhf.core.errors import ConfigError
from irlhf.core.example import LARGEST

Kind = Literal["exact", "at-least", "at-most", "between", "draw", "percentile", "sweep", "uniform", "data"]

RAW = "raw:"  # begins a target in the units of the scorer
TEXT_LIMIT = 200  # characters after the equals sign
SWEEP_LIMIT = 1000  # points; more is probably a typing error

_ROUNDED = 10_000  # numbers of a scale that were converted from rewards have four decimals
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"(?P<low>{_NUMBER})?\.\.(?P<high>{_NUMBER})?")
_SWEEP = re.compile(rf"(?P<low>{_NUMBER}):(?P<high>{_NUMBER}):(?P<step>{_NUMBER})")
_PERCENTILE = re.compile(r"p(?P<low>\d+(?:\.\d+)?)")
_TERM = re.compile(rf"(?:(?P<weight>{_NUMBER})\s*\*\s*)?(?P<name>[^\W\d][\w-]*)")
_ASSIGNMENT = re.compile(r"(?P<name>[^=<>]+)(?P<operator>>=|<=|=)(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """The target of one reward, in the units of its scale (in percent for a percentile)."""

    name: str
    kind: Kind
    low: float | None = None  # the number itself if the kind has only one
    high: float | None = None
    step: float | None = None
    text: str = ""  # the user's text after the equals sign
    raw: bool = False  # the numbers are in the units of the scorer; see `scaled`

    @property
    def ranged(self) -> bool:
        """Whether the target is a range from `low` to `high`."""
        return self.kind in ("at-least", "at-most", "between", "draw")

    def holds(self, number: float) -> bool:
        """Return whether a number is between `low` and `high`, both included."""
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)

    def scaled(self, scale: Callable[[float], float], lower_is_better: bool) -> "Target":
        """Return a target in the units of a scorer as one in the units of the reward's scale."""
        text = self.text.removeprefix(RAW)
        low, high = (None if end is None else scale(end) * _ROUNDED for end in (self.low, self.high))
        if not self.ranged:
            return parse_value(self.name, f"{round(low or 0.0) / _ROUNDED:g}")
        low, high = (high, low) if lower_is_better else (low, high)
        # Rounded outwards, so that rows with the reward itself are inside.
        ends = ["" if end is None else f"{side(end) / _ROUNDED:g}" for side, end in ((floor, low), (ceil, high))]
        return parse_value(self.name, f"{'~' * text.startswith('~')}{ends[0]}..{ends[1]}")

    def points(self) -> list[float]:
        """Return the numbers of an exact target or a sweep."""
        if self.low is None or self.high is None or self.step is None:
            return [] if self.low is None else [self.low]
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return [round(self.low + i * self.step, 10) for i in range(count)]


def parse_target(text: str) -> Target:
    """Parse NAME=VALUE. Raises ConfigError with the column of the problem."""
    match = _ASSIGNMENT.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"target '{text}': write NAME=VALUE, like helpful=0.8")
    name, value = match["name"].strip(), match["value"].strip()
    if match["operator"] == ">=":
        value = f"{value}.."
    elif match["operator"] == "<=":
        value = f"..{value}"
    return parse_value(name, value)


def parse_targets(texts: Iterable[str]) -> dict[str, Target]:
    """Parse several NAME=VALUE. Raises ConfigError if a name occurs twice."""
    targets: dict[str, Target] = {}
    for text in texts:
        target = parse_target(text)
        if target.name in targets:
            raise ConfigError(f"target '{text}': {target.name} has two targets; give one")
        targets[target.name] = target
    return targets


def parse_value(name: str, text: str) -> Target:
    """Parse the text after the equals sign. Raises ConfigError."""
    if any(abs(float(number)) > LARGEST for number in re.findall(_NUMBER, text[:TEXT_LIMIT])) or len(text) > TEXT_LIMIT:
        raise ConfigError(f"target '{name}={text:.40}': the number is too large")
    if text.startswith(RAW):
        inner = parse_value(name, text.removeprefix(RAW))
        if not (inner.ranged or inner.kind == "exact"):
            raise ConfigError(f"target '{name}={text}': {RAW} takes a number or a range, as in {RAW}4 or {RAW}4..")
        return replace(inner, text=text, raw=True)
    if text in ("uniform", "data"):
        return Target(name, "uniform" if text == "uniform" else "data", text=text)
    if re.fullmatch(_NUMBER, text):
        return Target(name, "exact", float(text), text=text)
    if match := _PERCENTILE.fullmatch(text):
        if float(match["low"]) > 100:
            raise ConfigError(f"target '{name}={text}': use a percentile from p0 to p100")
        return Target(name, "percentile", float(match["low"]), text=text)
    if match := _SWEEP.fullmatch(text):
        return _sweep(name, text, *(float(match[part]) for part in ("low", "high", "step")))
    if match := _RANGE.fullmatch(text.removeprefix("~")):
        return _range(name, text, match["low"], match["high"])
    column = len(name) + 1 + _good_length(text)
    raise ConfigError(
        f"target '{name}={text}': invalid from column {column + 1}; write a number, 0.6.., ..0.4,"
        f" 0.2..0.9, ~0.6.., p90, 0:1:0.1, uniform, data or {RAW}4"
    )


def parse_weights(text: str) -> dict[str, float]:
    """Parse "2*helpful + 3*harmless" (a name alone has weight 1; 0 ignores a reward). Raises ConfigError."""
    weights: dict[str, float] = {}
    for term in text.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise ConfigError(f"weights '{text}': '{term.strip()}' is invalid; write 2*helpful + 3*harmless")
        if float(match["weight"] or 1) < 0:
            raise ConfigError(f"weights '{text}': a weight is negative; use `direction: lower` in rewards.yaml instead")
        if float(match["weight"] or 1) > LARGEST:
            raise ConfigError(
                f"weights '{text:.80}': a weight exceeds {LARGEST:g}; only their ratios matter, so use smaller ones"
            )
        if match["name"] in weights:
            raise ConfigError(f"weights '{text}': {match['name']} occurs twice")
        weights[match["name"]] = float(match["weight"] or 1)
    if not any(weights.values()):
        raise ConfigError(f"weights '{text}': at least one weight must be above 0")
    return weights


def weight_text(weight: float) -> str:
    """Return the text of a weight in a sample's `target`."""
    return f"{weight:g}*"


def weighs(text: str) -> bool:
    """Return whether a sample's target is a weight."""
    return bool(re.fullmatch(rf"{_NUMBER}\*", text)) and 0 <= float(text.removesuffix("*")) < inf


def weights_of(target: Mapping[str, str]) -> dict[str, float]:
    """Return the weights that a sample was drawn with; empty if it has other targets."""
    if not target or not all(map(weighs, target.values())):
        return {}
    return {name: float(text.removesuffix("*")) for name, text in target.items()}


def _sweep(name: str, text: str, low: float, high: float, step: float) -> Target:
    if step <= 0 or high < low:
        raise ConfigError(f"target '{name}={text}': a sweep is LOW:HIGH:STEP with LOW < HIGH and STEP > 0")
    if (high - low) / step >= SWEEP_LIMIT:
        raise ConfigError(f"target '{name}={text}': over {SWEEP_LIMIT} points; use a larger step")
    return Target(name, "sweep", low, high, step, text)


def _range(name: str, text: str, low: str | None, high: str | None) -> Target:
    if low is None and high is None:
        raise ConfigError(f"target '{name}={text}': a range needs a number on one side, like 0.6..")
    below = float(low) if low is not None else None
    above = float(high) if high is not None else None
    if below is not None and above is not None and below > above:
        raise ConfigError(f"target '{name}={text}': the range is reversed; write {high}..{low}")
    if text.startswith("~"):
        return Target(name, "draw", below, above, text=text)
    kind: Kind = "between" if low and high else "at-least" if low else "at-most"
    return Target(name, kind, below, above, text=text)


def _good_length(text: str) -> int:
    """Return the length of the longest prefix that a valid value could have, for the error's column."""
    match = re.match(rf"~?(?:{_NUMBER})?(?:\.\.|:)?(?:{_NUMBER})?(?::(?:{_NUMBER})?)?", text)
    return match.end() if match else 0
