"""Threads that wait for others' answers, and end with the program, so that Ctrl-C waits for nobody."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any


class Crew:
    """So many threads, which start with the first call."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self.started = False

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have it called by the next thread that is free."""
        if not self.started:
            self.started = True
            for _ in range(self.size):
                Thread(target=self._work, daemon=True).start()
        promised: Future[Any] = Future()
        self.calls.put((promised, call, arguments))
        return promised

    def _work(self) -> None:
        while True:
            promised, call, arguments = self.calls.get()
            if not promised.set_running_or_notify_cancel():
                continue
            try:
                promised.set_result(call(*arguments))
            except BaseException as error:  # raised again where it is waited for
                promised.set_exception(error)
