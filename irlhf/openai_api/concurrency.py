"""How many requests one server is asked at the same time: more while it answers, half as many when it is too much."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from threading import Condition

FIRST = 8  # requests under way before anything is known of the server
MOST = 64


class AdaptiveLimiter:
    """Lets threads through to one server, `limit` at a time, and none while it asks for a pause.

    A request learns of trouble that began before it as well: those under way when the limit was halved tell of the
    same trouble, and do not halve it again.
    """

    def __init__(self, first: int = FIRST, most: int = MOST) -> None:
        self.limit = first
        self.most = most
        self.under_way = 0
        self.cuts = 0  # how often the limit was halved
        self.answered = 0  # since the limit last changed
        self.opens = 0.0  # when the pause ends, on the clock that never goes back
        self.changed = Condition()

    @contextmanager
    def slot(self) -> Iterator[int]:
        """Wait for room, and hold it; gives the number of cuts so far, which `busy` wants to hear."""
        with self.changed:
            while (wait := self._closed()) or self.under_way >= self.limit:
                self.changed.wait(wait or None)
            self.under_way += 1
            cuts = self.cuts
        try:
            yield cuts
        finally:
            with self.changed:
                self.under_way -= 1
                self._call()

    def well(self) -> None:
        """Hear of an answer: one request more after as many of them as the limit is."""
        with self.changed:
            self.answered += 1
            if self.answered >= self.limit < self.most:
                self.limit += 1
                self.answered = 0
                self._call()

    def busy(self, cuts: int) -> None:
        """Hear that it was too much for the server, from a request that set out after so many cuts."""
        with self.changed:
            if cuts == self.cuts:
                self.cuts += 1
                self.limit = max(1, self.limit // 2)
                self.answered = 0

    def pause(self, seconds: float) -> bool:
        """Let nobody through for so long. Returns whether there was no pause before."""
        with self.changed:
            fresh = not self._closed()
            self.opens = max(self.opens, time.monotonic() + seconds)
            return fresh

    def _closed(self) -> float:
        """Return the seconds until the pause ends, or 0."""
        return max(0.0, self.opens - time.monotonic())

    def _call(self) -> None:
        self.changed.notify(max(0, self.limit - self.under_way))


def requested_wait(headers: Mapping[str, str]) -> float:
    """Return the seconds that a server asks to be left alone for, or 0 where it says nothing that can be read."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        value = headers.get(name, "")
        try:
            wait = float(value) / unit
        except ValueError:
            wait = _until(value)
        if wait > 0:  # which "nan" is not
            return wait
    return 0.0


def _until(date: str) -> float:
    """Return the seconds until an HTTP date."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
