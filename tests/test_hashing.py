"""Ids by their fingerprints: nothing is forgotten and nothing made up."""

import random

import pytest

from irlhf.core.errors import ConfigError
from irlhf.core.hashing import Shard, add_new, fingerprint, parse_shard


def test_a_text_is_new_once() -> None:
    rng = random.Random(0)
    seen: set[int] = set()
    known: set[str] = set()
    for _ in range(20_000):
        text = f"id-{rng.randrange(12_000)}"
        assert (fingerprint(text) in seen) == (text in known)
        assert add_new(seen, text) == (text not in known)
        known.add(text)
        assert len(seen) == len(known)


def test_a_fingerprint_is_the_same_on_every_machine() -> None:
    assert fingerprint("hh-17") == 12554997772551566121


def test_every_prompt_belongs_to_one_part_and_parts_are_of_a_size() -> None:
    parts = [[n for n in range(9000) if Shard(i, 3).holds(f"g{n}")] for i in (1, 2, 3)]
    assert sorted(n for part in parts for n in part) == list(range(9000))
    assert all(2800 < len(part) < 3200 for part in parts)
    assert Shard().holds("anything")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2", "1.0/2", " 1/2"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--shard .*: write I/N, like 2/8"):
        parse_shard(text)


def test_parts_are_read() -> None:
    assert (parse_shard(""), parse_shard("2/8")) == (Shard(1, 1), Shard(2, 8))
