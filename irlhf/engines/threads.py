"""Ask about several pools of rows at a time, in threads, and pass the answers on in the order of the pools.

For answers that are waited for and not computed here, as those of a server are. What answers is made once, and called
by all threads.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any

from irlhf.engines.pools import Advance, Answered, Engine, Row, Work
from irlhf.errors import IrlhfError
from irlhf.registry import resolve

_AHEAD = 4  # pools a thread that are read before the first of them is passed on

_Answers = Future[Sequence[Any]]
_Queue = SimpleQueue[tuple[list[Any], _Answers] | None]


def answered(pools: Iterator[list[Row]], work: Work, engine: Engine, advance: Advance) -> Answered[Row]:
    """Yield each pool with its answers, in the order of the pools. An error waits for its turn as well."""
    line: deque[tuple[list[Row], _Answers]] = deque()
    tasks: _Queue = SimpleQueue()
    made = None

    def head() -> Generator[tuple[list[Row], Sequence[Any]]]:
        pool, answers = line.popleft()
        found = answers.result()
        advance(len(pool))
        yield pool, found

    try:
        for task in _tasks(pools):
            if made is None and not task[1].done():
                made = resolve(work.door)(*work.arguments)
                _start(engine.workers, made, tasks)
            line.append(task)
            tasks.put(task)
            if len(line) == _AHEAD * engine.workers:
                yield from head()
        while line:
            yield from head()
    finally:
        for _, answers in line:
            answers.cancel()
        for _ in range(engine.workers):
            tasks.put(None)


def _tasks(pools: Iterator[list[Row]]) -> Iterator[tuple[list[Row], _Answers]]:
    try:
        for pool in pools:
            yield pool, Future()
    except IrlhfError as error:
        failed: _Answers = Future()
        failed.set_exception(error)
        yield [], failed


def _start(count: int, made: Any, tasks: _Queue) -> None:
    """Start threads that end with the program, so that Ctrl-C waits for nobody's answer."""
    for _ in range(count):
        Thread(target=_work, args=(made, tasks), daemon=True).start()


def _work(made: Any, tasks: _Queue) -> None:
    while task := tasks.get():
        pool, answers = task
        if answers.done() or not answers.set_running_or_notify_cancel():
            continue
        try:
            answers.set_result(made(pool, _unheard))
        except BaseException as error:  # raised again where the rows are waited for
            answers.set_exception(error)


def _unheard(rows: int) -> None:
    """Count nothing: rows are counted as their turn comes."""
