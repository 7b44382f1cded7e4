"""Rows into batches: what is alike in length stands side by side, what begins alike is computed once.

    prompt, reward line, completion     one family of two members, in one row of a batch:
    prompt, reward line, completion     prompt | reward line, completion | reward line, completion

Because the reward stands at the end of the prompt, all completions of a prompt begin alike. A member sees
what is shared and itself, never another member, and its positions go on behind what is shared: its loss is
the one it has alone. Members with the same prompt share all of it, so a family is a tree of depth three:

    prompt | reward line A | completion 1 | completion 2 | reward line B | completion 1 | completion 2

    bucketed   rows of similar length, one in each row of a batch
    shared     families of similar width, one in each row of a batch

The rows of a step have the same loss and gradient in both; which rows meet in a step is not the same.
"""

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

IGNORED = -100  # the label that losses leave out
_POOL = 50  # batches that are sorted by length together: enough to spare padding, few enough to mix
_PADDING, _SHARED = -1, -2  # the member that a token belongs to, where it is none of a family's own


class Encoded(NamedTuple):
    """One training row as token ids."""

    prompt: list[int]
    completion: list[int]
    group: str = ""  # rows of one prompt share it

    def __len__(self) -> int:
        """Return the tokens of prompt and completion."""
        return len(self.prompt) + len(self.completion)


class Family(NamedTuple):
    """Rows that begin with the same tokens; a family of one is a row by itself.

    An objective that compares members lists them in `comparisons`: each is a tuple of member numbers of which the
    first is the right one. `own` are the members whose completion has the target in their prompt; None is all.
    """

    shared: int  # tokens that all members begin with
    members: tuple[Encoded, ...]
    own: tuple[int, ...] | None = None
    comparisons: tuple[tuple[int, ...], ...] = ()

    @property
    def branches(self) -> dict[tuple[int, ...], list[int]]:
        """The numbers of the members behind each distinct prompt."""
        branches: dict[tuple[int, ...], list[int]] = {}
        for number, member in enumerate(self.members):
            branches.setdefault(tuple(member.prompt), []).append(number)
        return branches

    @property
    def width(self) -> int:
        """Tokens that are computed."""
        # The last token of a prompt predicts the first of the completion, so every member has one of its own.
        prompts = sum(len(prompt) - 1 - self.shared for prompt in self.branches)
        return self.shared + prompts + sum(1 + len(member.completion) for member in self.members)


def alone(rows: Sequence[Encoded]) -> list[Family]:
    """Return every row as a family of its own."""
    return [Family(0, (row,)) for row in rows]


def together(rows: Sequence[Encoded], widest: int, most: int) -> list[Family]:
    """Return the rows of each prompt as families of at most `widest` tokens and `most` rows, in the rows' order.

    A row that stands several times never meets itself in one family: it would weigh double in one step.
    """
    groups: dict[str, list[list[Encoded]]] = {}
    for number, row in enumerate(rows):
        families = groups.setdefault(row.group or f"/{number}", [])
        roomy = (family for family in families if len(family) < most and row not in family)
        fitting = (family for family in roomy if family_of([*family, row]).width <= widest)
        own = next(fitting, None)
        if own is None:
            families.append([row])
        else:
            own.append(row)
    return [family_of(family) for families in groups.values() for family in families]


def lay(families: Sequence[Family], padding: int) -> dict[str, torch.Tensor]:
    """Return input_ids, labels and `sequences` [families, width]; where a family has several members, a mask too.

    `sequences` is the number of the member, counted over the whole batch, that a label belongs to, and -1 elsewhere.
    The mask is [families, 1, width, width], true where the later token sees the earlier one. A causal model never
    looks at what comes later, so rows by themselves, padded behind their ends, need no mask, and attention
    without one is faster.
    """
    size = len(families), max(family.width for family in families)
    ids, labels = torch.full(size, padding), torch.full(size, IGNORED)
    positions = torch.zeros(size, dtype=torch.long)
    branches, members = (torch.full(size, _PADDING) for _ in range(2))
    first = 0
    for i, family in enumerate(families):
        _lay(family, first, tuple(tensor[i, : family.width] for tensor in (ids, labels, positions, branches, members)))
        first += len(family.members)
    batch = {"input_ids": ids, "labels": labels, "sequences": members.where(labels != IGNORED, -1)}
    if any(len(family.members) > 1 for family in families):
        batch |= {"position_ids": positions, "attention_mask": _mask(branches, members)}
    return batch


def lay_comparisons(families: Sequence[Family]) -> dict[str, torch.Tensor]:
    """Return which members of a batch are compared, each by its number over the whole batch.

    own           [members]                whether the likelihood counts the member
    comparisons   [comparisons, options]   members, the right one first; -1 where there are fewer options
    """
    own: list[bool] = []
    comparisons: list[list[int]] = []
    options = max((len(comparison) for family in families for comparison in family.comparisons), default=2)
    for family in families:
        comparisons += [
            [len(own) + n for n in comparison] + [-1] * (options - len(comparison)) for comparison in family.comparisons
        ]
        own += [family.own is None or number in family.own for number in range(len(family.members))]
    return {
        "own": torch.tensor(own),
        "comparisons": torch.tensor(comparisons, dtype=torch.long).view(-1, options),
    }


