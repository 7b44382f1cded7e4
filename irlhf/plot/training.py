"""The training curve: loss on completion tokens, or of a reward model on pairs, in training and on held-out prompts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irlhf.files import read_json, read_rows
from irlhf.hosted import KEY, REWARD_FILE
from irlhf.plot import style

CAPTION = "Training: loss on completion tokens (a reward model: on pairs), in training and on held-out prompts."

_CURVES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "loss": ("training", {"color": style.BLUE, "linestyle": style.SOLID}),
    "validation_loss": ("held-out prompts", {"color": style.ORANGE, "linestyle": style.DASHED, "marker": "o"}),
}


def wants(path: Path, first: dict[str, Any]) -> bool:
    """Return whether this is the metrics.jsonl of a policy or a reward model."""
    return "step" in first and ("loss" in first or "validation_loss" in first)


def draw(path: Path) -> list[tuple[str, Any]]:
    """Return one figure."""
    rows = [row for _, row in read_rows(path)]
    figure, (axis,) = style.panels(1, width=6.0, height=4.0)
    for key, (label, look) in _CURVES.items():
        curve = [(row["step"], row[key]) for row in rows if key in row]
        if curve:
            axis.plot(*zip(*curve, strict=True), markersize=5, linewidth=2, label=label, **look)
    folder = path.resolve().parent
    card = folder / REWARD_FILE
    # At a host a reward model learns to answer in words, as a policy does.
    learnt = "pair" if card.is_file() and KEY not in read_json(card) else "completion token"
    axis.set(xlabel="step", ylabel=f"nats a {learnt}", title=style.short(folder.name))
    style.legend_below(axis, columns=2)
    return [(f"training-{folder.name}", figure)]
