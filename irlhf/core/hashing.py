"""Fingerprints of ids, for finding duplicates and for splitting work into shards."""

import hashlib
import re
from dataclasses import dataclass

from irlhf.core.errors import ConfigError

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


def fingerprint(text: str) -> int:
    """Return a hash of the text in [1, 2^64), equal on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()) or 1


def add_new(seen: set[int], text: str) -> bool:
    """Add the text's fingerprint to `seen`; return whether it was new.

    The probability of any collision among a million texts is 3 in 10^8.
    """
    known = len(seen)
    seen.add(fingerprint(text))
    return len(seen) > known


@dataclass(frozen=True)
class Shard:
    """Shard `number` of `of`; the id of a prompt alone decides its shard."""

    number: int = 1  # 1-based
    of: int = 1

    def holds(self, cluster: str) -> bool:
        """Return whether a prompt, with all its rows, belongs to this shard."""
        return fingerprint(cluster) * self.of >> 64 == self.number - 1


def parse_shard(text: str) -> Shard:
    """Parse I/N, like 2/8; an empty text means everything. Raises ConfigError."""
    match = _SHARD.fullmatch(text) if text else None
    shard = Shard(int(match[1]), int(match[2])) if match else Shard()
    if (text and not match) or not 1 <= shard.number <= shard.of:
        raise ConfigError(f"--shard {text}: write I/N, like 2/8 for the second of eight shards")
    return shard
