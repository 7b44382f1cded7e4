"""prepare: every known shape of raw data, split by prompt, with an account that closes."""

import gzip
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import IRLHF, Row, call, example, names, process, read, slow_after, wait_until, write

from irlhf.core.errors import BackendError, ConfigError, DataError
from irlhf.core.example import from_json
from irlhf.core.pairs import pairs_of
from irlhf.data import parallel
from irlhf.data.prepare import prepare
from irlhf.data.settings import PrepareSettings
from irlhf.io import jsonl

FERN = "\n\nHuman: How do I repot a fern?\n\nAssistant: In spring, I think. And you?\n\nHuman: In a larger pot?"


def pair(chosen: str, rejected: str, **fields: Any) -> Row:
    return {"chosen": f"{FERN}\n\nAssistant:{chosen}", "rejected": f"{FERN}\n\nAssistant:{rejected}", **fields}


def prepared(rows: list[Row] | bytes, name: str = "raw.jsonl", **settings: Any) -> list[Row]:
    source = Path(name)
    if isinstance(rows, bytes):
        source.write_bytes(rows)
    else:
        write(source, rows)
    summary = prepare([source], "out.jsonl", PrepareSettings(**settings))
    found = read(Path("out.jsonl"))
    assert summary["written"] == len(found)
    return found


def rejected() -> list[Row]:
    return read(Path("out.jsonl.rejected.jsonl"))


def test_a_transcript_is_divided_at_its_last_answer() -> None:
    chosen, other = prepared([pair(" Yes, one size up.", " No.")])
    turns = [("user", "How do I repot a fern?"), ("assistant", "In spring, I think. And you?")]
    turns.append(("user", "In a larger pot?"))
    assert [(turn["role"], turn["content"]) for turn in chosen["prompt"]] == turns
    assert (chosen["id"], chosen["label"], chosen["completion"]) == ("raw-0a", "chosen", "Yes, one size up.")
    assert (other["id"], other["label"], other["completion"]) == ("raw-0b", "rejected", "No.")
    assert chosen["group"] == other["group"]
    assert chosen["pair"] == other["pair"] == "raw-0"
    assert chosen["split"] == other["split"]
    assert chosen["source"] == "raw"


def test_an_answer_of_several_paragraphs_survives() -> None:
    text = "First:\n\n1. Water it.\n\n2. Human: hands are fine.\n\nDone."
    assert prepared([pair(f" {text}", " No.")])[0]["completion"] == text


def test_prompts_that_differ_get_groups_of_their_own() -> None:
    row = pair(" Yes.", " No.")
    row["rejected"] = row["rejected"].replace("larger", "smaller")
    one, other = prepared([row])
    assert one["group"] != other["group"]
    assert (one["pair"], other["pair"]) == ("raw-0a", "raw-0b")


def test_pairs_with_equal_prompts_share_a_group_and_stay_pairs() -> None:
    rows = prepared([pair(" Yes.", " No."), pair(" Maybe.", " Never.")])
    assert len({row["group"] for row in rows}) == 1
    found, counts = pairs_of([from_json(row, "raw") for row in rows])
    sides = [(each.chosen.completion, each.rejected.completion) for each in found]
    assert sides == [("Yes.", "No."), ("Maybe.", "Never.")]
    assert counts["pairs"] == 2


def test_an_empty_completion_is_set_aside_with_its_reason() -> None:
    found = prepared([pair(" Yes.", " \n "), pair(" Yes.", " No.")])
    assert [one["id"] for one in found] == ["raw-0a", "raw-1a", "raw-1b"]
    assert [(one["where"], one["reason"]) for one in rejected()] == [
        ("raw.jsonl:1", "the rejected completion is empty")
    ]


def test_further_columns_of_a_pair_are_kept() -> None:
    found = prepared([pair(" Yes.", " No.", margin=1.5, id="q7", split="test")])
    assert [one["margin"] for one in found] == [1.5, 1.5]
    assert [(one["id"], one["pair"], one["split"]) for one in found] == [("q7a", "q7", "test"), ("q7b", "q7", "test")]


