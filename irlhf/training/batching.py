"""Group rows into batches by length, and compute shared beginnings of prompts once.

    prompt, reward line, completion     one family of two members, in one row of a batch:
    prompt, reward line, completion     prompt | reward line, completion | reward line, completion

The reward line is at the end of the prompt, so all completions of a prompt share their beginning. A member attends to
the shared tokens and to itself, not to other members, and its positions continue after the shared tokens. Its loss
therefore equals the loss of a separate row. Members with equal prompts share the whole prompt, so a family is a tree
of depth three:

    prompt | reward line A | completion 1 | completion 2 | reward line B | completion 1 | completion 2

    bucketed   rows of similar length, one per row of a batch
    shared     families of similar width, one per row of a batch

A row has the same loss and gradient in both layouts, but a step may contain different rows.
"""

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

IGNORED = -100  # label of tokens without a loss
_POOL = 50  # batches sorted by length together: enough to limit padding, few enough to mix rows
_PADDING, _SHARED = -1, -2  # member numbers of padding and of shared tokens


class Encoded(NamedTuple):
    """One training row as token ids."""

    prompt: list[int]
    completion: list[int]
    group: str = ""  # equal for rows of one prompt

    def __len__(self) -> int:
        """Return the number of tokens of prompt and completion."""
        return len(self.prompt) + len(self.completion)


class Family(NamedTuple):
    """Rows that begin with the same tokens; a family may have one member.

    Objectives that compare members list them in `comparisons`: each is a tuple of member numbers, the correct one
    first. `own` holds the members whose completion satisfies the target of their prompt; None means all.
    """

    shared: int  # number of tokens at the beginning of all members
    members: tuple[Encoded, ...]
    own: tuple[int, ...] | None = None
    comparisons: tuple[tuple[int, ...], ...] = ()

    @property
    def branches(self) -> dict[tuple[int, ...], list[int]]:
        """The member numbers of each distinct prompt."""
        branches: dict[tuple[int, ...], list[int]] = {}
        for number, member in enumerate(self.members):
            branches.setdefault(tuple(member.prompt), []).append(number)
        return branches

    @property
    def width(self) -> int:
        """Number of tokens to compute."""
        # The last prompt token predicts the first completion token, so every member has its own copy.
        prompts = sum(len(prompt) - 1 - self.shared for prompt in self.branches)
        return self.shared + prompts + sum(1 + len(member.completion) for member in self.members)


def alone(rows: Sequence[Encoded]) -> list[Family]:
    """Return each row as a family of one member."""
    return [Family(0, (row,)) for row in rows]


