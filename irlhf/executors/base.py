"""Rows worked on pool by pool: in this process, in its threads, or in the workers of a Ray cluster."""

from collections.abc import Callable, Generator, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from irlhf.core.errors import ConfigError
from irlhf.core.hashing import fingerprint
from irlhf.core.registry import ENGINES, lookup, resolve


class Named(Protocol):
    """A row that a message can name."""

    @property
    def id(self) -> str:
        """The row's own name."""


Row = TypeVar("Row", bound=Named)
Answered = Generator[tuple[list[Row], Sequence[Any]]]  # pools with one answer for each of their rows
Advance = Callable[[int], None]  # counts rows as they are done


@dataclass(frozen=True)
class Engine:
    """Where the work is done. What comes out does not depend on it."""

    name: str = "local"
    workers: int = 0  # of a cluster, where 0 is as many as fit; or threads

    def __post_init__(self) -> None:
        if self.workers and self.name == "local":
            raise ConfigError("--workers belongs to --executor ray; leave it out")


LOCAL = Engine()


@dataclass(frozen=True)
class Work:
    """What each worker makes once, to ask it pool after pool: `made(pool, advance)` gives one answer a row."""

    door: str  # "module:attribute" of what makes it
    arguments: tuple[Any, ...]  # that it is made with; they travel to the workers


def pooled(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Part rows, as they come, into pools of this size."""
    while pool := list(islice(rows, size)):
        yield pool


def fixed_pools(rows: Iterator[Row], size: int, written: Set[int]) -> Iterator[list[Row]]:
    """Part rows into pools by their position in the input, and leave out the pools that are written already.

    A model's last digits depend on which rows share a batch, and batches are formed within a pool. So the pool in
    which a run was interrupted comes whole, with its written rows. Rows are written in order: what is missing before
    the last written row was set aside, and comes alone.
    """
    met = 0
    set_aside: list[Row] = []
    for pool in pooled(rows, size):
        missing = [row for row in pool if fingerprint(row.id) not in written]
        met += len(pool) - len(missing)
        if met < len(written):
            set_aside += missing
            if len(set_aside) >= size:
                yield set_aside
                set_aside = []
            continue
        if set_aside:
            yield set_aside
            set_aside = []
        if missing:
            yield pool


def run_pools(pools: Iterator[list[Row]], work: Work, engine: Engine, advance: Advance) -> Answered[Row]:
    """Yield each pool with its answers, in the order of the pools. Nothing is made before the first one."""
    results: Answered[Row] = lookup(ENGINES, engine.name, "engine")(pools, work, engine, advance)
    return results


def run_here(pools: Iterator[list[Row]], work: Work, engine: Engine, advance: Advance) -> Answered[Row]:
    """Do the work in this process."""
    made = None
    for pool in pools:
        made = made or resolve(work.door)(*work.arguments)
        yield pool, made(pool, advance)