def test_messages_end_with_the_completion() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (found,) = prepared([{"messages": messages, "lang": "en"}])
    assert (found["prompt"], found["completion"], found["lang"]) == (messages[:1], "Hello", "en")


def test_a_last_message_with_more_than_text_is_kept_whole() -> None:
    last = {"role": "assistant", "content": "Hello", "reasoning": "be polite"}
    (found,) = prepared([{"messages": [{"role": "user", "content": "Hi"}, last]}])
    assert found["completion"] == [last]


def test_unknown_keys_survive_prepare() -> None:
    extra = {"odd key": None, "nested": {"a": [1, {"b": "\u2028"}]}, "n": 10**30, "flag": False}
    (found,) = prepared([{"prompt": "p", "completion": "c", **extra}])
    assert {name: found[name] for name in extra} == extra


@pytest.mark.parametrize("fields", [{}, {"id": None}, {"id": None, "source": None}])
def test_a_row_without_an_id_is_called_after_its_file_and_place(fields: Row) -> None:
    found = prepared([{"prompt": "p", "completion": "c", **fields}] * 2, "data.v2.jsonl.gz".removesuffix(".gz"))
    assert [one["id"] for one in found] == ["data.v2-0", "data.v2-1"]


def test_an_example_passes_through_unchanged() -> None:
    kept = {"split": "test", "group": "g", "label": "chosen", "source": "s", "rewards": {"a": 1.5}, "extra": [1]}
    row = example(3, **kept, policy="abc", seed=4, target={"a": "0.9"}, tokens=3)
    assert prepared([row]) == [row]


def test_columns_called_like_the_keys_of_a_sample_are_kept_under_another_name() -> None:
    (row,) = prepared([{"prompt": "p", "completion": "c", "target": "x", "tokens": [1], "seed": 3, "gold": "42"}])
    assert {name: row[f"given_{name}"] for name in ("target", "tokens", "seed", "gold")} == {
        "target": "x",
        "tokens": [1],
        "seed": 3,
        "gold": "42",
    }
    assert not {"target", "tokens", "seed", "gold"} & row.keys()


def test_equal_prompts_share_a_group_whatever_the_column_group_holds() -> None:
    rows = [{"prompt": f"q{i % 3}", "completion": f"a{i}", "group": "mine"} for i in range(9)]
    found = prepared(rows)
    assert len({row["group"] for row in found}) == 3
    assert {row["given_group"] for row in found} == {"mine"}


