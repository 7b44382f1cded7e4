"""Target against actual after each round: whether a policy that learns from itself still gives what is asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.plotting import eval_file, rounds_file, style, target_actual
from irlhf.plotting.rounds_file import Row

CAPTION = (
    "Target against actual after each round, of the loop alone: the mean of each level of the target with its 95%"
    " interval; the darker, the later; dotted, the best constant answer."
)

_LINES = 5  # rounds shown at most, evenly taken


def wants(path: Path, first: dict[str, Any]) -> bool:
    """Return whether this is a rounds.json."""
    return rounds_file.holds(first)


def draw(path: Path) -> list[tuple[str, Any]]:
    """Return one figure, a panel for each reward, a line for each round, from the eval.json of the rounds' folders."""
    rows = _beside(path, rounds_file.read(path)[0].rounds)
    shown = [rows[i] for i in style.spread(len(rows), _LINES)]
    drawn: dict[str, list[target_actual.Arm]] = {}
    for row, colour, marker in zip(shown, style.steps(len(shown)), style.MARKERS, strict=False):
        look = style.Look(f"round {row['round']}", colour, marker, style.SOLID, steered=True)
        for reward, metrics in _rewards(_file(path, row)).items():
            drawn.setdefault(reward, []).append((look, metrics))
    if not drawn:
        return []
    figure = target_actual.figure(drawn, clouds=0)
    if len(shown) < len(rows):
        figure.suptitle(f"{len(shown)} of {len(rows)} rounds", fontsize=12)
    return [("rounds-target-actual", figure)]


def _file(path: Path, row: Row) -> Path:
    return path.parent / f"round-{row['round']}" / "eval.json"


def _beside(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Return the rounds whose evaluation stands beside the file, and say which do not."""
    there = [row for row in rows if _file(path, row).is_file()]
    absent = [str(row["round"]) for row in rows if not _file(path, row).is_file()]
    if absent:
        note = f"no round-N/eval.json beside it for round {', '.join(absent)}"
        console.warn(f"{path}: {note}, so target against actual leaves out what was asked then")
    return there


def _rewards(file: Path) -> Mapping[str, Any]:
    """Return what an evaluation found of each reward that has a curve."""
    policies = eval_file.read(file)["policies"].values()
    return {reward: metrics for policy in policies for reward, metrics in policy["rewards"].items() if metrics["curve"]}
