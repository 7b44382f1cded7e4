"""Rows into batches: what is alike in length stands side by side, what begins alike is computed once.

    prompt, reward line, completion     one family of two members, in one row of a batch:
    prompt, reward line, completion     prompt | reward line, completion | reward line, completion

Because the reward stands at the end of the prompt, all completions of a prompt begin alike. A member sees
what is shared and itself, never another member, and its positions go on behind what is shared: its loss is
the one it has alone.

    padded     rows drawn at random, one in each row of a batch, padded to the longest
    bucketed   rows of like length, one in each row of a batch
    shared     families of like width, one in each row of a batch
    packed     families drawn at random, several in a row of a batch; none sees another, each starts at place 0

The rows of a step have the same loss and gradient in all four; which rows meet in a step is not the same.
"""

import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

IGNORED = -100  # the label that losses leave out
_POOL = 50  # batches that are sorted by length together: enough to spare padding, few enough to mix
_PADDING = -1  # the member that padding belongs to
_SHARED = 0


class Encoded(NamedTuple):
    """One training row as token ids."""

    prompt: list[int]
    completion: list[int]
    group: str = ""  # rows of one prompt share it

    def __len__(self) -> int:
        """Return the tokens of prompt and completion."""
        return len(self.prompt) + len(self.completion)


class Family(NamedTuple):
    """Rows that begin with the same tokens; a family of one is a row by itself."""

    shared: int  # tokens that all members begin with
    members: tuple[Encoded, ...]

    @property
    def width(self) -> int:
        """Tokens that are computed."""
        return sum(map(len, self.members)) - self.shared * (len(self.members) - 1)


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
        roomy = (one for one in families if len(one) < most and row not in one)
        fitting = (one for one in roomy if _family([*one, row]).width <= widest)
        mine = next(fitting, None)
        if mine is None:
            families.append([row])
        else:
            mine.append(row)
    return [_family(one) for families in groups.values() for one in families]


def packed(families: Iterable[Family]) -> list[list[Family]]:
    """Return families in rows, none wider than the widest of them: the first row that has room takes the next."""
    rows: list[list[Family]] = []
    room: list[int] = []  # tokens that are left in each row
    ordered = sorted(families, key=lambda family: family.width, reverse=True)
    for family in ordered:
        roomy = next((i for i, left in enumerate(room) if family.width <= left), len(rows))
        if roomy == len(rows):
            rows.append([])
            room.append(ordered[0].width)
        rows[roomy].append(family)
        room[roomy] -= family.width
    return rows


def lay(rows: Sequence[Sequence[Family]], padding: int) -> dict[str, torch.Tensor]:
    """Return input_ids and labels [rows, width]; where a row holds several completions, positions and a mask too.

    The mask is [rows, 1, width, width], true where the later token sees the earlier one. A causal model never
    looks at what comes later, so rows by themselves, padded behind their ends, need no mask, and attention
    without one is faster.
    """
    size = len(rows), max(sum(family.width for family in row) for row in rows)
    ids, labels = torch.full(size, padding), torch.full(size, IGNORED)
    positions = torch.zeros(size, dtype=torch.long)
    owners, members = torch.full(size, _PADDING), torch.full(size, _PADDING)
    for i, row in enumerate(rows):
        at = 0
        for number, family in enumerate(row):
            place = slice(at, at + family.width)
            _lay(family, (ids[i, place], labels[i, place], positions[i, place], members[i, place]))
            owners[i, place] = number
            at = place.stop
    batch = {"input_ids": ids, "labels": labels}
    if any(len(row) > 1 or len(family.members) > 1 for row in rows for family in row):
        batch |= {"position_ids": positions, "attention_mask": _mask(owners, members)}
    return batch


class Collator:
    """Puts the families of one batch side by side, or packs several into a row."""

    def __init__(self, padding: int, packs: bool = False) -> None:
        self.padding, self.packs = padding, packs

    def __call__(self, families: Sequence[Family]) -> dict[str, torch.Tensor]:
        """Return what the model is given and the labels, as `lay` does."""
        return lay(packed(families) if self.packs else [[family] for family in families], self.padding)


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

    def __len__(self) -> int:
        return sum(self._parts(len(pool)) for pool in self._pools())

    def __iter__(self) -> Iterator[list[int]]:
        rng = random.Random(f"{self.seed}/{self.epoch}")
        order = rng.sample(range(len(self.widths)), len(self.widths))
        batches = [batch for pool in self._pools() for batch in self._cut([order[i] for i in pool])]
        rng.shuffle(batches)
        return (batch[self.process :: self.processes] for batch in batches)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each pass over the rows."""
        self.epoch = epoch

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


def _family(rows: Sequence[Encoded]) -> Family:
    if len(rows) == 1:
        return Family(0, tuple(rows))
    first, last = min(row.prompt for row in rows), max(row.prompt for row in rows)
    # Between the first and the last in order every other begins as both do. One token stays a member's own,
    # because it predicts the member's first token.
    most = min(len(row.prompt) for row in rows) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), most)
    return Family(min(same, most), tuple(rows))


def _lay(family: Family, rows: tuple[torch.Tensor, ...]) -> None:
    """Write one family into its row of ids, labels, positions and members."""
    ids, labels, positions, members = rows
    shared, at = family.shared, family.shared
    ids[:at] = torch.tensor(family.members[0].prompt[:at])
    positions[:at] = torch.arange(at)
    members[:at] = _SHARED
    for number, member in enumerate(family.members, _SHARED + 1):
        own = torch.tensor(member.prompt[shared:] + member.completion)
        end = at + len(own)
        ids[at:end] = own
        labels[end - len(member.completion) : end] = own[len(own) - len(member.completion) :]
        positions[at:end] = torch.arange(shared, shared + len(own))
        members[at:end] = number
        at = end
    labels[0] = IGNORED  # nothing foretells a first token, least of all what stands before it in a packed row


def _mask(owners: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """Return who sees whom [rows, 1, width, width] from the family, and the member of it, that each token is of."""
    width = members.shape[1]
    causal = torch.ones((width, width), dtype=torch.bool).tril()
    family = owners[:, :, None] == owners[:, None, :]
    member = members[:, :, None] == members[:, None, :]
    return (causal & family & (member | (members[:, None, :] == _SHARED)))[:, None]
