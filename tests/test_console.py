"""What a person sees: clean, one line, sparing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irlhf.core import console


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_nothing_that_commands_a_terminal_is_left(text: str) -> None:
    left = console.clean(text)
    assert len(left) == len(text)
    assert not [c for c in left if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160]
    assert not set(left) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


@pytest.mark.parametrize("text", ["two\nlines", "[bold]markup[/bold]", "[/nothing]", "x" * 500, "\r\x1b[2J"])
def test_an_error_is_one_line_of_plain_text(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.error(text)
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "\x1b" not in said.err
    if "[" in text and "\x1b" not in text:
        assert text in said.err


@pytest.mark.parametrize(
    ("total", "first"), [(40, "training: 5 of 40 (12%), 0:01:10 left, 0.5/s"), (None, "training: 5, 0.5/s")]
)
def test_progress_without_a_terminal_is_a_line_every_ten_seconds(
    total: int | None, first: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console.be_quiet(False)
    seconds = iter(range(0, 1000, 2))  # a step takes two seconds
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    with console.progress("training", total) as advance:
        for _ in range(40):
            advance(1)
    lines = capsys.readouterr().err.split("\n")[:-1]
    assert lines[0] == first
    assert len(lines) == (7 if total else 8)


def test_short_work_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("scoring", 99) as advance:
        for _ in range(99):
            advance(1)
    assert capsys.readouterr().err == ""


def test_quiet_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    console.be_quiet(True)
    console.note("a note")
    console.warn("a warning")
    console.be_quiet(False)
    assert capsys.readouterr().err == "warning: a warning\n"
