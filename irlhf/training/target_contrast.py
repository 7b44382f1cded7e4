"""Draw, for each epoch, the targets under which each completion is compared.

Completions of one prompt are paired. `contrast` reads each completion under its own target and under targets that it
does not satisfy, preferably the target of the other completion (the sibling). `ra-dpo` reads each pair under both
targets:

    contrast    completion a: own target a | target b        completion b: own target b | target a
    ra-dpo      target a: completion a preferred to b        target b: completion b preferred to a
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from irlhf.core.example import Example
from irlhf.training.batching import Encoded, Family, compared
from irlhf.training.settings import RA_DPO, Objective
from irlhf.training.target_draw import Rewarded, TargetDraw, Wishes, pair_random, paired, preferences, shared_names

_TRIES = 16  # draws per alternative; after that, a completion has fewer alternatives

EncodePrompt = Callable[[Example, Wishes], list[int]]  # token ids


@dataclass(frozen=True)
class ContrastDraw:
    """Draws comparisons from the training rows."""

    rows: Sequence[Rewarded]
    encode: EncodePrompt
    targets: TargetDraw
    objective: Objective
    seed: int

    def family(self, group: Sequence[Rewarded], epoch: int, one_reward: float) -> Family:
        """Return the family of one or two completions of a prompt; `one_reward` as in `Objective`."""
        rng = pair_random(group, f"{self.seed}/{epoch}")
        return self._ra_dpo(group, rng) if self.objective.name == RA_DPO else self._contrast(group, rng, one_reward)

    def groups(self, epoch: int) -> Iterator[list[Rewarded]]:
        """Yield the rows in pairs of one prompt, see `paired`; unpaired rows only if the objective is not ra-dpo."""
        for group in paired(self.rows, f"{self.seed}/{epoch}"):
            if len(group) == 2 or self.objective.name != RA_DPO:
                yield group

    def _contrast(self, rows: Sequence[Rewarded], rng: random.Random, one_reward: float) -> Family:
        """Return each completion under its own target and under targets that it does not satisfy."""
        names = self.targets.names(shared_names(rows), rng)
        own = [self.targets.wishes(row.actual, names, rng) for row in rows]
        members: list[Encoded] = []
        own_members: list[int] = []
        comparisons = []
        for number, row in enumerate(rows):
            siblings = [*own[:number], *own[number + 1 :]]
            alternatives = list(self._alternatives(row, own[number], siblings, rng, one_reward))
            options = range(len(members), len(members) + 1 + len(alternatives))
            members += [self._member(row, wishes) for wishes in (own[number], *alternatives)]
            own_members.append(options[0])
            if alternatives:
                comparisons.append(options)
        return compared(members, own_members, comparisons)

    def _alternatives(
        self, row: Rewarded, own: Wishes, siblings: Sequence[Wishes], rng: random.Random, one_reward: float
    ) -> Iterator[Wishes]:
        """Yield targets that the row does not satisfy: those of siblings first, then those of random rows."""
        yielded: list[Wishes] = []
        for number in range(self.objective.alternatives * (1 + _TRIES) if own else 0):
            if len(yielded) == self.objective.alternatives:
                return
            other = siblings[number] if number < len(siblings) else self._other(own, siblings, rng)
            wishes = {**own, **{name: wish for name, wish in other.items() if name in own}}
            if len(own) > 1 and rng.random() < one_reward:
                name = rng.choice(list(own))
                wishes = {**own, name: wishes[name]}
            if wishes not in yielded and not self.targets.holds(wishes, row.actual):
                yielded.append(wishes)
                yield wishes

    def _other(self, own: Wishes, siblings: Sequence[Wishes], rng: random.Random) -> Wishes:
        """Return the target of a random row or, with probability 1/2, of a sibling."""
        if siblings and rng.random() < 1 / 2:
            return rng.choice(siblings)
        drawn = rng.choice(self.rows).actual
        return self.targets.wishes(drawn, [name for name in own if name in drawn], rng)

    def _ra_dpo(self, rows: Sequence[Rewarded], rng: random.Random) -> Family:
        """Return both completions under both targets; each is preferred under its own target."""
        members: list[Encoded] = []
        comparisons = []
        for wishes, better, worse in preferences(rows, self.targets, rng):
            comparisons.append((len(members), len(members) + 1))
            members += [self._member(row, wishes) for row in (better, worse)]
        # A pair with equal targets has no preference; one member keeps the number of families equal in all epochs.
        return compared(members or [self._member(rows[0], {})], (), comparisons)

    def _member(self, row: Rewarded, wishes: Wishes) -> Encoded:
        return Encoded(self.encode(row.example, wishes), row.completion, row.example.cluster)


class ContrastFamilies:
    """A data set of the families of the current epoch, twice.

    The first half compares whole targets. In the second half, alternatives of the same completions differ in one
    reward only, with probability `one_reward` of the objective.
    """

    def __init__(self, draw: ContrastDraw) -> None:
        self._draw = draw
        self.draw(0)

    def draw(self, epoch: int) -> list[int]:
        """Draw the families of an epoch and return the widths, in tokens, of the first half."""
        self.epoch = epoch
        self.groups = list(self._draw.groups(epoch))
        self.families = [self._draw.family(group, epoch, one_reward=0.0) for group in self.groups]
        return [family.width for family in self.families]

    def __len__(self) -> int:
        """Return the number of families of an epoch."""
        return len(self.families)

    def __getitem__(self, number: int) -> Family:
        """Return a family of the first or the second half."""
        if number < len(self.families):
            return self.families[number]
        group = self.groups[number - len(self.families)]
        return self._draw.family(group, self.epoch, self._draw.objective.one_reward)

    def __iter__(self) -> Iterator[Family]:
        """Yield the families of the first half."""
        return iter(self.families)
