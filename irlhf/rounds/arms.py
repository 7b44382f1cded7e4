"""The arms of a run: the loop, and control arms that each omit one part of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from irlhf.core.errors import ConfigError
from irlhf.io.resumable import counts_of
from irlhf.rounds.settings import RoundsSettings
from irlhf.scoring.filters import GUARDS, RANDOM, Rule, parse_rules

LOOP = "online"


@dataclass(frozen=True)
class Arm:
    """One arm of a run.

    online           the loop: sample, select, train
    no-update        samples the first policy with the same targets in every round, without training
    unguarded        the loop without its entropy or KL guard
    random-drop      the loop with as many random samples dropped as its guard dropped
    expert           trains on the best samples only, one per prompt
    offline          trains on offline rows only: equal steps, and equally many freshly scored rows if there are any
    """

    name: str = LOOP
    keep: str = ""
    draws: bool = True
    trains: bool = True

    @property
    def folder(self) -> str:
        """The folder of its rounds; empty for the loop."""
        return "" if self.name == LOOP else self.name

    def rules(self, first: Path) -> str:
        """Return the rules of a round; random-drop uses the share that the guard of the loop dropped in `first`."""
        if self.name != "random-drop":
            return self.keep
        counts = counts_of(first / "kept.jsonl")
        return ",".join(_as_random_drop(rule, counts) for rule in parse_rules(self.keep))


def _as_random_drop(rule: Rule, counts: Mapping[str, int]) -> str:
    if rule.name not in GUARDS:
        return str(rule)
    return f"{RANDOM}={counts[f'dropped by {rule.name}'] / counts[f'seen by {rule.name}']:.6f}"


def arms_of(settings: RoundsSettings) -> list[Arm]:
    """Return the loop and, if requested, its control arms."""
    loop = Arm(keep=settings.keep)
    if not settings.controls:
        return [loop]
    rules = parse_rules(settings.keep)
    unguarded = ",".join(str(rule) for rule in rules if rule.name not in GUARDS) or "distinct"
    guarded = any(rule.name in GUARDS for rule in rules)
    guard_controls = [Arm("unguarded", unguarded), Arm("random-drop", settings.keep)] if guarded else []
    share = f"top={1 / settings.samples:.6g}"
    return [
        loop,
        *guard_controls,
        Arm("expert", f"{unguarded},{share}"),
        Arm("offline", draws=False),
        Arm("no-update", unguarded, trains=False),
    ]


def check_keep(keep: str) -> None:
    """Raise ConfigError for rules that do not apply to rounds."""
    if keep in ("best", "nearest"):
        raise ConfigError(
            f"--keep {keep}: this keeps one sample per prompt; rounds need rules, such as front or top=0.5"
        )
    parse_rules(keep)
