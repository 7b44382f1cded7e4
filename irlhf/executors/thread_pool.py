"""A pool of daemon threads, so that Ctrl-C does not wait for running requests."""

import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

Answer = TypeVar("Answer")

_Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]
_Tasks = SimpleQueue[_Task | None]


class DaemonThreadPool:
    """Daemon threads that run calls in order of submission. They start on demand.

    The interpreter waits at exit for the threads of ThreadPoolExecutor, but not for these.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.started = 0
        self.lock = Lock()
        self.tasks: _Tasks = SimpleQueue()
        # Threads hold the queue, not the pool, so they end when the pool is garbage collected.
        self.close = weakref.finalize(self, _stop, self.tasks, size)

    def submit(self, call: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
        """Submit a call and return its future. A call cancelled before it starts is not run."""
        answer: Future[Answer] = Future()
        self.tasks.put((answer, call, arguments))
        with self.lock:
            if self.started < self.size:
                self.started += 1
                Thread(target=_work, args=(self.tasks,), daemon=True).start()
        return answer


def _stop(tasks: _Tasks, size: int) -> None:
    """Stop all threads after the calls already submitted."""
    for _ in range(size):
        tasks.put(None)


def _work(tasks: _Tasks) -> None:
    while task := tasks.get():
        _run(*task)
        del task  # the call may hold a reference to the pool


def _run(answer: Future[Any], call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(call(*arguments))
    except BaseException as error:  # raised again by result()
        answer.set_exception(error)
