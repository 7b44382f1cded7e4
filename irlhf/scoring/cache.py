"""What scorers said before, so that nobody is asked the same twice.

A row of the table is a key, which is a hash of the scorer's identity and of the text, and the reply as JSON. No text
of anybody's stands in it, and nothing that could run.
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
from irlhf.scoring.scorers.base import Reply, Traits

NAME = "replies.sqlite"

_AT_ONCE = 500  # keys a question; SQLite takes 999 in its older builds
_PATIENCE = 60.0  # seconds that one process waits for another to write
_JUDGEMENTS = ("rewards", "gold")  # what no scorer looks at


def key(traits: Traits, example: Example) -> bytes:
    """Return what two questions have in common when their replies must be equal."""
    row = example.to_json()
    seen = (
        {name: value for name, value in row.items() if name not in _JUDGEMENTS}
        if traits.whole_row
        else {"prompt": example.prompt, "completion": example.completion}
    )
    hashed = blake2b(traits.identity.encode(errors="replace"), digest_size=16)
    hashed.update(b"\0" + dumps(seen))
    return hashed.digest()


@dataclass(frozen=True)
class Cache:
    """Where replies are kept. A worker on another machine does without: SQLite's locks do not reach over a network."""

    path: Path
    machine: str = field(default_factory=socket.gethostname)

    def open(self) -> "Replies | None":
        """Open the file, or return None on another machine."""
        return Replies(self.path) if socket.gethostname() == self.machine else None

    def settle(self) -> None:
        """Put into the file what a kill left beside it in SQLite's journal, where nobody else is at it."""
        if self.path.with_name(f"{self.path.name}-wal").exists() and (replies := self.open()):
            replies.base.close()


class Replies:
    """A file of replies, for any number of threads and processes of one machine. Raises OutputError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turn = threading.Lock()
        with self._guarded():
            self.base = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            self.base.execute("PRAGMA journal_mode=WAL")  # readers do not wait for a writer
            self.base.execute("PRAGMA synchronous=NORMAL")  # a kill loses nothing; a power cut some replies
            self.base.execute("CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, reply TEXT) WITHOUT ROWID")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """Return the replies that are known."""
        replies: dict[bytes, Reply] = {}
        with self._guarded():
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = self.base.execute(f"SELECT key, reply FROM replies WHERE key IN ({marks})", some)
                replies |= {known: json.loads(reply) for known, reply in rows}
        return replies

    def put(self, replies: Mapping[bytes, Reply]) -> None:
        """Keep replies at once. One that holds a NaN, or another number that no reward can be, is asked for again."""
        rows = [(known, json.dumps(reply)) for known, reply in replies.items() if all(map(finite, reply.values()))]
        with self._guarded():
            self.base.execute("BEGIN IMMEDIATE")
            self.base.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", rows)
            self.base.execute("COMMIT")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with self.turn:
                yield
        except sqlite3.Error as error:
            raise OutputError(
                f"{self.path}: replies cannot be kept there ({error}); name another with --cache"
            ) from error
