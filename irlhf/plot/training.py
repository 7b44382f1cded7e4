"""The training curve: loss on completion tokens, in training and on held-out prompts."""

from pathlib import Path
from typing import Any

from irlhf.files import read_rows
from irlhf.plot import style


def wants(path: Path, first: dict[str, Any]) -> bool:
    """Return whether this is a policy's metrics.jsonl."""
    return "step" in first and ("loss" in first or "validation_loss" in first)


def draw(path: Path) -> list[tuple[str, Any]]:
    """Return one figure."""
    rows = [row for _, row in read_rows(path)]
    figure, (axis,) = style.panels(1, width=6.0, height=3.6)
    looks = {"loss": ("training", style.BLUE, ""), "validation_loss": ("held-out prompts", style.ORANGE, "o")}
    for key, (label, colour, marker) in looks.items():
        curve = [(row["step"], row[key]) for row in rows if key in row]
        if curve:
            axis.plot(*zip(*curve, strict=True), color=colour, marker=marker, markersize=5, linewidth=2, label=label)
    axis.set(xlabel="step", ylabel="nats a completion token", title=style.short(path.resolve().parent.name))
    axis.legend()
    return [(f"training-{path.resolve().parent.name}", figure)]
