"""Cache of scorer replies in SQLite.

A row has a key, which is a hash of the scorer's identity and the text, and the reply as JSON. The file contains no
user text and no code.
"""

import json
import socket
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from irlhf.core.errors import OutputError
from irlhf.core.example import Example, dumps, finite
from irlhf.scoring.scorers.base import Reply, Traits, without_rewards

NAME = "replies.sqlite"

_AT_ONCE = 500  # keys per query; older versions of SQLite accept up to 999
_PATIENCE = 60.0  # seconds to wait for another process's write


def key(traits: Traits, example: Example) -> bytes:
    """Return the cache key of an example: equal keys have equal replies."""
    text = {"prompt": example.prompt, "completion": example.completion}
    hashed_fields = without_rewards(example) if traits.whole_row else text
    hashed = blake2b(traits.identity.encode(errors="replace"), digest_size=16)
    hashed.update(b"\0" + dumps(hashed_fields))
    return hashed.digest()


@dataclass(frozen=True)
class Cache:
    """The file of the cache. Workers on other machines do not use it: SQLite's locks do not work over a network."""

    path: Path
    machine: str = field(default_factory=socket.gethostname)

    def open(self) -> "Replies | None":
        """Return the opened cache, or None on another machine. Raises OutputError."""
        return Replies(self.path) if socket.gethostname() == self.machine else None

    def settle(self) -> None:
        """Merge the write-ahead log that a killed run left into the file, if no other process uses it."""
        if self.path.with_name(f"{self.path.name}-wal").exists() and (replies := self.open()):
            replies.base.close()


class Replies:
    """An open cache, for any number of threads and processes on one machine. Raises OutputError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        with self._guarded():
            self.base = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            self.base.execute("PRAGMA journal_mode=WAL")  # readers do not wait for a writer
            # A kill loses nothing; a power failure may lose some replies.
            self.base.execute("PRAGMA synchronous=NORMAL")
            self.base.execute("CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, reply TEXT) WITHOUT ROWID")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """Return the known replies by key."""
        replies: dict[bytes, Reply] = {}
        with self._guarded():
            for start in range(0, len(keys), _AT_ONCE):
                chunk = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(chunk))
                rows = self.base.execute(f"SELECT key, reply FROM replies WHERE key IN ({marks})", chunk)
                replies |= {known: json.loads(reply) for known, reply in rows}
        return replies

    def put(self, replies: Mapping[bytes, Reply]) -> None:
        """Store replies in one transaction. Replies with numbers that are not valid rewards are not stored."""
        rows = [(known, json.dumps(reply)) for known, reply in replies.items() if all(map(finite, reply.values()))]
        with self._guarded():
            self.base.execute("BEGIN IMMEDIATE")
            self.base.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", rows)
            self.base.execute("COMMIT")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with self.lock:
                yield
        except sqlite3.Error as error:
            raise OutputError(
                f"{self.path}: the cache cannot be used ({error}); choose another file with --cache"
            ) from error
