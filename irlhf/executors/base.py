"""Process rows in pools: in this process, in threads, or on a Ray cluster."""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeVar, runtime_checkable

from irlhf.core.errors import ConfigError
from irlhf.core.hashing import fingerprint
from irlhf.core.registry import ENGINES, lookup, resolve


class Named(Protocol):
    """A row with an id."""

    @property
    def id(self) -> str:
        """The id of the row."""


Row = TypeVar("Row", bound=Named)
Answered = Generator[tuple[list[Row], Sequence[Any]]]  # pools, each with one result per row
Advance = Callable[[int], None]  # called with the number of finished rows


@dataclass(frozen=True)
class Engine:
    """Where the work runs. The results do not depend on it."""

    name: str = "local"
    workers: int = 0  # threads, or workers of a cluster; 0: as many as the cluster has

    def __post_init__(self) -> None:
        if self.workers and self.name == "local":
            raise ConfigError("--workers needs --executor ray; remove --workers")


LOCAL = Engine()


@runtime_checkable
class Counting(Protocol):
    """A function of a worker that counts what its results do not say."""

    def new_counts(self) -> Counter[str]:
        """Return the counts since the last call."""


@dataclass(frozen=True)
class Work:
    """A factory that each worker calls once. The function it returns, `f(pool, advance)`, gives one result per row."""

    door: str  # "module:attribute" of the factory
    arguments: tuple[Any, ...]  # of the factory; they are sent to the workers
    counts: Counter[str] = field(default_factory=Counter)  # of all workers, once all pools are done


def new_counts(function: Any) -> Counter[str]:
    """Return what a worker's function has counted since the last call, if it counts anything."""
    return function.new_counts() if isinstance(function, Counting) else Counter()


def pooled(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Yield the rows in pools of this size."""
    while pool := list(islice(rows, size)):
        yield pool


def fixed_pools(rows: Iterator[Row], size: int, written: Set[int]) -> Iterator[list[Row]]:
    """Yield the rows in pools by their position in the input, and skip the pools that are written already.

    The last digits of a model's results depend on the rows of a batch, and batches are formed within a pool. The pool
    in which a run was interrupted is therefore repeated whole, with its written rows. Rows are written in order:
    unwritten rows before the last written one were rejected, and form pools of their own.
    """
    written_so_far = 0
    rejected: list[Row] = []
    for pool in pooled(rows, size):
        missing = [row for row in pool if fingerprint(row.id) not in written]
        written_so_far += len(pool) - len(missing)
        if written_so_far < len(written):
            rejected += missing
            if len(rejected) >= size:
                yield rejected
                rejected = []
            continue
        if rejected:
            yield rejected
            rejected = []
        if missing:
            yield pool


def run_pools(pools: Iterator[list[Row]], work: Work, engine: Engine, advance: Advance) -> Answered[Row]:
    """Yield each pool with its results, in the order of the pools. The factory is not called without pools."""
    results: Answered[Row] = lookup(ENGINES, engine.name, "engine")(pools, work, engine, advance)
    return results


def run_here(pools: Iterator[list[Row]], work: Work, engine: Engine, advance: Advance) -> Answered[Row]:
    """Run the work in this process."""
    function = None
    for pool in pools:
        function = function or resolve(work.door)(*work.arguments)
        yield pool, function(pool, advance)
    work.counts.update(new_counts(function))
