"""How many requests are under way to one server."""

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from irlhf.executors.thread_pool import DaemonThreadPool
from irlhf.openai_api.concurrency import AdaptiveLimiter, requested_wait


def test_the_limit_grows_by_one_after_as_many_answers_as_it_is_up_to_the_most() -> None:
    gate = AdaptiveLimiter(first=2, most=4)
    seen = []
    for _ in range(9):
        gate.well()
        seen.append(gate.limit)
    assert seen == [2, 3, 3, 3, 4, 4, 4, 4, 4]


def test_requests_that_were_under_way_together_halve_the_limit_once() -> None:
    gate = AdaptiveLimiter(first=8)
    with gate.slot() as one, gate.slot() as two:
        gate.busy(one)
        gate.busy(two)
    assert gate.limit == 4
    with gate.slot() as later:
        gate.busy(later)
    assert gate.limit == 2


def test_one_request_is_always_let_through() -> None:
    gate = AdaptiveLimiter(first=2)
    for _ in range(5):
        with gate.slot() as cuts:
            gate.busy(cuts)
    assert gate.limit == 1


def test_no_more_threads_than_the_limit_are_let_through_while_it_changes() -> None:
    gate, lock, crew = AdaptiveLimiter(first=8, most=32), threading.Lock(), DaemonThreadPool(64)
    now, over = 0, []

    def ask(number: int) -> None:
        nonlocal now
        with gate.slot() as cuts:
            with lock:
                now += 1
                if now > gate.limit and not gate.cuts:
                    over.append((now, gate.limit))
            time.sleep(0.001)
            with lock:
                now -= 1
            gate.busy(cuts) if number > 900 and number % 50 == 0 else gate.well()

    for answer in [crew.submit(ask, number) for number in range(1000)]:
        answer.result(10)
    assert (over, now, gate.under_way) == ([], 0, 0)
    assert gate.cuts


def test_a_pause_holds_everybody_and_says_whether_it_is_new() -> None:
    gate, crew, began = AdaptiveLimiter(), DaemonThreadPool(4), time.monotonic()

    def passed() -> float:
        with gate.slot():
            return time.monotonic() - began

    assert [gate.pause(0.1), gate.pause(0.2), gate.pause(0.05)] == [True, False, False]
    times = [answer.result(5) for answer in [crew.submit(passed) for _ in range(20)]]
    assert 0.2 <= min(times) < max(times) < 1
    assert gate.pause(0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "20", "retry-after": "3"}, 0.02),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3),
        ({"retry-after": "1e999"}, float("inf")),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 99 Oct 99999 07:28:00 GMT"}, 0),
        ({}, 0),
    ],
)
def test_what_a_server_asks_for_is_read(headers: dict[str, str], seconds: float) -> None:
    assert requested_wait(headers) == seconds


def test_a_date_is_waited_for() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < requested_wait({"retry-after": date}) <= 90