def test_equal_prompts_with_other_tools_are_other_prompts() -> None:
    tools = [[{"type": "function", "function": {"name": name}}] for name in ("look", "call")]
    rows = [{"prompt": "q", "completion": f"a{i % 2}", "tools": tools[i // 2]} for i in range(4)]
    found = prepared([*rows, rows[0], {"prompt": "q", "completion": "a0"}], drop_duplicates=True)
    first, again, other, last, without = (row["group"] for row in found)
    assert first == again != other == last
    assert without not in (first, other)


def test_a_group_that_the_user_names_is_kept() -> None:
    rows = [{"prompt": "q", "completion": f"a{i}", "topic": i} for i in range(2)]
    assert [row["group"] for row in prepared(rows, map={"group": "topic"})] == ["0", "1"]


def test_given_splits_that_share_prompts_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"q{i}", "completion": "a", "split": split} for i in range(2) for split in ("train", "test")]
    prepared(rows)
    assert "warning: the data gives splits that share prompts: 2 test rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "x", "score": 1}, "no known format has the keys text, score"),
        ({}, "no known format has the keys none"),
        ({"chosen": "x", "rejected": "y"}, "no known format has the keys chosen, rejected"),
        ({"prompt": "x"}, "no known format has the keys prompt"),
        ({"messages": []}, "'messages' is an empty list"),
        ({"prompt": 1, "completion": "x"}, "no text in 'prompt'"),
    ],
)
def test_a_row_of_no_known_shape_is_named_with_its_columns(row: Row, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        prepared([row])
    assert str(caught.value).startswith("raw.jsonl:1: ")
    assert reason in str(caught.value)
    assert names(Path.cwd()) == {"raw.jsonl"}


def test_a_format_can_be_named() -> None:
    with pytest.raises(DataError, match="'chosen' is not a transcript"):
        prepared([{"prompt": "p", "completion": "c"}], format="hh")
    with pytest.raises(ConfigError, match="unknown format 'hhh'; did you mean 'hh'"):
        prepared([{"prompt": "p", "completion": "c"}], format="hhh")


def test_skipped_rows_keep_their_reasons_and_the_account_closes() -> None:
    good = json.dumps({"prompt": "p", "completion": "c"}).encode()
    lines = [
        b'{"other": 1}',
        good,
        b"not json",
        b'{"prompt": "p", "completion": "\xff"}',
        b'{"prompt": "p", "completion": NaN}',
        b'{"prompt": "p", "completion": " "}',
        b'{"prompt": [], "completion": "c"}',
        good,
    ]
    found = prepared(b"\n".join(lines), on_bad_row="skip")
    assert [one["id"] for one in found] == ["raw-1", "raw-7"]
    reasons = {one["where"]: one["reason"] for one in rejected()}
    assert len(found) + len(reasons) == len(lines)
    assert reasons["raw.jsonl:1"].startswith("no known format has the keys other")
    assert reasons["raw.jsonl:3"].startswith("not JSON")
    assert reasons["raw.jsonl:4"].startswith("not UTF-8 (byte 32)")
    assert reasons["raw.jsonl:6"] == "the completion is empty"
    assert all("raw.jsonl" not in reason for reason in reasons.values())


def test_a_bad_row_stops_the_run_and_leaves_nothing() -> None:
    with pytest.raises(DataError, match=r"raw\.jsonl:2: not JSON"):
        prepared(b'{"prompt": "p", "completion": "c"}\nnot json\n')
    assert names(Path.cwd()) == {"raw.jsonl"}


def test_ids_that_repeat_get_a_number_and_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    found = prepared([example(1), example(1, completion="b"), example(1, completion="c")])
    assert [row["id"] for row in found] == ["e1", "e1#2", "e1#3"]
    said = "warning: rows that repeat the id of an earlier row get a number: 2, first 'e1' at raw.jsonl:2"
    assert said in capsys.readouterr().err


def test_the_split_hangs_on_the_words_of_the_prompt_alone() -> None:
    spellings = ["How do I repot a fern?", "how do i  REPOT\na fern? ", "\uff28ow do I repot a fern?"]
    for salt in range(12):
        rows = [
            {"prompt": f"{text} {salt}", "completion": f"{i}", "id": f"{salt}/{i}"} for i, text in enumerate(spellings)
        ]
        rows.append(
            {"messages": [{"role": "user", "content": rows[0]["prompt"]}, {"role": "assistant", "content": "x"}]}
        )
        found = prepared(rows[:3], test=0.3, validation=0.3)
        Path("out.jsonl").unlink()
        found += prepared(rows[3:], test=0.3, validation=0.3)
        Path("out.jsonl").unlink()
        assert len({one["split"] for one in found}) == 1


def conversation(salt: int, **first: Any) -> list[Row]:
    """Prompts of which each goes on with the one before, the first two turns said by `first`."""
    turns = [{"role": role, "content": f"{said} {salt}"} for role, said in first.items()]
    rows = []
    for place in range(3):
        rows.append({"prompt": list(turns), "completion": "c", "id": f"{salt}/{place}"})
        turns += [{"role": "assistant", "content": f"a{place}"}, {"role": "user", "content": f"And {place}?"}]
    return rows


@pytest.mark.parametrize("first", [{"user": "Hi"}, {"system": "s", "user": "Hi"}, {"assistant": "Yes?", "user": "Hi"}])
def test_prompts_that_continue_one_conversation_share_its_split(first: Row) -> None:
    rows = [row for salt in range(40) for row in conversation(salt, **first)]
    splits: dict[str, set[str]] = {}
    for row in prepared(rows, test=0.3, validation=0.3):
        splits.setdefault(row["id"].split("/")[0], set()).add(row["split"])
    assert len(splits) == 40
    assert all(len(found) == 1 for found in splits.values())
    assert len({split for found in splits.values() for split in found}) == 3


def test_transcripts_that_are_texts_share_the_split_of_their_first_turn() -> None:
    for salt in range(12):
        first = f"\n\nHuman: How {salt}?\n\nAssistant:"
        rows = [
            {"prompt": first, "completion": "So."},
            {"prompt": f"{first} So.\n\nHuman: And?\n\nAssistant:", "completion": "c"},
        ]
        assert len({row["split"] for row in prepared(rows, test=0.3, validation=0.3)}) == 1
        Path("out.jsonl").unlink()


def test_the_split_of_a_single_turn_is_what_it_was_before() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q1"}]
    prompts: list[Any] = [*(f"q{i}" for i in range(8)), turns]
    rows = [{"prompt": prompt, "completion": "c"} for prompt in prompts]
    found = [row["split"] for row in prepared(rows, test=0.3, validation=0.3)]
    assert "".join(split[:2] for split in found) == "tetrtrtetrtetevava"


@pytest.mark.parametrize("word", ["one", "two", "three", "four"])
def test_a_share_far_from_the_one_asked_for_is_told(word: str) -> None:
    same = [{"role": "user", "content": f"Answer in {word} words."}, {"role": "assistant", "content": "Yes."}]
    rows = [{"prompt": [*same, {"role": "user", "content": f"{i}?"}], "completion": "c"} for i in range(1000)]
    write(Path("raw.jsonl"), rows)
    told = call("prepare", "raw.jsonl", "-o", "out.jsonl").err
    assert "of 1,000 rows instead of 10%, because conversations with the same first turn" in told
    write(Path("own.jsonl"), [{**row, "split": "train"} for row in rows])
    assert "instead of" not in call("prepare", "own.jsonl", "-o", "own-out.jsonl").err


def test_the_shares_of_the_splits_are_those_asked_for() -> None:
    found = prepared([{"prompt": f"p{i}", "completion": "c"} for i in range(2000)], test=0.2, validation=0.1)
    shares = {name: sum(one["split"] == name for one in found) / 2000 for name in ("test", "validation", "train")}
    assert shares == pytest.approx({"test": 0.2, "validation": 0.1, "train": 0.7}, abs=0.03)


@pytest.mark.parametrize(("test", "validation"), [(0.8, 0.3), (-0.1, 0)])
def test_shares_that_do_not_fit_are_refused(test: float, validation: float) -> None:
    with pytest.raises(ConfigError, match="must be at least 0 and at most 1 together"):
        prepared([example()], test=test, validation=validation)


def test_limit_takes_the_first_rows_of_each_source() -> None:
    for name in ("a", "b"):
        write(Path(f"{name}.jsonl"), [{"prompt": "p", "completion": f"{i}"} for i in range(5)])
    prepare(["a.jsonl", "b.jsonl"], "out.jsonl", PrepareSettings(limit=2))
    assert [one["id"] for one in read(Path("out.jsonl"))] == ["a-0", "a-1", "b-0", "b-1"]


def test_files_called_alike_are_told_apart_by_their_folders() -> None:
    for folder in ("harmless", "helpful"):
        Path(folder).mkdir()
        write(Path(folder) / "test.jsonl", [{"prompt": folder, "completion": "c"}])
    prepare(["harmless/test.jsonl", "helpful/test.jsonl"], "out.jsonl")
    assert [one["id"] for one in read(Path("out.jsonl"))] == ["harmless-test-0", "helpful-test-0"]


def test_the_same_file_twice_is_refused() -> None:
    write(Path("a.jsonl"), [{"prompt": "p", "completion": "c"}])
    with pytest.raises(ConfigError, match=r"a\.jsonl is named twice"):
        prepare(["a.jsonl", "./a.jsonl"], "out.jsonl")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_stdin_is_read_packed_or_not(pack: Any) -> None:
    given = pack(json.dumps({"prompt": "p", "completion": "c"}).encode())
    done = process("prepare", "-", "-o", "-", given=given)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 2)
    assert json.loads(done.stdout)["id"] == "stdin-0"


