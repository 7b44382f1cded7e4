"""A few threads that end with the program, so that Ctrl-C waits for nobody's answer."""

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
    """Threads that take calls in the order they were handed in. They start as calls come.

    Not the standard library's executor, whose threads the interpreter waits for when it ends.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.started = 0
        self.lock = Lock()
        self.tasks: _Tasks = SimpleQueue()
        # Threads know the line of calls and not the crew, and so go when nobody holds the crew any longer.
        self.close = weakref.finalize(self, _dismiss, self.tasks, size)

    def submit(self, call: Callable[..., Answer], *arguments: Any) -> Future[Answer]:
        """Hand in a call. One that is cancelled before its turn is not made."""
        answer: Future[Answer] = Future()
        self.tasks.put((answer, call, arguments))
        with self.lock:
            if self.started < self.size:
                self.started += 1
                Thread(target=_work, args=(self.tasks,), daemon=True).start()
        return answer


def _dismiss(tasks: _Tasks, size: int) -> None:
    """Let every thread go once the calls before are made."""
    for _ in range(size):
        tasks.put(None)


def _work(tasks: _Tasks) -> None:
    while task := tasks.get():
        _make(*task)
        del task  # what it calls may hold the crew


def _make(answer: Future[Any], call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(call(*arguments))
    except BaseException as error:  # raised again where the answer is waited for
        answer.set_exception(error)
