"""Rules: what each counts, on texts whose number was counted by hand, and what it refuses to count."""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlhf.core.errors import ConfigError, IrlhfError
from irlhf.core.example import Example
from irlhf.policy.rewards_file import Reward
from irlhf.scoring.lookup import find
from irlhf.scoring.scorers.base import Failure
from irlhf.scoring.scorers.rules import Distinct, Format, Regex


def said(scorer: str, *texts: str) -> list[Any]:
    asked = find("a", Reward(scorer=scorer), Path())
    return list(asked([Example(id=str(n), prompt="why", completion=text) for n, text in enumerate(texts)]))


def number(scorer: str, text: str) -> float:
    (reply,) = said(scorer, text)
    (found,) = reply.values()
    return float(found)


def reason(scorer: str, text: str) -> str:
    (failure,) = said(scorer, text)
    assert isinstance(failure, Failure)
    return failure.reason


@pytest.mark.parametrize(
    ("scorer", "text", "share"),
    [
        ("distinct:1", "a b c", 1),
        ("distinct:1", "a b a b", 0.5),
        ("distinct", "a b a b", 2 / 3),  # ab, ba, ab
        ("distinct:2", "a b a b", 2 / 3),
        ("distinct:3", "a b a b", 1),
        ("distinct:2", "The cat. the, CAT!", 2 / 3),
        ("distinct:1", "don't don\u2019t dont", 1),
        ("distinct:1", "हिन्दी हिन्दी", 0.5),
    ],
)
def test_distinct_is_the_share_of_different_n_grams(scorer: str, text: str, share: float) -> None:
    assert number(scorer, text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("scorer", "text", "told"),
    [
        ("distinct:1", "", "0 words are too few for distinct:1"),
        ("distinct:1", " … ", "0 words are too few for distinct:1"),
        ("distinct", "well", "1 words are too few for distinct:2"),
    ],
)
def test_a_text_without_an_n_gram_has_no_share(scorer: str, text: str, told: str) -> None:
    assert reason(scorer, text) == told


@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=20), st.integers(1, 3))
@settings(deadline=None)
def test_distinct_counts_as_a_slow_count_does(words: list[str], size: int) -> None:
    grams = [" ".join(words[i : i + size]) for i in range(len(words) - size + 1)]
    (reply,) = Distinct(str(size))([Example(id="a", prompt="", completion=" ".join(words))])
    assert reply == {f"distinct-{size}": len(set(grams)) / len(grams)}


@pytest.mark.parametrize(
    ("pattern", "text", "count"),
    [
        ("sorry", "sorry, sorry", 2),
        ("(?i)sorry", "Sorry SORRY sorry", 3),
        (r"\bI\b", "I am. It is. I", 2),
        ("a:b", "a:b a:b", 2),
        ("  a", "a aa", 3),
        ("[ ]a", "a a", 1),
        ("aa", "aaaa", 2),
        ("(?m)^- ", "- one\n- two\nno - three", 2),
        (r"\p{Lu}", "Ä b C", 2),
        ("x", "", 0),
        (r"^(?=.*a)(?=.*b)", "b a", 1),
    ],
)
def test_regex_counts_the_places(pattern: str, text: str, count: int) -> None:
    assert number(f"regex:{pattern}", text) == count


def test_a_text_made_to_hang_a_pattern_fails_and_its_neighbours_do_not() -> None:
    began = time.process_time()
    first, hostile, last = said(r"regex:(a|aa)+b|c", "c", "a" * 60, "aab c")
    assert time.process_time() - began < 20
    assert (first, last) == ({"found": 1}, {"found": 2})
    assert isinstance(hostile, Failure)
    assert "takes over 2 s" in hostile.reason


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": [1, 2.5, null, true]}', 1),
        ("\n [] \n", 1),
        ("7", 1),
        ('"text"', 1),
        ("9" * 5000, 1),
        ("1e999", 1),
        ("", 0),
        ("NaN", 0),
        ('{"a": Infinity}', 0),
        ("{'a': 1}", 0),
        ('{"a": 1,}', 0),
        ('{"a": 1} {"b": 2}', 0),
        ('```json\n{"a": 1}\n```', 0),
        ('Here you are: {"a": 1}', 0),
        ("[" * 100_000 + "]" * 100_000, 0),
    ],
)
def test_format_json_is_one_value_and_nothing_beside_it(text: str, found: int) -> None:
    assert number("format:json", text) == found


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists))
@settings(deadline=None)
def test_all_that_is_written_as_json_is_json(value: Any) -> None:
    assert Format("json")([Example(id="a", prompt="", completion=json.dumps(value))]) == [{"json": 1}]


TEXT = "The quick brown fox jumps over the lazy dog. Documentation helps all to use extraordinary machines today."
WORDS = TEXT.replace(".", "").split()
LETTERS = sum(map(len, WORDS))
LONG = sum(len(word) > 6 for word in WORDS)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("lix", len(WORDS) / 2 + 100 * LONG / len(WORDS)),
        ("rix", LONG / 2),
        ("coleman_liau_index", 5.8 * LETTERS / len(WORDS) - 29.6 * 2 / len(WORDS) - 15.8),
        ("automated_readability_index", 4.71 * (LETTERS + 2) / len(WORDS) + 0.5 * len(WORDS) / 2 - 21.43),
        ("mcalpine_eflaw", (len(WORDS) + sum(len(word) <= 3 for word in WORDS)) / 2),
    ],
)
def test_readability_is_what_the_formula_says_and_needs_no_network(
    index: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("somebody asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    assert number(f"readability:{index}", TEXT) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", " \n", "...", "'"])
def test_a_text_without_words_is_not_easy_to_read(text: str) -> None:
    assert reason("readability:lix", text) == "no words to read"


def test_without_textstat_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "irlhf.scoring.scorers.readability", raising=False)
    monkeypatch.setitem(sys.modules, "textstat", None)
    with pytest.raises(ConfigError, match=r"pip install 'irlhf\[text\]'"):
        said("readability:lix", "a")


@pytest.mark.parametrize(
    ("scorer", "told"),
    [
        ("length:foo", "accepts nothing after its name; remove ':foo'"),
        ("sentiment:foo", "accepts nothing after its name"),
        ("distinct:0", "1 to 9, not '0'"),
        ("distinct:two", "1 to 9, not 'two'"),
        ("distinct:10", "1 to 9, not '10'"),
        ("regex", "regex needs the pattern"),
        ("regex: ", "regex needs the pattern"),
        ("regex:(", "invalid pattern: missing ) at position 1"),
        ("regex:a{2,1}", "min repeat greater than max repeat at position 2"),
        ("regex:" + "(" * 9999 + ")" * 9999, "invalid pattern"),
        ("regex:\bI\b", r"the pattern contains a backspace; in YAML, put \b in 'single quotes'"),
        ("format", "no format '' (available: json)"),
        ("format:jsn", "no format 'jsn'; did you mean 'json'?"),
        ("readability", "must be one of automated_readability_index, coleman_liau_index, lix"),
        ("readability:flesch_reading_ease", "must be one of automated_readability_index"),
    ],
)
def test_what_stands_behind_a_name_is_looked_at_before_anything_is_read(scorer: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find("a", Reward(scorer=scorer), Path())
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=12))
@settings(deadline=None)
def test_any_pattern_counts_or_is_refused_in_one_line(pattern: str) -> None:
    try:
        Regex(pattern)([Example(id="a", prompt="", completion="a b")])
    except IrlhfError as error:
        told = str(error)
    else:
        told = "counted"
    assert "\n" not in told
