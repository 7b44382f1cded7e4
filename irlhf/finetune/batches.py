"""Rows into batches: what is alike in length stands side by side, what begins alike is computed once.

    prompt, reward line, completion     one family of two members, in one row of a batch:
    prompt, reward line, completion     prompt | reward line, completion | reward line, completion

Because the reward stands at the end of the prompt, all completions of a prompt begin alike. A member sees
what is shared and itself, never another member, and its positions go on behind what is shared: its loss is
the one it has alone.
"""

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
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


class Collator:
    """Puts the families of one batch side by side, padded behind their ends.

    A causal model never looks at what comes later, so rows by themselves need no attention mask, and
    attention without one is faster.
    """

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, families: Sequence[Family]) -> dict[str, torch.Tensor]:
        """Return input_ids and labels [families, width]; where something is shared, positions and a mask too.

        The mask is [families, 1, width, width], true where the later token sees the earlier one.
        """
        width = max(family.width for family in families)
        ids = torch.full((len(families), width), self.padding)
        labels = torch.full((len(families), width), IGNORED)
        positions = torch.zeros((len(families), width), dtype=torch.long)
        members = torch.full((len(families), width), _PADDING)
        for i, family in enumerate(families):
            _lay(family, (ids[i], labels[i], positions[i], members[i]))
        batch = {"input_ids": ids, "labels": labels}
        if any(len(family.members) > 1 for family in families):
            batch |= {"position_ids": positions, "attention_mask": _mask(members)}
        return batch


class LengthBatches(Sampler[list[int]]):
    """Batches of families of like width and, together, of about equally many tokens.

    There are as many batches as equal numbers of rows would make: short rows stand in large batches, long
    ones in small. The order hangs on the seed and the epoch alone: a run that goes on from a checkpoint
    meets the rows that it would have met. Of several processes each takes its share of every batch.
    """

    def __init__(self, widths: Sequence[int], batch: float, seed: int, share: tuple[int, int] = (0, 1)) -> None:
        self.widths, self.batch, self.seed = widths, batch, seed
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
        tokens = list(accumulate(self.widths[i] for i in alike))
        cuts = [0]
        for part in range(1, parts):
            wanted = bisect_left(tokens, part * tokens[-1] / parts) + 1
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


def _mask(members: torch.Tensor) -> torch.Tensor:
    """Return who sees whom [families, 1, width, width] from the member that each token belongs to."""
    width = members.shape[1]
    causal = torch.ones((width, width), dtype=torch.bool).tril()
    same = members[:, :, None] == members[:, None, :]
    return (causal & (same | (members[:, None, :] == _SHARED)))[:, None]