def together(rows: Sequence[Encoded], widest: int, most: int) -> list[Family]:
    """Return the rows of each prompt as families of at most `widest` tokens and `most` rows, in the order of the rows.

    Duplicates of a row are placed in different families, so that no step counts a row twice.
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
    """Return input_ids, labels and `sequences` [families, width]; with shared prompts, also positions and a mask.

    `sequences` holds the member number of each label, counted over the whole batch, and -1 elsewhere. The mask
    [families, 1, width, width] is true where the later token attends to the earlier one. Separate rows, padded at the
    end, need no mask with a causal model, and attention without a mask is faster.
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
    """Return the compared members of a batch, by their number over the whole batch.

    own           [members]                whether the member counts in the likelihood
    comparisons   [comparisons, options]   member numbers, the correct one first, padded with -1
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
    """Turns a list of families into one batch.

    Without `shares`, each compared member is a separate row, because not every model supports a mask that hides
    members from each other.
    """

    def __init__(self, padding: int, shares: bool = True) -> None:
        self.padding, self.shares = padding, shares

    def __call__(self, families: Sequence[Family]) -> dict[str, torch.Tensor]:
        """Return the tensors of `lay`, and those of `lay_comparisons` if members are compared."""
        compares = any(family.own is not None for family in families)
        rows = families
        if compares and not self.shares:
            rows = [Family(0, (member,)) for family in families for member in family.members]
        return lay(rows, self.padding) | (lay_comparisons(families) if compares else {})


class LengthBatches(Sampler[list[int]]):
    """Samples batches of families of similar width, each with about the same number of tokens.

    The number of batches is the same as with equal numbers of rows: batches of short rows are larger. The order depends
    only on the seed and the epoch, so a resumed run sees the same rows. Each process takes its share of every batch.
    """

    def __init__(self, widths: Sequence[int], batch: float, seed: int, share: tuple[int, int] = (0, 1)) -> None:
        self.widths, self.batch, self.seed = widths, batch, seed
        self.costs = widths  # balanced over batches
        self.process, self.processes = share
        self.epoch = 0
        # Draws the families of an epoch and returns their widths.
        self.redraw: Callable[[int], Sequence[int]] | None = None
        self.second_phase: int | None = None  # from this batch on, row numbers are offset by the number of rows

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
        """Set the epoch; the Trainer calls this before each pass over the rows."""
        self.epoch = epoch
        if self.redraw:
            self.widths = self.costs = self.redraw(epoch)

    def _pools(self) -> list[range]:
        """Return the ranges of rows that are sorted together."""
        size = max(1, round(_POOL * self.batch))
        starts = list(range(0, len(self.widths), size))
        if len(starts) > 1 and len(self.widths) - starts[-1] < max(self.batch, self.processes):
            starts.pop()  # too few rows for a batch: merge them into the previous range
        return [range(start, end) for start, end in zip(starts, [*starts[1:], len(self.widths)], strict=True)]

    def _parts(self, rows: int) -> int:
        """Return the number of batches of `rows` rows; each process gets at least one row of each batch."""
        return max(1, min(round(rows / self.batch), rows // self.processes))

    def _cut(self, rows: Sequence[int]) -> list[list[int]]:
        """Return the rows of a pool, sorted by width, in batches of about the same number of tokens."""
        by_width = sorted(rows, key=lambda i: self.widths[i])
        parts = self._parts(len(by_width))
        costs = list(accumulate(self.costs[i] for i in by_width))
        cuts = [0]
        for part in range(1, parts):
            cut = bisect_left(costs, part * costs[-1] / parts) + 1
            least, most = cuts[-1] + self.processes, len(by_width) - (parts - part) * self.processes
            cuts.append(min(max(cut, least), most))
        return [by_width[start:end] for start, end in zip(cuts, [*cuts[1:], len(by_width)], strict=True)]


def family_of(rows: Sequence[Encoded]) -> Family:
    """Return the rows of one prompt as a family."""
    if len(rows) == 1:
        return Family(0, tuple(rows))
    first, last = min(row.prompt for row in rows), max(row.prompt for row in rows)
    # The common prefix of the first and the last prompt in sorted order is common to all. The last prompt token stays
    # separate, because it predicts the first completion token.
    most = min(len(row.prompt) for row in rows) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), most)
    return Family(min(same, most), tuple(rows))


def compared(rows: Sequence[Encoded], own: Sequence[int], comparisons: Sequence[Sequence[int]]) -> Family:
    """Return the rows of one prompt as a family with comparisons, see `Family`."""
    return family_of(rows)._replace(own=tuple(own), comparisons=tuple(map(tuple, comparisons)))


def _lay(family: Family, first: int, tensors: tuple[torch.Tensor, ...]) -> None:
    """Fill the row of a family in ids, labels, positions, branches and members; members are numbered from `first`."""
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
    """Return the attention mask [families, 1, width, width] from the branch and member of each token."""
    width = members.shape[1]
    causal = torch.ones((width, width), dtype=torch.bool).tril()
    branch = branches[:, :, None] == branches[:, None, :]
    member = (members[:, :, None] == members[:, None, :]) | (members[:, None, :] == _SHARED)
    return (causal & ((branch & member) | (branches[:, None, :] == _SHARED)))[:, None]
