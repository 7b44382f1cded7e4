"""Names, texts and the warning for steering information (nats per completion)."""

from collections.abc import Mapping, Sequence
from typing import Any

STEERING = "steering"  # prefix of the figures of steering information in metrics.jsonl


JOINT, SIBLING = "joint", "sibling"  # compared with all targets of another row, or of a completion of the same prompt

Figures = Mapping[str, Mapping[str, Any]]  # figures by comparison: JOINT, SIBLING or a reward


def logged(figures: Figures) -> dict[str, float]:
    """Return the figures by their names in metrics.jsonl."""
    values: dict[str, float] = {}
    for kind, measured in figures.items():
        for name in ("information", "margin", "right"):
            values |= {f"{STEERING}/{kind}/{name}": round(measured[name]["value"], 4)}
        values |= {f"{STEERING}/{kind}/{end}": round(measured["information"][end], 4) for end in ("low", "high")}
    return values


def ignored(figures: Figures, names: Sequence[str]) -> list[str]:
    """Return the rewards whose line has no significant information about held-out completions.

    A line has information if the interval of its information is above 0, or if the row's own target is the likeliest
    more often than by chance (the interval is above 1 / options). The second test is needed because a policy that
    follows its targets but is overconfident has little or negative information.
    """
    kinds = {name: name for name in names} if len(names) > 1 else dict.fromkeys(names, JOINT)
    return [name for name, kind in kinds.items() if kind in figures and not _is_informative(figures[kind])]


def _is_informative(measured: Mapping[str, Any]) -> bool:
    return bool(measured["information"]["low"] > 0 or measured["right"]["low"] > 1 / measured["options"])


def ignores(names: Sequence[str]) -> str:
    """Return the warning for a policy that ignores the lines of these rewards."""
    listed = " and ".join(f"`{name}`" for name in names)
    return (
        f"this policy ignores {listed}: on held-out rows, the target of the row is no more likely than other targets."
        " Train with --objective contrast, for longer (the information rises late), or on more completions per prompt"
    )


def spelled(figure: Mapping[str, float]) -> str:
    """Return a value with its interval as text."""
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
