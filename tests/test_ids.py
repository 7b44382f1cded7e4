"""Ids by their fingerprints: nothing is forgotten, nothing made up, and little memory taken."""

import random

import pytest

from irlhf.errors import ConfigError
from irlhf.ids import Seen, Shard, fingerprint, parse_shard


def test_what_was_added_is_seen_and_nothing_else_is() -> None:
    rng = random.Random(0)
    seen, known = Seen(), set()
    for _ in range(20_000):
        text = f"id-{rng.randrange(12_000)}"
        assert (text in seen) == (text in known)
        assert seen.add(text) == (text not in known)
        known.add(text)
        assert len(seen) == len(known)
    assert all(text in seen for text in known)


def test_an_id_takes_less_than_32_bytes_however_long_it_is() -> None:
    seen = Seen()
    for number in range(50_000):
        seen.add(f"{'long ' * 40}{number}")
    assert 8 * len(seen.places) <= 24 * len(seen)


def test_a_fingerprint_is_the_same_on_every_machine_and_never_the_mark_of_an_open_place() -> None:
    assert fingerprint("hh-17") == 12554997772551566121
    assert all(fingerprint(f"{n}") > 0 for n in range(1000))


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