class Collator:
    """Puts the families of one batch side by side.

    Without `shares`, members of a family that are compared stand in rows of their own: not every model takes a mask
    that hides one member from another.
    """

    def __init__(self, padding: int, shares: bool = True) -> None:
        self.padding, self.shares = padding, shares

    def __call__(self, families: Sequence[Family]) -> dict[str, torch.Tensor]:
        """Return what the model is given and the labels, as `lay` does, and what is compared."""
        compares = any(family.own is not None for family in families)
        rows = families
        if compares and not self.shares:
            rows = [Family(0, (member,)) for family in families for member in family.members]
        return lay(rows, self.padding) | (lay_comparisons(families) if compares else {})


class LengthBatches(Sampler[list[int]]):
    """Batches of families of like width and, together, of about equally many tokens.

    There are as many batches as equal numbers of rows would make: short rows stand in large batches, long
    ones in small. The order hangs on the seed and the epoch alone: a run that goes on from a checkpoint
    meets the rows that it would have met. Of several processes each takes its share of every batch.
    """

    def __init__(self, widths: Sequence[int], batch: float, seed: int, share: tuple[int, int] = (0, 1)) -> None:
        self.widths, self.batch, self.seed = widths, batch, seed
        self.costs = widths  # what batches have equally much of
        self.process, self.processes = share
        self.epoch = 0
        self.redraw: Callable[[int], Sequence[int]] | None = None  # draws an epoch's families, returns their widths
        self.second_phase: int | None = None  # first batch of rows numbered behind the last

    def __len__(self) -> int:
        return sum(self._parts(len(pool)) for pool in self._pools())

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
        order = rng.sample(range(len(self.widths)), len(self.widths))
        batches = [batch for pool in self._pools() for batch in self._cut([order[i] for i in pool])]
        rng.shuffle(batches)
        if self.second_phase is not None:
            first = max(0, self.second_phase - self.epoch * len(batches))
            batches[first:] = [[len(order) + i for i in batch] for batch in batches[first:]]
        return (batch[self.process :: self.processes] for batch in batches)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each pass over the rows."""
        self.epoch = epoch
        if self.redraw:
            self.widths = self.costs = self.redraw(epoch)

    def _pools(self) -> list[range]:
        """Return the stretches of the order that are sorted together."""
        size = max(1, round(_POOL * self.batch))
        starts = list(range(0, len(self.widths), size))
        if len(starts) > 1 and len(self.widths) - starts[-1] < max(self.batch, self.processes):
            starts.pop()  # too few for a batch of their own: they join those before
        return [range(start, end) for start, end in zip(starts, [*starts[1:], len(self.widths)], strict=True)]

    def _parts(self, rows: int) -> int:
        """Return how many batches so many rows make; each process gets at least one row of each."""
        return max(1, min(round(rows / self.batch), rows // self.processes))

    def _cut(self, rows: Sequence[int]) -> list[list[int]]:
        """Return a pool's rows, by width, in parts of about equally many tokens."""
        alike = sorted(rows, key=lambda i: self.widths[i])
        parts = self._parts(len(alike))
        costs = list(accumulate(self.costs[i] for i in alike))
        cuts = [0]
        for part in range(1, parts):
            wanted = bisect_left(costs, part * costs[-1] / parts) + 1
            least, most = cuts[-1] + self.processes, len(alike) - (parts - part) * self.processes
            cuts.append(min(max(wanted, least), most))
        return [alike[start:end] for start, end in zip(cuts, [*cuts[1:], len(alike)], strict=True)]


def family_of(rows: Sequence[Encoded]) -> Family:
    """Return rows of one prompt as one family."""
    if len(rows) == 1:
        return Family(0, tuple(rows))
    first, last = min(row.prompt for row in rows), max(row.prompt for row in rows)
    # Between the first and the last in order every other begins as both do. One token stays a member's own,
    # because it predicts the member's first token.
    most = min(len(row.prompt) for row in rows) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), most)
    return Family(min(same, most), tuple(rows))


def compared(rows: Sequence[Encoded], own: Sequence[int], comparisons: Sequence[Sequence[int]]) -> Family:
    """Return rows of one prompt as a family whose members are compared, see `Family`."""
    return family_of(rows)._replace(own=tuple(own), comparisons=tuple(map(tuple, comparisons)))


def _lay(family: Family, first: int, tensors: tuple[torch.Tensor, ...]) -> None:
    """Write a family into its row of ids, labels, positions, branches and members, numbered from `first`."""
    ids, labels, positions, branches, members = tensors
    shared = at = family.shared
    ids[:at] = torch.tensor(family.members[0].prompt[:at])
    positions[:at] = torch.arange(at)
    branches[:at] = members[:at] = _SHARED
    for branch, (prompt, numbers) in enumerate(family.branches.items()):
        end = at + len(prompt) - 1 - shared
        ids[at:end] = torch.tensor(prompt[shared:-1])
        positions[at:end] = torch.arange(shared, len(prompt) - 1)
        branches[at:end], members[at:end] = branch, _SHARED
        at = end
        for number in numbers:
            completion = family.members[number].completion
            end = at + 1 + len(completion)
            ids[at:end] = torch.tensor([*prompt[-1:], *completion])
            labels[at + 1 : end] = ids[at + 1 : end]
            positions[at:end] = torch.arange(len(prompt) - 1, len(prompt) + len(completion))
            branches[at:end], members[at:end] = branch, first + number
            at = end


def _mask(branches: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """Return which token sees which [families, 1, width, width], by the branch and member of each."""
    width = members.shape[1]
    causal = torch.ones((width, width), dtype=torch.bool).tril()
    branch = branches[:, :, None] == branches[:, None, :]
    member = (members[:, :, None] == members[:, None, :]) | (members[:, None, :] == _SHARED)
    return (causal & ((branch & member) | (branches[:, None, :] == _SHARED)))[:, None]
