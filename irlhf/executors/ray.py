"""Process pools of rows on the workers of a Ray cluster, and yield the results in the order of the rows.

        pools ──▶ queue of tasks, 2 per worker ──▶ head of the queue, once it has ended ──▶ caller
                     │             ▲
                     ▼             │
                  free worker ── results, or died: the task waits for another worker

Uses actors and a queue instead of Ray Data, which needs a data set instead of a stream and returns blocks. Here, rows
are written as soon as they are next in order, and memory is bounded.
"""

import logging
import os
import signal
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError, IrlhfError
from irlhf.core.registry import resolve
from irlhf.executors.base import Advance, Answered, Engine, Row, Work, new_counts

# Ray reads these when it is imported. The workers' messages must not go to stdout, which may hold rows. Anyone who can
# reach a cluster can run code on it, so a local cluster accepts connections from this machine only.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
try:
    import ray
    from ray.exceptions import RayError, RayTaskError
except ModuleNotFoundError as missing:
    raise ConfigError("--executor ray needs Ray: pip install 'irlhf[ray]'") from missing

_POOLS_PER_WORKER = 2  # pools per worker that are read ahead
_START_TIMEOUT = 120.0  # seconds to wait for the first worker to start
_MAX_DEATHS = 3  # deaths of workers on one pool, or while starting, that end the run
_LOCAL_CLUSTER = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}  # options of a local cluster


@dataclass(eq=False)
class _Task:
    """A pool and its results. An `error` is raised in the order of the rows, as in one process."""

    pool: list[Any]
    answers: Sequence[Any] | None = None
    counts: Counter[str] = field(default_factory=Counter)  # of the worker since its last pool
    error: Exception | None = None
    submitted: bool = False
    deaths: int = 0

    @property
    def ended(self) -> bool:
        return self.answers is not None or self.error is not None


class _Worker:
    """A process of the cluster, with the working directory and sys.path of the driver."""

    def __init__(self, folder: str, path: Sequence[str], work: Work) -> None:
        if Path(folder).is_dir():  # it may not exist on another machine
            os.chdir(folder)
        sys.path.extend(folder for folder in path if folder not in sys.path)
        self.work = work
        self.function: Any = None

    def ping(self) -> None:
        """Return once this process has started."""

    def answer(self, pool: list[Any]) -> Any:
        """Return one result per row, and the new counts; the factory is called for the first pool."""
        self.function = self.function or resolve(self.work.door)(*self.work.arguments)
        return self.function(pool, _ignore_count), new_counts(self.function)


class _WorkerPool:
    """The workers of a run: free, running or starting."""

    def __init__(self, work: Work, workers: int) -> None:
        self.size, share = _resources(workers)
        self.make = ray.remote(_Worker).options(**share).remote
        self.arguments = (str(Path.cwd()), list(sys.path), work)
        self.free: list[Any] = []
        self.running: dict[Future[Any], tuple[Any, _Task | None]] = {}  # None: starting
        self.failed_starts = 0
        for _ in range(self.size):
            self._start_worker()

    def submit_all(self, queue: Iterable[_Task]) -> None:
        """Submit waiting tasks to free workers, in order, up to the first error."""
        for task in queue:
            if task.error or not self.free:
                return
            if not task.submitted and not task.ended:
                task.submitted = True
                worker = self.free.pop()
                self.running[worker.answer.remote(task.pool).future()] = worker, task

    def wait_for_any(self) -> None:
        """Wait until a worker has finished a task, started or died."""
        at_work = any(task for _, task in self.running.values())
        # Waiting in Python keeps the usual handling of Ctrl-C and SIGTERM; waiting in Ray does not.
        ended, _ = wait(self.running, None if at_work else _START_TIMEOUT, return_when=FIRST_COMPLETED)
        if not ended:
            raise BackendError(
                f"no worker started within {_START_TIMEOUT:.0f} s: the Ray cluster is full or cannot start one; see"
                " `ray status`. Repeat the command later to resume, or remove --executor ray"
            )
        for future in ended:
            worker, task = self.running.pop(future)
            try:
                result = future.result()
            except RayTaskError as error:
                (task or _Task([])).error = error.cause
                self.free.append(worker)
            except RayError as error:
                self._replace_dead(worker, task, error)
            else:
                if task:
                    task.answers, task.counts = result
                self.free.append(worker)

    def _start_worker(self) -> None:
        worker = self.make(*self.arguments)
        self.running[worker.ping.remote().future()] = worker, None

    def _replace_dead(self, worker: Any, task: _Task | None, error: RayError) -> None:
        ray.kill(worker)
        *_, reason = str(error).strip().split("\n")
        if task:
            task.submitted, task.deaths = False, task.deaths + 1
            if task.deaths == _MAX_DEATHS:
                task.error = BackendError(
                    f"{task.pool[0].id} to {task.pool[-1].id}: {_MAX_DEATHS} workers died on these rows"
                    f" ({reason:.160}); if memory was short, lower --workers"
                )
        else:
            self.failed_starts += 1
            if self.failed_starts == _MAX_DEATHS:
                raise BackendError(f"the Ray cluster cannot start a worker; is irlhf installed there? ({reason:.160})")
        self._start_worker()


