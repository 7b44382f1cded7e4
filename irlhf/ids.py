"""Ids by their fingerprints: which were seen before, and which part of the work they belong to."""

import hashlib
import re
from array import array
from dataclasses import dataclass

from irlhf.errors import ConfigError

_FREE = 0
_ALL_BITS = 2**64 - 1
_SMALLEST = 1024  # places
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


def fingerprint(text: str) -> int:
    """Return a number in [1, 2^64) that is the same for this text on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()) or 1


class Seen:
    """A set of ids that takes 12 to 24 bytes each, whatever their length.

    It holds Python's own hashes, which mean nothing to another process, in a table with open places; of a million ids
    two are taken for one with a probability of 3 in 10^8.
    """

    def __init__(self) -> None:
        self.places = array("Q", bytes(8 * _SMALLEST))
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __contains__(self, text: str) -> bool:
        mark = self._mark(text)
        return self.places[self._place(mark)] == mark

    def add(self, text: str) -> bool:
        """Add an id; return whether it is new."""
        mark = self._mark(text)
        place = self._place(mark)
        if self.places[place] == mark:
            return False
        self.places[place] = mark
        self.count += 1
        if 3 * self.count > 2 * len(self.places):
            self._grow()
        return True

    def _mark(self, text: str) -> int:
        return hash(text) & _ALL_BITS or 1

    def _place(self, mark: int) -> int:
        """Return where the mark stands, or would stand."""
        places, last = self.places, len(self.places) - 1  # their number is a power of two
        place = mark & last
        while places[place] not in (_FREE, mark):
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        marks = self.places
        self.places = array("Q", bytes(16 * len(marks)))
        for mark in marks:
            if mark != _FREE:
                self.places[self._place(mark)] = mark


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
    found = _SHARD.fullmatch(text) if text else None
    shard = Shard(int(found[1]), int(found[2])) if found else Shard()
    if (text and not found) or not 1 <= shard.number <= shard.of:
        raise ConfigError(f"--shard {text}: write I/N, like 2/8 for the second of eight parts")
    return shard
