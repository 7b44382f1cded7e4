"""The loop, and what it is held against: each control leaves out one thing."""

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
    """One way to run the rounds.

    online           the loop: asks, chooses, trains on
    no-update        asks the policy of before for the same in every round, and trains nothing
    unguarded        the loop without its entropy or KL guard
    random-drop      the loop with as many samples dropped by lot as its guard dropped
    expert           trains on the best samples alone, as many as there are prompts
    offline          trains on offline rows alone: as many steps, and as many freshly scored rows where there are any
    """

    name: str = LOOP
    keep: str = ""
    draws: bool = True
    trains: bool = True

    @property
    def folder(self) -> str:
        """Where its rounds stand, beside those of the loop."""
        return "" if self.name == LOOP else self.name

    def rules(self, first: Path) -> str:
        """Return the rules of this round; the share that is dropped by lot is what the loop's guard dropped."""
        if self.name != "random-drop":
            return self.keep
        counts = counts_of(first / "kept.jsonl")
        return ",".join(_by_lot(rule, counts) for rule in parse_rules(self.keep))


def _by_lot(rule: Rule, counts: Mapping[str, int]) -> str:
    if rule.name not in GUARDS:
        return str(rule)
    return f"{RANDOM}={counts[f'dropped by {rule.name}'] / counts[f'seen by {rule.name}']:.6f}"


def arms_of(settings: RoundsSettings) -> list[Arm]:
    """Return the loop, and its controls where they are wanted."""
    loop = Arm(keep=settings.keep)
    if not settings.controls:
        return [loop]
    rules = parse_rules(settings.keep)
    free = ",".join(str(rule) for rule in rules if rule.name not in GUARDS) or "distinct"
    guarded = any(rule.name in GUARDS for rule in rules)
    beside = [Arm("unguarded", free), Arm("random-drop", settings.keep)] if guarded else []
    share = f"top={1 / settings.samples:.6g}"
    return [
        loop,
        *beside,
        Arm("expert", f"{free},{share}"),
        Arm("offline", draws=False),
        Arm("no-update", free, trains=False),
    ]


def check_keep(keep: str) -> None:
    """Raise ConfigError for rules that choose no rows of a round."""
    if keep in ("best", "nearest"):
        raise ConfigError(f"--keep {keep}: it keeps one sample a prompt; rounds take rules, such as front or top=0.5")
    parse_rules(keep)
