"""A rounds.json as the pictures read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlhf.plotting import style
from irlhf.plotting.result_file import Shape

_AGAIN = "draw it with the irlhf that wrote it, or run the rounds into a new folder"
_SHAPE = Shape("rounds.json", 1, {"arms": list, "names": list}, "irlhf finetune --rounds", _AGAIN)

Row = Mapping[str, Any]  # what was watched after a round

holds = _SHAPE.holds


@dataclass(frozen=True)
class Arm:
    """One way in which the rounds were run, and how it is drawn."""

    look: style.Look
    rounds: Sequence[Row]  # from round 0 on, which is the policy that they began with
    is_loop: bool  # the others are what it is held against

    @property
    def joined(self) -> dict[str, Any]:
        """What matplotlib wants for marks joined by a line: the loop stands out among its controls."""
        weight = {"linewidth": 2.8, "markersize": 6.5} if self.is_loop else {"linewidth": 1.3, "markersize": 4.5}
        return {**self.look.joined, **weight, "zorder": 3 if self.is_loop else 2}


def read(path: Path) -> list[Arm]:
    """Return the arms, the loop itself first. Raises DataError for a file of another shape."""
    arms = _SHAPE.read(path, {})["arms"]
    if not arms or not all(map(_is_arm, arms)):
        raise _SHAPE.lacks(path, "arm with its rounds")
    named = {str(i): {"name": arm["name"], "baseline": i > 0, "blind": False} for i, arm in enumerate(arms)}
    looks = style.looks(named).values()
    return [Arm(look, arm["rounds"], i == 0) for i, (look, arm) in enumerate(zip(looks, arms, strict=True))]


def _is_arm(arm: object) -> bool:
    if not isinstance(arm, Mapping) or not isinstance(arm.get("name"), str):
        return False
    rows = arm.get("rounds")
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, dict) and isinstance(row.get("round"), int) for row in rows)
    )
