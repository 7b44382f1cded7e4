"""Ids by their fingerprints: which were seen before, and which part of the work they belong to."""

import hashlib
import re
from dataclasses import dataclass

from irlhf.core.errors import ConfigError

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


def fingerprint(text: str) -> int:
    """Return a number in [1, 2^64) that is the same for this text on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()) or 1


def add_new(seen: set[int], text: str) -> bool:
    """Add the text's fingerprint to those seen; return whether it is new.

    Of a million texts two are taken for one with a probability of 3 in 10^8.
    """
    known = len(seen)
    seen.add(fingerprint(text))
    return len(seen) > known


@dataclass(frozen=True)
class Shard:
    """One of `of` parts that prompts fall into, each by its id alone."""

    number: int = 1  # 1-based
    of: int = 1

    def holds(self, cluster: str) -> bool:
        """Return whether a prompt, and so all its rows, belongs to this part."""
        return fingerprint(cluster) * self.of >> 64 == self.number - 1


def parse_shard(text: str) -> Shard:
    """Read I/N, like 2/8; nothing is the whole. Raises ConfigError."""
    match = _SHARD.fullmatch(text) if text else None
    shard = Shard(int(match[1]), int(match[2])) if match else Shard()
    if (text and not match) or not 1 <= shard.number <= shard.of:
        raise ConfigError(f"--shard {text}: write I/N, like 2/8 for the second of eight parts")
    return shard
