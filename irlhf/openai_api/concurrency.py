"""Limit concurrent requests to a server: slowly more while it answers, half as many when it is overloaded."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from threading import Condition

FIRST = 8  # concurrent requests at the start
MOST = 64


class AdaptiveLimiter:
    """Lets `limit` threads at a time send a request, and none while the server asks for a pause.

    Requests that were sent before the limit was halved report the same overload, so they do not halve it again.
    """

    def __init__(self, first: int = FIRST, most: int = MOST) -> None:
        self.limit = first
        self.most = most
        self.under_way = 0
        self.cuts = 0  # how often the limit was halved
        self.answered = 0  # since the limit last changed
        self.opens = 0.0  # when the pause ends, on the monotonic clock
        self.changed = Condition()

    @contextmanager
    def slot(self) -> Iterator[int]:
        """Hold one of the slots; yields the number of cuts so far, which `busy` takes."""
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
        """Count a successful request. After `limit` of them, the limit grows by one, up to `most`."""
        with self.changed:
            self.answered += 1
            if self.answered >= self.limit < self.most:
                self.limit += 1
                self.answered = 0
                self._call()

    def busy(self, cuts: int) -> None:
        """Halve the limit, if it was not halved since the overloaded request was sent."""
        with self.changed:
            if cuts == self.cuts:
                self.cuts += 1
                self.limit = max(1, self.limit // 2)
                self.answered = 0

    def pause(self, seconds: float) -> bool:
        """Send no requests for so long. Return whether there was no pause before."""
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
    """Return the seconds that a server asks to wait, or 0 if it does not say or it cannot be parsed."""
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
