"""What a user asks for: one grammar for --target, files and Python, safe in a shell without quotes.

    helpful=0.8         exactly              helpful=~0.6..    drawn from the training data above 0.6
    helpful=0.6..       at least             helpful=p90       a percentile of the training data
    helpful=..0.4       at most              helpful=0:1:0.1   a sweep, both ends included
    helpful=0.2..0.9    between              helpful=uniform   anywhere on the scale
    helpful=data        joint vectors of the training data, together with every other `data`

A reward left out is not asked for. Quoted 'helpful>=0.6' and 'helpful<=0.4' are taken too.

Weights, as in "2*helpful + 3*harmless", ask for the best mix in place of single numbers. A sample keeps a
weight as the target "2*".
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from irlhf.core.errors import ConfigError
from irlhf.core.example import LARGEST

Kind = Literal["exact", "at-least", "at-most", "between", "draw", "percentile", "sweep", "uniform", "data"]

TEXT_LIMIT = 200  # characters behind the equals sign
SWEEP_LIMIT = 1000  # points; more is a slip of the finger

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"(?P<low>{_NUMBER})?\.\.(?P<high>{_NUMBER})?")
_SWEEP = re.compile(rf"(?P<low>{_NUMBER}):(?P<high>{_NUMBER}):(?P<step>{_NUMBER})")
_PERCENTILE = re.compile(r"p(?P<low>\d+(?:\.\d+)?)")
_TERM = re.compile(rf"(?:(?P<weight>{_NUMBER})\s*\*\s*)?(?P<name>[^\W\d][\w-]*)")
_ASSIGNMENT = re.compile(r"(?P<name>[^=<>]+)(?P<operator>>=|<=|=)(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """One request for one reward, in the units of its scale (for a percentile, in per cent)."""

    name: str
    kind: Kind
    low: float | None = None  # the number itself where the kind has but one
    high: float | None = None
    step: float | None = None
    text: str = ""  # as the user wrote it, behind the equals sign

    @property
    def ranged(self) -> bool:
        """Whether any number between `low` and `high` is as good as another."""
        return self.kind in ("at-least", "at-most", "between", "draw")

    def holds(self, number: float) -> bool:
        """Return whether a number lies between `low` and `high`."""
        return (self.low is None or number >= self.low) and (self.high is None or number <= self.high)

    def points(self) -> list[float]:
        """Return the numbers that an exact target or a sweep asks for."""
        if self.low is None or self.high is None or self.step is None:
            return [] if self.low is None else [self.low]
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return [round(self.low + i * self.step, 10) for i in range(count)]


def parse_target(text: str) -> Target:
    """Read NAME=VALUE. Raises ConfigError that shows the place."""
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
    """Read several NAME=VALUE. Raises ConfigError where a name stands twice."""
    targets: dict[str, Target] = {}
    for text in texts:
        target = parse_target(text)
        if target.name in targets:
            raise ConfigError(f"target '{text}': {target.name} is asked for twice")
        targets[target.name] = target
    return targets


def parse_value(name: str, text: str) -> Target:
    """Read what stands behind the equals sign."""
    if any(abs(float(number)) > LARGEST for number in re.findall(_NUMBER, text[:TEXT_LIMIT])) or len(text) > TEXT_LIMIT:
        raise ConfigError(f"target '{name}={text:.40}': a number too large to ask for")
    if text in ("uniform", "data"):
        return Target(name, "uniform" if text == "uniform" else "data", text=text)
    if re.fullmatch(_NUMBER, text):
        return Target(name, "exact", float(text), text=text)
    if match := _PERCENTILE.fullmatch(text):
        if float(match["low"]) > 100:
            raise ConfigError(f"target '{name}={text}': a percentile lies between p0 and p100")
        return Target(name, "percentile", float(match["low"]), text=text)
    if match := _SWEEP.fullmatch(text):
        return _sweep(name, text, *(float(match[part]) for part in ("low", "high", "step")))
    if match := _RANGE.fullmatch(text.removeprefix("~")):
        return _range(name, text, match["low"], match["high"])
    column = len(name) + 1 + _good_length(text)
    raise ConfigError(
        f"target '{name}={text}': not understood from column {column + 1} on; write a number, 0.6.., ..0.4,"
        " 0.2..0.9, ~0.6.., p90, 0:1:0.1, uniform or data"
    )


def parse_weights(text: str) -> dict[str, float]:
    """Read "2*helpful + 3*harmless" (a bare name weighs 1). Raises ConfigError; zero means don't care."""
    weights: dict[str, float] = {}
    for term in text.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise ConfigError(f"weights '{text}': '{term.strip()}' is no term; write 2*helpful + 3*harmless")
        if float(match["weight"] or 1) < 0:
            raise ConfigError(f"weights '{text}': a weight below 0; say `direction: lower` in rewards.yaml instead")
        if float(match["weight"] or 1) > LARGEST:
            raise ConfigError(f"weights '{text:.80}': a weight beyond {LARGEST:g}; weights are shares of each other")
        if match["name"] in weights:
            raise ConfigError(f"weights '{text}': {match['name']} stands twice")
        weights[match["name"]] = float(match["weight"] or 1)
    if not any(weights.values()):
        raise ConfigError(f"weights '{text}': at least one must be above 0")
    return weights


def weight_text(weight: float) -> str:
    """Return how a sample's `target` keeps a weight."""
    return f"{weight:g}*"


def weighs(text: str) -> bool:
    """Return whether a sample's target is the weight of a mix."""
    return bool(re.fullmatch(rf"{_NUMBER}\*", text)) and 0 <= float(text.removesuffix("*")) < math.inf


def weights_of(target: Mapping[str, str]) -> dict[str, float]:
    """Return the weights that a sample was asked with; none where it was asked otherwise."""
    if not target or not all(map(weighs, target.values())):
        return {}
    return {name: float(text.removesuffix("*")) for name, text in target.items()}


def _sweep(name: str, text: str, low: float, high: float, step: float) -> Target:
    if step <= 0 or high < low:
        raise ConfigError(f"target '{name}={text}': a sweep is LOW:HIGH:STEP with LOW below HIGH and a step above 0")
    if (high - low) / step >= SWEEP_LIMIT:
        raise ConfigError(f"target '{name}={text}': over {SWEEP_LIMIT} points; take a larger step")
    return Target(name, "sweep", low, high, step, text)


def _range(name: str, text: str, low: str | None, high: str | None) -> Target:
    if low is None and high is None:
        raise ConfigError(f"target '{name}={text}': a range needs a number on one side, like 0.6..")
    below = float(low) if low is not None else None
    above = float(high) if high is not None else None
    if below is not None and above is not None and below > above:
        raise ConfigError(f"target '{name}={text}': the range is upside down; write {high}..{low}")
    if text.startswith("~"):
        return Target(name, "draw", below, above, text=text)
    kind: Kind = "between" if low and high else "at-least" if low else "at-most"
    return Target(name, kind, below, above, text=text)


def _good_length(text: str) -> int:
    """Return how many characters could still begin a value, for an error that points."""
    match = re.match(rf"~?(?:{_NUMBER})?(?:\.\.|:)?(?:{_NUMBER})?(?::(?:{_NUMBER})?)?", text)
    return match.end() if match else 0