def test_one_row_of_real_shape_is_the_documented_record() -> None:
    first, _ = prepared([pair(" Yes.", " No.")])
    assert list(first) == ["id", "prompt", "completion", "group", "label", "split", "source", "pair"]


@pytest.fixture
def many_hands(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Switches several processes on and off, each with a few lines at a time."""
    monkeypatch.setattr(jsonl, "BLOCK", 700)

    def switch(count: int) -> None:
        monkeypatch.setattr(parallel, "worker_count", lambda path: count)

    return switch


def told(error: Exception | dict[str, Any], said: str) -> tuple[str, str, bytes]:
    """What a run returned and said, and what it left of its output."""
    files = b"".join(path.read_bytes() for path in sorted(Path().glob("out.jsonl*")))
    for path in Path().glob("out.jsonl*"):
        path.unlink()
    return f"{type(error).__name__} {error}", said, files


def lines(number: int) -> list[bytes]:
    rows = [pair(f" Yes, {n}, say \u2019 </s>.", " No." if n % 7 else " ", score=n / 3) for n in range(number)]
    return [json.dumps(row, ensure_ascii=n % 2 == 0).encode() + b"\n" for n, row in enumerate(rows)]


GOOD = lines(40)
LONG = json.dumps(pair(" Yes" * 200, " No.")).encode() + b"\n"  # more than is handed over at once
TWICE = json.dumps(pair(" Yes.", " No.", id="again")).encode() + b"\n"


@pytest.mark.parametrize(
    ("given", "settings"),
    slow_after(
        5,
        [
            pytest.param(GOOD, {}, id="good"),
            pytest.param([b"\xef\xbb\xbf", *GOOD[:20], b"\n\r\n", *GOOD[20:]], {}, id="a mark and blank lines"),
            pytest.param([b"{}\n", b"not\n", *GOOD, b"{}\n", b"not"], {"on_bad_row": "skip"}, id="bad rows set aside"),
            pytest.param([*GOOD, b"{}\n", *GOOD], {}, id="a bad row"),
            pytest.param([*GOOD, b"not\n", *GOOD], {"format": "hh"}, id="a line that is no JSON"),
            pytest.param([TWICE, *GOOD, TWICE, *GOOD, b"not\n"], {}, id="an id twice"),
            pytest.param([*GOOD, b" " * (jsonl.LINE_LIMIT + 1)], {}, id="a line too long"),
            pytest.param(lines(600), {}, id="one conversation, which is not parted"),
            pytest.param([gzip.compress(b"".join(GOOD), mtime=0)], {}, id="packed"),
            pytest.param([gzip.compress(b"".join(lines(2000)), mtime=0)[:-400]], {}, id="packed and cut short"),
            pytest.param(
                [gzip.compress(LONG * 3, mtime=0)[:-8], b"damaged."], {}, id="packed, with a sum that is wrong"
            ),
        ],
    ),
)
def test_several_processes_say_and_write_what_one_does(
    given: list[bytes],
    settings: dict[str, Any],
    many_hands: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("raw.jsonl").write_bytes(b"".join(given))
    found = []
    for count in (0, 3):
        many_hands(count)
        try:
            done: Exception | dict[str, Any] = prepare(["raw.jsonl"], "out.jsonl", PrepareSettings(**settings))
        except DataError as error:
            done = error
        found.append(told(done, capsys.readouterr().err))
    assert found[0] == found[1]
    assert "raw.jsonl" in found[0][0]


def test_ids_are_told_apart_across_files_however_these_are_read(many_hands: Callable[[int], None]) -> None:
    many_hands(2)
    for name in ("one", "two"):
        Path(f"{name}.jsonl").write_bytes(b"".join([*GOOD, TWICE]))
    prepare(["one.jsonl", "two.jsonl"], "out.jsonl")
    ids = [json.loads(line)["id"] for line in Path("out.jsonl").read_bytes().splitlines()]
    assert len(set(ids)) == len(ids)
    assert {"againa", "againa#2"} <= set(ids)


def test_a_process_that_ends_by_itself_is_said(
    many_hands: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    many_hands(2)
    monkeypatch.setattr(parallel, "_WORK", "raise SystemExit(9)")
    Path("raw.jsonl").write_bytes(b"".join(GOOD))
    with pytest.raises(BackendError, match=r"exit code 9\); run the command again"):
        prepare(["raw.jsonl"], "out.jsonl")
    assert names(Path()) == {"raw.jsonl"}


@pytest.mark.parametrize("settings", [{"card": True}, {"limit": 30}, {"drop_duplicates": True}])
def test_what_looks_at_all_rows_is_done_in_one_process(
    settings: dict[str, Any], many_hands: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    many_hands(2)
    monkeypatch.setattr(parallel, "_WORK", "raise SystemExit(9)")
    Path("raw.jsonl").write_bytes(b"".join(GOOD))
    assert prepare(["raw.jsonl"], "out", PrepareSettings(**settings))["written"] > 0


def test_a_large_packed_file_that_is_damaged_from_its_beginning_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "LARGE", 1)
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda process: range(2), raising=False)
    Path("raw.jsonl.gz").write_bytes(gzip.compress(b"".join(GOOD))[:10] + b"\xff" * 99)
    with pytest.raises(DataError, match=r"^raw.jsonl.gz:1: the gzip file is truncated or damaged; download it again$"):
        prepare(["raw.jsonl.gz"], "out.jsonl", PrepareSettings("hh"))


def test_small_files_streams_and_other_shapes_are_read_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "LARGE", 100)
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda process: range(12), raising=False)
    for name, text in (("small.jsonl", b"{}"), ("raw.json", b'{"a": 1}\n' * 20), ("raw.csv", b"a,b\n" * 30)):
        Path(name).write_bytes(text)
        assert parallel.worker_count(Path(name)) == 0
    assert parallel.worker_count(Path("-")) == 0
    Path("large.jsonl").write_bytes(b'{"a": 1}\n' * 20)
    assert parallel.worker_count(Path("large.jsonl")) == parallel.MOST


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_processes_end_with_the_one_that_began_them(number: int, code: int) -> None:
    with Path("raw.jsonl").open("wb") as stream:
        while stream.tell() < 2 * parallel.LARGE:
            stream.writelines(GOOD)
    if not parallel.worker_count(Path("raw.jsonl")):
        pytest.skip("one core: prepare reads the file itself")
    command = [*IRLHF, "prepare", "raw.jsonl", "-o", "out.jsonl"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as begun:
        children = Path(f"/proc/{begun.pid}/task/{begun.pid}/children")
        if not children.exists():
            pytest.skip("who began whom is not told here")
        wait_until(lambda: children.read_text().split())
        below = children.read_text().split()
        begun.send_signal(number)
        assert begun.wait(20) == code
        said = begun.stderr.read() if begun.stderr else b""  # to its end, which is that of all
    assert b"Traceback" not in said
    wait_until(lambda: not any(map(runs, below)), 10)  # whoever has closed its files is not gone at once
    assert code < 0 or names(Path()) == {"raw.jsonl"}


def runs(process: str) -> bool:
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
