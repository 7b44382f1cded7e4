"""Process several pools of rows concurrently in threads, and yield the results in the order of the pools.

This is for work that waits, such as requests to a server. The factory is called once, and its function by all threads.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from irlhf.core.errors import IrlhfError
from irlhf.core.registry import resolve
from irlhf.executors.base import Advance, Answered, Engine, Row, Work, new_counts
from irlhf.executors.thread_pool import DaemonThreadPool

_POOLS_PER_THREAD = 4  # pools per thread that are read ahead

_Answers = Future[Sequence[Any]]


def run_in_threads(pools: Iterator[list[Row]], work: Work, engine: Engine, advance: Advance) -> Answered[Row]:
    """Yield each pool with its results, in the order of the pools. Errors are raised in the same order."""
    queue: deque[tuple[list[Row], _Answers]] = deque()
    threads = DaemonThreadPool(engine.workers)
    function = None

    def head() -> Generator[tuple[list[Row], Sequence[Any]]]:
        pool, answers = queue.popleft()
        result = answers.result()
        advance(len(pool))
        yield pool, result

    try:
        for pool in _read(pools):
            if isinstance(pool, IrlhfError):
                queue.append(([], _failed(pool)))
            else:
                function = function or resolve(work.door)(*work.arguments)
                queue.append((pool, threads.submit(function, pool, _ignore_count)))
            if len(queue) == _POOLS_PER_THREAD * engine.workers:
                yield from head()
        while queue:
            yield from head()
        work.counts.update(new_counts(function))
    finally:
        for _, answers in queue:
            answers.cancel()
        threads.close()


def _read(pools: Iterator[list[Row]]) -> Iterator[list[Row] | IrlhfError]:
    """Yield the pools, and finally the error that ended them, if any."""
    try:
        yield from pools
    except IrlhfError as error:
        yield error


def _failed(error: IrlhfError) -> _Answers:
    answers: _Answers = Future()
    answers.set_exception(error)
    return answers


def _ignore_count(rows: int) -> None:
    """Ignore the count; rows are counted in order as their pools are yielded."""
