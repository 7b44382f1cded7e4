"""Prepare the blocks of a large file in several processes, and write the results in order.

    file ──blocks of lines──▶ workers, one per core ──results──▶ this process, in the order of the blocks

Each worker is a subprocess that reads blocks from stdin and writes results to stdout. The output does not depend on the
number of workers.
"""

import json
import os
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Any

from irlhf.core.errors import BackendError, IrlhfError
from irlhf.core.example import Where, dumps
from irlhf.io.files import STREAM, holds_jsonl
from irlhf.io.resumable import rejection

LARGE = 16 * 2**20  # bytes; smaller files are finished before workers have started
MOST = 8  # workers; this process cannot keep up with more

_WORK = "from irlhf.data.prepare import work; work()"
_LENGTH = Struct(">Q")


@dataclass
class BlockResult:
    """The results of one block of rows, in memory."""

    rows: bytes | bytearray = field(default_factory=bytearray)
    rejects: bytes | bytearray = field(default_factory=bytearray)
    summary: dict[str, Any] = field(default_factory=dict)  # ids, counts and errors, as JSON
    counts: Counter[str] = field(default_factory=Counter)

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self.counts["written"] += 1
        self.rows += dumps(row)

    def reject(self, where: Where | str, reason: str, row: object) -> None:
        """Append one rejected row with the reason."""
        self.counts["rejected"] += 1
        self.rejects += rejection(where, reason, row)


def worker_count(path: Path) -> int:
    """Return the number of workers for a file; 0 if this process should read it."""
    if path == STREAM or not sys.executable or path.stat().st_size < LARGE:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST) if cores > 1 and holds_jsonl(path) else 0


def block_results(
    blocks: Iterable[tuple[int, bytes]], order: Mapping[str, Any], workers: int
) -> Generator[BlockResult]:
    """Yield the result of each block (first line number, bytes), in order; each worker gets `order` first."""
    failed: IrlhfError | None = None
    with ExitStack() as stack:
        idle = [stack.enter_context(_worker(order)) for _ in range(workers)]
        busy: deque[subprocess.Popen[bytes]] = deque()
        try:
            for number, block in blocks:
                worker, done = (idle.pop(), None) if idle else _first(busy)
                _give(worker, block, _LENGTH.pack(number))
                busy.append(worker)
                if done:
                    yield done
        except IrlhfError as error:  # a block cannot be read: yield the results before it first
            failed = error
        while busy:
            _, done = _first(busy)
            yield done
    if failed:
        raise failed


def worker_main(begin: Callable[[dict[str, Any]], Callable[[int, bytes], BlockResult]]) -> None:
    """Run a worker: read the order, then blocks, and write a result for each, until stdin ends."""
    inlet, outlet = sys.stdin.buffer, sys.stdout.buffer
    try:
        make = begin(json.loads(_take(inlet)))
        while number := inlet.read(_LENGTH.size):
            result = make(_LENGTH.unpack(number)[0], _take(inlet))
            for part in (dumps({"counts": result.counts, **result.summary}), result.rows, result.rejects):
                _send(outlet, part)
            outlet.flush()
    except (BrokenPipeError, EOFError):
        os._exit(1)  # the parent process was killed


@contextmanager
def _worker(order: Mapping[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _WORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        process_group=0,  # so that Ctrl-C reaches only this process, which stops the worker
    )
    try:
        _give(process, dumps(order))
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # unread input
                pipe.close()  # type: ignore[union-attr]


def _give(worker: subprocess.Popen[bytes], part: bytes, head: bytes = b"") -> None:
    outlet: Any = worker.stdin
    try:
        outlet.write(head)
        _send(outlet, part)
        outlet.flush()
    except BrokenPipeError as error:
        raise _ended(worker) from error


def _first(busy: deque[subprocess.Popen[bytes]]) -> tuple[subprocess.Popen[bytes], BlockResult]:
    """Wait for the worker with the earliest block; return the worker and its result."""
    worker = busy.popleft()
    try:
        payload, rows, rejects = (_take(worker.stdout) for _ in range(3))
    except EOFError as error:
        raise _ended(worker) from error
    summary = json.loads(payload)
    return worker, BlockResult(rows, rejects, summary, Counter(summary.pop("counts")))


def _ended(worker: subprocess.Popen[bytes]) -> BackendError:
    return BackendError(f"a worker process ended unexpectedly (exit code {worker.wait()}); run the command again")


def _send(outlet: Any, part: bytes | bytearray) -> None:
    outlet.write(_LENGTH.pack(len(part)))
    outlet.write(part)


def _take(inlet: Any) -> bytes:
    length = inlet.read(_LENGTH.size)
    part: bytes = inlet.read(_LENGTH.unpack(length)[0]) if length else b""
    if not length or len(part) < _LENGTH.unpack(length)[0]:
        raise EOFError
    return part