def run_on_ray(pools: Iterator[list[Row]], work: Work, engine: Engine, advance: Advance) -> Answered[Row]:
    """Yield each pool with its results, in the order of the pools."""
    tasks = _tasks(pools)
    first = next(tasks, None)
    if first is None:  # nothing to do: start no cluster
        return
    with _cluster():
        pool = _WorkerPool(work, engine.workers)
        remaining, queue = chain([first], tasks), deque[_Task]()
        while True:
            while len(queue) < _POOLS_PER_WORKER * pool.size and (task := next(remaining, None)):
                queue.append(task)
            if not queue:
                return
            pool.submit_all(queue)
            if not queue[0].ended:
                pool.wait_for_any()
                continue
            head = queue.popleft()
            if head.error:
                raise head.error
            advance(len(head.pool))
            work.counts.update(head.counts)
            yield head.pool, head.answers or ()


def _tasks(pools: Iterator[list[Row]]) -> Iterator[_Task]:
    try:
        for pool in pools:
            yield _Task(pool)
    except IrlhfError as error:
        yield _Task([], error=error)


def _ignore_count(rows: int) -> None:
    """Ignore the count; the driver counts rows as results arrive."""


@contextmanager
def _cluster() -> Iterator[None]:
    """Use the running connection, else connect to RAY_ADDRESS, else start a local cluster."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    options = {"address": address} if address else {"address": "local", **_LOCAL_CLUSTER}
    before = signal.getsignal(signal.SIGTERM)
    try:
        _check_reachable(address)
        ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise BackendError(f"no Ray cluster {f'at RAY_ADDRESS={address}' if address else 'here'}: {reason}") from error
    except SystemExit:  # SIGTERM: Ray replaces our handler
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


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens at the address; Ray would retry for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        here = host in ("127.0.0.1", "localhost")  # Ray uses the external address for these
        socket.create_connection((ray.util.get_node_ip_address() if here else host, int(port)), timeout=10).close()


def _resources(workers_requested: int) -> tuple[int, dict[str, int]]:
    """Return the number of workers and the resources of each: one GPU each if the cluster has any.

    Ray sets OMP_NUM_THREADS of a worker to its number of CPUs.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(node.get("CPU", 0)) for node in nodes]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    most = gpus or sum(cores)
    if not most:
        raise BackendError("the Ray cluster has no CPUs; start it with at least one")
    if workers_requested > most:
        console.warn(
            f"--workers {workers_requested}: the Ray cluster has only {most} {'GPUs' if gpus else 'CPUs'}; using {most}"
        )
    workers = min(workers_requested or most, most)
    if gpus:
        return workers, {"num_cpus": 1, "num_gpus": 1}
    # The largest number of CPUs per worker for which all workers fit; a worker cannot span nodes.
    share = max(
        cores_per_worker
        for cores_per_worker in range(1, max(cores) + 1)
        if sum(core // cores_per_worker for core in cores) >= workers
    )
    return workers, {"num_cpus": share}
