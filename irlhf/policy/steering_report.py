"""How steering information is logged, reported and warned of."""

from collections.abc import Mapping, Sequence
from typing import Any

STEERING = "steering"  # how the names of the figures of steering information begin in metrics.jsonl


JOINT, SIBLING = "joint", "sibling"  # all rewards are another row's; those of a completion of the same prompt

Figures = Mapping[str, Mapping[str, Any]]  # what was compared (JOINT, SIBLING or a reward) to its figures


def logged(figures: Figures) -> dict[str, float]:
    """Return the figures by the names that metrics.jsonl gives them."""
    values: dict[str, float] = {}
    for kind, measured in figures.items():
        for name in ("information", "margin", "right"):
            values |= {f"{STEERING}/{kind}/{name}": round(measured[name]["value"], 4)}
        values |= {f"{STEERING}/{kind}/{end}": round(measured["information"][end], 4) for end in ("low", "high")}
    return values


def ignored(figures: Figures, names: Sequence[str]) -> list[str]:
    """Return the rewards whose line was not shown to tell anything about held-out completions.

    A line tells something if the interval of its information lies above 0, or if the own target is the likeliest more
    often than by chance (1 / options, outside the interval). The second finds what the first misses: a policy that
    follows its targets but is too sure of them has little or negative information.
    """
    kinds = {name: name for name in names} if len(names) > 1 else dict.fromkeys(names, JOINT)
    return [name for name, kind in kinds.items() if kind in figures and not _tells(figures[kind])]


def _tells(measured: Mapping[str, Any]) -> bool:
    return bool(measured["information"]["low"] > 0 or measured["right"]["low"] > 1 / measured["options"])


def ignores(names: Sequence[str]) -> str:
    """Return the warning for a policy whose lines of these rewards tell nothing about its completions."""
    listed = " and ".join(f"`{name}`" for name in names)
    return (
        f"this policy ignores {listed}: on held-out rows, the target of the row is no more likely than other targets."
        " Train with --objective contrast, for longer (the information rises late), or on more completions a prompt"
    )


def spelled(figure: Mapping[str, float]) -> str:
    """Return a figure with its interval."""
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
