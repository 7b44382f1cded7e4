"""Hand pools of rows to the workers of a Ray cluster, and pass the answers on in the order of the rows.

        pools ──▶ line of tasks, 2 a worker ──▶ head of the line, once it is answered ──▶ caller
                     │             ▲
                     ▼             │
                  free worker ── answers, or died: the task waits for another worker

Actors and a line of our own, because Ray Data would have a data set where a stream comes in, and would give it back
in blocks: here a row is written as soon as its turn has come, and what is in memory does not grow.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError, IrlhfError
from irlhf.core.registry import resolve
from irlhf.executors.base import Advance, Answered, Engine, Row, Work

# Ray reads these when it is loaded. It prints its workers' troubles to stdout, where our rows go; and whoever reaches
# a cluster may run code in it, so one that stays on this machine listens to this machine alone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ModuleNotFoundError as missing:
    raise ConfigError("--executor ray needs Ray: pip install 'irlhf[ray]'") from missing

_AHEAD = 2  # pools a worker that are read before the first of them is passed on
_PATIENCE = 120.0  # seconds until a worker must have come up, where none is at work
_LIVES = 3  # workers that may die on one pool, or before they have begun
_ALONE = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}  # a cluster of this machine's own


@dataclass(eq=False)
class _Task:
    """A pool on its way. `error` waits for its turn, behind the rows before it, as it would in one process."""

    pool: list[Any]
    answers: Sequence[Any] | None = None
    error: Exception | None = None
    handed: bool = False
    deaths: int = 0

    @property
    def ended(self) -> bool:
        return self.answers is not None or self.error is not None


class _Worker:
    """A process of the cluster, which stands where the driver stands and finds the modules that it finds."""

    def __init__(self, folder: str, path: Sequence[str], work: Work) -> None:
        if Path(folder).is_dir():  # it need not be there on another machine
            os.chdir(folder)
        sys.path.extend(folder for folder in path if folder not in sys.path)
        self.work = work
        self.made: Any = None

    def stand(self) -> None:
        """Return once this process has come up."""

    def answer(self, pool: list[Any]) -> Any:
        """Return one answer a row; what answers is made at the first pool."""
        self.made = self.made or resolve(self.work.door)(*self.work.arguments)
        return self.made(pool, _unheard)


class _WorkerPool:
    """The workers: free, or at something that ends one day."""

    def __init__(self, work: Work, workers: int) -> None:
        self.size, share = _fitting(workers)
        self.make = ray.remote(_Worker).options(**share).remote
        self.arguments = (str(Path.cwd()), list(sys.path), work)
        self.free: list[Any] = []
        self.running: dict[Future[Any], tuple[Any, _Task | None]] = {}  # None: it is coming up
        self.stillborn = 0
        for _ in range(self.size):
            self._hire()

    def submit_all(self, line: Iterable[_Task]) -> None:
        """Give the first tasks that wait to the workers that are free; nothing behind an error is begun."""
        for task in line:
            if task.error or not self.free:
                return
            if not task.handed and not task.ended:
                task.handed = True
                worker = self.free.pop()
                self.running[worker.answer.remote(task.pool).future()] = worker, task

    def listen(self) -> None:
        """Wait until a worker has answered, come up or died."""
        at_work = any(task for _, task in self.running.values())
        # Python's own waiting: a signal in the midst of Ray's ends otherwise than Ctrl-C and SIGTERM do elsewhere.
        ended, _ = wait(self.running, None if at_work else _PATIENCE, return_when=FIRST_COMPLETED)
        if not ended:
            raise BackendError(
                f"no worker came up in {_PATIENCE:.0f} s: the Ray cluster is full or cannot start one;"
                " `ray status` says who holds it; the same command goes on when it is free, or without --executor ray"
            )
        for future in ended:
            worker, task = self.running.pop(future)
            try:
                result = future.result()
            except RayTaskError as error:
                (task or _Task([])).error = error.cause
                self.free.append(worker)
            except RayError as error:
                self._bury(worker, task, error)
            else:
                if task:
                    task.answers = result
                self.free.append(worker)

    def _hire(self) -> None:
        worker = self.make(*self.arguments)
        self.running[worker.stand.remote().future()] = worker, None

    def _bury(self, worker: Any, task: _Task | None, error: RayError) -> None:
        ray.kill(worker)
        *_, reason = str(error).strip().split("\n")
        if task:
            task.handed, task.deaths = False, task.deaths + 1
            if task.deaths == _LIVES:
                task.error = BackendError(
                    f"{task.pool[0].id} to {task.pool[-1].id}: {_LIVES} workers died on these rows ({reason:.160});"
                    " where memory was short, take fewer --workers"
                )
        else:
            self.stillborn += 1
            if self.stillborn == _LIVES:
                raise BackendError(f"the Ray cluster cannot start a worker; is irlhf installed there? ({reason:.160})")
        self._hire()


def run_on_ray(pools: Iterator[list[Row]], work: Work, engine: Engine, advance: Advance) -> Answered[Row]:
    """Yield each pool with its answers, in the order of the pools."""
    tasks = _tasks(pools)
    first = next(tasks, None)
    if first is None:  # a run that has nothing left to do starts no cluster
        return
    with _cluster():
        pool = _WorkerPool(work, engine.workers)
        coming, line = chain([first], tasks), deque[_Task]()
        while True:
            while len(line) < _AHEAD * pool.size and (task := next(coming, None)):
                line.append(task)
            if not line:
                return
            pool.submit_all(line)
            if not line[0].ended:
                pool.listen()
                continue
            head = line.popleft()
            if head.error:
                raise head.error
            advance(len(head.pool))
            yield head.pool, head.answers or ()


def _tasks(pools: Iterator[list[Row]]) -> Iterator[_Task]:
    try:
        for pool in pools:
            yield _Task(pool)
    except IrlhfError as error:
        yield _Task([], error=error)


def _unheard(rows: int) -> None:
    """Count nothing: the driver counts rows as they come back."""


@contextmanager
def _cluster() -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, else start one here; this program's own, where it has one, stays."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    given = {"address": address} if address else {"address": "local", **_ALONE}
    before = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        ray.init(**given, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise BackendError(f"no Ray cluster {f'at RAY_ADDRESS={address}' if address else 'here'}: {reason}") from error
    except SystemExit:  # SIGTERM, for which Ray puts a handler of its own in the place of ours
        if callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens. Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        here = host in ("127.0.0.1", "localhost")  # by which Ray means the address that others know
        socket.create_connection((ray.util.get_node_ip_address() if here else host, int(port)), timeout=10).close()


def _fitting(workers_requested: int) -> tuple[int, dict[str, int]]:
    """Return how many workers there will be, and what each asks of the cluster: a GPU each where there are any.

    A worker has as many threads as processors: Ray sets OMP_NUM_THREADS so.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    cards = sum(int(node.get("GPU", 0)) for node in nodes)
    most = cards or sum(cores)
    if not most:
        raise BackendError("the Ray cluster has no processor to give; start it with at least one")
    if workers_requested > most:
        console.warn(
            f"--workers {workers_requested}: the Ray cluster has {most} {'GPUs' if cards else 'CPUs'}, so {most} it is"
        )
    workers = min(workers_requested or most, most)
    if cards:
        return workers, {"num_cpus": 1, "num_gpus": 1}
    # The largest share of which every node together has enough: a worker must fit into one of them.
    share = max(
        cores_per_worker
        for cores_per_worker in range(1, max(cores) + 1)
        if sum(core // cores_per_worker for core in cores) >= workers
    )
    return workers, {"num_cpus": share}
