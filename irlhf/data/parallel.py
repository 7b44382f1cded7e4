"""A large file of rows worked on by several processes, block by block, and put together in its order.

    file ──blocks of lines──▶ hands, one for each core ──sheets──▶ this process, in the order of the blocks

A hand is this program once more, with its ends in pipes: it prepares a block that it is given and says what became of
it. Nothing else is shared, so what is written does not hang on how many there are.
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

LARGE = 16 * 2**20  # bytes of a file; a smaller one is done before the hands have begun
MOST = 8  # hands, beyond which this process cannot keep up with them

_WORK = "from irlhf.data.prepare import work; work()"
_LENGTH = Struct(">Q")


@dataclass
class BlockResult:
    """What became of one block of rows: a journal in memory."""

    rows: bytes | bytearray = field(default_factory=bytearray)
    rejects: bytes | bytearray = field(default_factory=bytearray)
    summary: dict[str, Any] = field(default_factory=dict)  # what there is to say of the rows, as JSON
    counts: Counter[str] = field(default_factory=Counter)

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self.counts["written"] += 1
        self.rows += dumps(row)

    def reject(self, where: Where | str, reason: str, row: object) -> None:
        """Set one row aside with the reason."""
        self.counts["rejected"] += 1
        self.rejects += rejection(where, reason, row)


def worker_count(path: Path) -> int:
    """Return how many hands a file is worth; 0 where it is better read here."""
    if path == STREAM or not sys.executable or path.stat().st_size < LARGE:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST) if cores > 1 and holds_jsonl(path) else 0


def block_results(
    blocks: Iterable[tuple[int, bytes]], order: Mapping[str, Any], workers: int
) -> Generator[BlockResult]:
    """Yield what becomes of each block, which begins with its first line's number; the hands get the order first."""
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
        except IrlhfError as error:  # of a block that cannot be read: those before it come first
            failed = error
        while busy:
            _, done = _first(busy)
            yield done
    if failed:
        raise failed


def worker_main(begin: Callable[[dict[str, Any]], Callable[[int, bytes], BlockResult]]) -> None:
    """Be a hand: read an order, then make a sheet of each block, until there are no more."""
    inlet, outlet = sys.stdin.buffer, sys.stdout.buffer
    try:
        make = begin(json.loads(_take(inlet)))
        while number := inlet.read(_LENGTH.size):
            result = make(_LENGTH.unpack(number)[0], _take(inlet))
            for part in (dumps({"counts": result.counts, **result.summary}), result.rows, result.rejects):
                _send(outlet, part)
            outlet.flush()
    except (BrokenPipeError, EOFError):
        os._exit(1)  # whoever gave the order was killed, and nobody reads why


@contextmanager
def _worker(order: Mapping[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _WORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        process_group=0,  # of its own, so that Ctrl-C reaches this process alone, which ends the hand
    )
    try:
        _give(process, dumps(order))
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what it did not take any more
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
    """Wait for the hand that was given the earliest block; return it and the sheet."""
    worker = busy.popleft()
    try:
        payload, rows, rejects = (_take(worker.stdout) for _ in range(3))
    except EOFError as error:
        raise _ended(worker) from error
    summary = json.loads(payload)
    return worker, BlockResult(rows, rejects, summary, Counter(summary.pop("counts")))


def _ended(worker: subprocess.Popen[bytes]) -> BackendError:
    return BackendError(f"a process that read for this one ended by itself (exit code {worker.wait()}); run it again")


def _send(outlet: Any, part: bytes | bytearray) -> None:
    outlet.write(_LENGTH.pack(len(part)))
    outlet.write(part)


def _take(inlet: Any) -> bytes:
    length = inlet.read(_LENGTH.size)
    part: bytes = inlet.read(_LENGTH.unpack(length)[0]) if length else b""
    if not length or len(part) < _LENGTH.unpack(length)[0]:
        raise EOFError
    return part
