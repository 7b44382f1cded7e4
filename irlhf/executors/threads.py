"""Ask about several pools of rows at a time, in threads, and pass the answers on in the order of the pools.

For answers that are waited for and not computed here, as those of a server are. What answers is made once, and called
by all threads.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from irlhf.core.errors import IrlhfError
from irlhf.core.registry import resolve
from irlhf.executors.base import Advance, Answered, Engine, Row, Work
from irlhf.executors.thread_pool import DaemonThreadPool

_AHEAD = 4  # pools a thread that are read before the first of them is passed on

_Answers = Future[Sequence[Any]]


def run_in_threads(pools: Iterator[list[Row]], work: Work, engine: Engine, advance: Advance) -> Answered[Row]:
    """Yield each pool with its answers, in the order of the pools. An error waits for its turn as well."""
    line: deque[tuple[list[Row], _Answers]] = deque()
    threads = DaemonThreadPool(engine.workers)
    made = None

    def head() -> Generator[tuple[list[Row], Sequence[Any]]]:
        pool, answers = line.popleft()
        result = answers.result()
        advance(len(pool))
        yield pool, result

    try:
        for pool in _read(pools):
            if isinstance(pool, IrlhfError):
                line.append(([], _failed(pool)))
            else:
                made = made or resolve(work.door)(*work.arguments)
                line.append((pool, threads.submit(made, pool, _unheard)))
            if len(line) == _AHEAD * engine.workers:
                yield from head()
        while line:
            yield from head()
    finally:
        for _, answers in line:
            answers.cancel()
        threads.close()


def _read(pools: Iterator[list[Row]]) -> Iterator[list[Row] | IrlhfError]:
    """Yield the pools, and at their end what ended them too early."""
    try:
        yield from pools
    except IrlhfError as error:
        yield error


def _failed(error: IrlhfError) -> _Answers:
    answers: _Answers = Future()
    answers.set_exception(error)
    return answers


def _unheard(rows: int) -> None:
    """Count nothing: rows are counted as their turn comes."""
