"""Threads that take calls, and end with the program."""

import gc
import subprocess
import sys
import threading
import time

import pytest

from irlhf.executors.thread_pool import DaemonThreadPool

SLOW = """
import time
from irlhf.executors.thread_pool import DaemonThreadPool
answer = DaemonThreadPool(2).submit(time.sleep, 30)
while not answer.running():
    time.sleep(0.01)
"""


def test_calls_are_made_at_the_same_time_and_no_more_than_the_crew_has_threads() -> None:
    meeting = threading.Barrier(4, timeout=5)
    crew = DaemonThreadPool(4)
    answers = [crew.submit(meeting.wait) for _ in range(8)]
    assert sorted(answer.result(5) for answer in answers) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert crew.started == 4


def test_an_error_is_raised_where_the_answer_is_waited_for_and_the_thread_goes_on() -> None:
    crew = DaemonThreadPool(1)
    with pytest.raises(ZeroDivisionError):
        crew.submit(divmod, 1, 0).result(5)
    assert crew.submit(divmod, 7, 2).result(5) == (3, 1)


def test_a_call_that_is_cancelled_before_its_turn_is_not_made() -> None:
    crew, hold, made = DaemonThreadPool(1), threading.Event(), []
    first = crew.submit(hold.wait, 5)
    second = crew.submit(made.append, "second")
    assert second.cancel()
    hold.set()
    assert (first.result(5), crew.submit(len, made).result(5)) == (True, 0)


class Owner:
    """Holds a crew that calls it, as a scorer does."""

    def __init__(self) -> None:
        self.crew = DaemonThreadPool(3)

    def call(self) -> int:
        return 1


@pytest.mark.parametrize("closed", [True, False])
def test_threads_go_when_the_crew_does(closed: bool) -> None:
    before = set(threading.enumerate())
    owner = Owner()
    assert sum(answer.result(5) for answer in [owner.crew.submit(owner.call) for _ in range(6)]) == 6
    threads = set(threading.enumerate()) - before
    assert len(threads) == 3
    if closed:
        owner.crew.close()
    else:
        del owner
        gc.collect()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)


def test_the_end_of_the_program_waits_for_no_call() -> None:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", SLOW], check=True, timeout=20)
    assert time.monotonic() - began < 15
