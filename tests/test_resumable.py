"""Rows that go out: whole, once each, by one writer, for one set of settings."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import IRLHF, call, example, names, process, read, wait_until, write, write_unversioned_manifest

from irlhf.core.errors import ConfigError, DataError, OutputError
from irlhf.core.example import Example, dumps
from irlhf.core.hashing import fingerprint
from irlhf.io.files import read_rows
from irlhf.io.resumable import RunManifest, beside, lock, resumable_folder, resumable_output

TEXTS = ("plain", "fern \N{HERB}\u2028in two\x85lines", "naïve", "x" * 40, "last")
ROWS = [Example(id=f"r{i}", prompt=text, completion=text[::-1]) for i, text in enumerate(TEXTS)]


def card(source: Path, **settings: Any) -> RunManifest:
    return RunManifest("test", {"examples": source}, {"seed": 0, **settings})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(dumps(one.to_json()) for one in ROWS))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def run(out: Path, source: Path, stop_after: int = 99, **settings: Any) -> int:
    """Write what is missing of ROWS, as a room would; return how many an earlier run had written."""
    with resumable_output(out, card(source, **settings)) as book:
        if book.finished:
            return len(ROWS)
        done = len(book.done)
        for number, one in enumerate(ROWS):
            if number == stop_after:
                raise InterruptedError
            if fingerprint(one.id) not in book.done:
                book.write(one)
        return done


def interrupt(out: Path, source: Path, after: int) -> None:
    with pytest.raises(InterruptedError):
        run(out, source, stop_after=after)


def test_rows_stand_under_the_final_name_only_when_all_are_there(out: Path, source: Path) -> None:
    interrupt(out, source, after=3)
    assert names(out.parent) == {"in.jsonl", "out.jsonl.partial", "out.jsonl.run.json"}
    assert run(out, source) == 3
    assert names(out.parent) == {"in.jsonl", "out.jsonl", "out.jsonl.run.json"}
    assert out.read_bytes() == source.read_bytes()


@pytest.mark.slow
def test_a_tail_torn_at_any_byte_is_cut_and_written_again(out: Path, source: Path) -> None:
    interrupt(out, source, after=4)
    partial = beside(out, ".partial")
    whole, settings = partial.read_bytes(), beside(out, ".run.json").read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(ends[1], len(whole) + 1):
        partial.write_bytes(whole[:size])
        beside(out, ".run.json").write_bytes(settings)
        assert run(out, source) == sum(end <= size for end in ends), size
        assert out.read_bytes() == source.read_bytes(), size
        out.unlink()


@pytest.mark.parametrize("damage", [b"{}\n", b"not json\n", b'{"id": "r0"}\n', b"\x00\x00\n", b'{"id": 5}\n'])
def test_damage_before_the_last_row_is_named_and_not_mended(out: Path, source: Path, damage: bytes) -> None:
    interrupt(out, source, after=3)
    partial = beside(out, ".partial")
    lines = partial.read_bytes().split(b"\n")
    partial.write_bytes(lines[0] + b"\n" + damage + lines[2] + b"\n")
    with pytest.raises(DataError, match=r"out\.jsonl\.partial:2: "):
        run(out, source)
    assert not out.exists()


def test_a_finished_run_is_left_alone(out: Path, source: Path) -> None:
    run(out, source)
    before = [(path, path.stat().st_mtime_ns) for path in (out, beside(out, ".run.json"))]
    assert run(out, source) == len(ROWS)
    assert [(path, path.stat().st_mtime_ns) for path, _ in before] == before


@pytest.mark.parametrize("finished", [False, True])
def test_a_changed_setting_is_refused_by_name(out: Path, source: Path, finished: bool) -> None:
    if finished:
        run(out, source)
    else:
        interrupt(out, source, after=2)
    before = sorted(names(out.parent))
    with pytest.raises(ConfigError, match="seed was 0 and is 7"):
        run(out, source, seed=7)
    with pytest.raises(ConfigError, match="extra was not set and is 1"):
        run(out, source, extra=1)
    assert sorted(names(out.parent)) == before


def test_a_changed_input_is_refused(out: Path, source: Path) -> None:
    interrupt(out, source, after=2)
    source.write_bytes(source.read_bytes() + b'{"id": "new", "prompt": "p", "completion": "c"}\n')
    with pytest.raises(ConfigError, match=r"the examples \(.*in\.jsonl\) has changed"):
        run(out, source)


def test_another_input_file_is_named_beside_the_first(out: Path, source: Path) -> None:
    interrupt(out, source, after=2)
    other = source.with_name("other.jsonl")
    other.write_bytes(source.read_bytes() + b'{"id": "new", "prompt": "p", "completion": "c"}\n')
    with pytest.raises(ConfigError, match=r"the examples was .*/in\.jsonl and is .*/other\.jsonl;"):
        run(out, other)


def test_a_setting_that_was_empty_is_called_not_set(out: Path, source: Path) -> None:
    run(out, source, rewards="", target=["a=0.1", "b=0.2"])
    with pytest.raises(ConfigError, match=r"rewards was not set and is r\.yaml; target was a=0\.1, b=0\.2 and is a=1;"):
        run(out, source, rewards="r.yaml", target=["a=1"])
    run(out, source, rewards=None, target=["a=0.1", "b=0.2"])  # a setting that is off has no value


def test_a_calibration_is_named_as_the_reason_of_a_changed_policy(out: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "policy.json").write_text("{}")
    with resumable_output(out, RunManifest("sample", {"policy": policy}, {})) as writer:
        writer.write(ROWS[0])
    (policy / "policy.json").write_text('{"calibration": {"reach": 1}}')
    change = r"the policy \(.*/policy\) has changed, for example by `irlhf eval --calibrate`"
    with (
        pytest.raises(ConfigError, match=change),
        resumable_output(out, RunManifest("sample", {"policy": policy}, {})),
    ):
        pass


def test_another_command_is_refused(out: Path, source: Path) -> None:
    interrupt(out, source, after=2)
    with (
        pytest.raises(ConfigError, match="by `irlhf test`"),
        resumable_output(out, RunManifest("other", {"examples": source}, {"seed": 0})),
    ):
        pass


@pytest.mark.parametrize("finished", [False, True])
def test_a_manifest_of_version_0_1_is_converted(out: Path, source: Path, finished: bool) -> None:
    if finished:
        run(out, source)
    else:
        interrupt(out, source, after=2)
    write_unversioned_manifest(out, {"layout": "auto"})
    assert run(out, source) == (len(ROWS) if finished else 2)


def test_unknown_keys_of_a_manifest_are_kept(out: Path, source: Path) -> None:
    run(out, source)
    path = beside(out, ".run.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "note": "mine", "recorded": {"fact": 1}}))
    run(out, source)
    kept = json.loads(path.read_text())
    assert (kept["note"], "recorded" in kept) == ("mine", False)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": 2}, ConfigError, r"version 2 of a manifest, but this irlhf reads version 1; use the irlhf that"),
        (
            {"command": 7},
            DataError,
            r"run\.json: damaged \(command: .*; delete it and .*out\.jsonl to start",
        ),
        ({"inputs": {"examples": {"path": "x"}}}, DataError, r"damaged \(inputs\.examples\.sha256: Field required\)"),
        ({"version": 0, "settings": 7}, DataError, r"damaged \("),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(
    out: Path, source: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    run(out, source)
    path = beside(out, ".run.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(error, match=message):
        run(out, source)


def test_a_renamed_input_with_the_same_rows_goes_on(out: Path, source: Path) -> None:
    interrupt(out, source, after=2)
    assert run(out, source.rename(source.with_name("moved.jsonl"))) == 2


def test_a_file_that_irlhf_did_not_write_is_not_replaced(out: Path, source: Path) -> None:
    out.write_text("precious")
    with pytest.raises(ConfigError, match="was not written by irlhf"):
        run(out, source)
    assert out.read_text() == "precious"


def test_a_partial_without_its_settings_is_started_afresh(out: Path, source: Path) -> None:
    interrupt(out, source, after=2)
    beside(out, ".run.json").unlink()
    assert run(out, source) == 0


def test_work_that_is_not_resumable_keeps_nothing(out: Path, source: Path) -> None:
    def work() -> None:
        with resumable_output(out, card(source), resumable=False) as book:
            book.write(ROWS[0])
            raise InterruptedError

    with pytest.raises(InterruptedError):
        work()
    assert names(out.parent) == {"in.jsonl"}


def test_a_failure_before_the_first_row_leaves_nothing(out: Path, source: Path) -> None:
    interrupt(out, source, after=0)
    assert names(out.parent) == {"in.jsonl"}


def test_what_a_stream_gave_is_neither_resumed_nor_taken_for_the_same(out: Path, tmp_path: Path) -> None:
    interrupt(out, Path("-"), after=2)
    assert names(tmp_path) == set()
    assert run(out, Path("-")) == 0
    with pytest.raises(ConfigError, match="rows on stdin cannot be compared"):
        run(out, Path("-"))


@pytest.mark.parametrize("suffix", ["jsonl.gz", "parquet"])
def test_a_packed_output_holds_the_same_rows_and_the_same_bytes_each_time(
    tmp_path: Path, source: Path, suffix: str
) -> None:
    first, second = tmp_path / f"one.{suffix}", tmp_path / f"two.{suffix}"
    run(first, source)
    interrupt(second, source, after=2)
    assert run(second, source) == 2
    assert [row for _, row in read_rows(first)] == read(source)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.parquet"])
def test_a_partial_left_behind_a_packed_output_is_removed(tmp_path: Path, source: Path, name: str) -> None:
    packed = tmp_path / name
    run(packed, source)
    beside(packed, ".partial").write_bytes(source.read_bytes())
    run(packed, source)
    assert names(tmp_path) == {"in.jsonl", name, f"{name}.run.json"}


def test_rejected_rows_stand_in_their_own_file_with_the_reason(out: Path, source: Path) -> None:
    with resumable_output(out, card(source)) as book:
        book.write(ROWS[0])
        book.reject("in.jsonl:2", "too odd", {"a": 1})
    assert read(beside(out, ".rejected.jsonl")) == [{"where": "in.jsonl:2", "reason": "too odd", "row": {"a": 1}}]
    assert book.summary() == {"output": str(out), "finished": True, "resumed": 0, "written": 1, "rejected": 1}


def test_rejects_of_an_interrupted_run_are_not_counted_twice(out: Path, source: Path) -> None:
    def work(stop: bool) -> None:
        with resumable_output(out, card(source)) as book:
            book.reject("in.jsonl:2", "too odd", {})
            if not book.done:
                book.write(ROWS[0])
            if stop:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        work(stop=True)
    work(stop=False)
    assert len(read(beside(out, ".rejected.jsonl"))) == 1


def test_unfinished_temporary_files_of_a_killed_run_are_swept_up(out: Path, source: Path) -> None:
    (out.parent / ".irlhf.out.jsonl.run.json.abcd1234.json").write_text("{")
    (out.parent / ".out.jsonl.swp").write_text("an editor's")
    run(out, source)
    assert names(out.parent) == {"in.jsonl", "out.jsonl", "out.jsonl.run.json", ".out.jsonl.swp"}


def test_unfinished_temporary_files_do_not_get_into_a_folder_that_is_built(tmp_path: Path, source: Path) -> None:
    partial = tmp_path / "made.partial"
    (partial / "checkpoint-1").mkdir(parents=True)
    (partial / ".irlhf.policy.json.abcd1234.json").write_text("{")
    (tmp_path / ".irlhf.made.run.json.abcd1234.json").write_text("{")
    with resumable_folder(tmp_path / "made", card(source), "checkpoint-*") as folder:
        assert folder == partial
    assert names(tmp_path) == {"in.jsonl", "made", "made.run.json"}
    assert names(tmp_path / "made") == {"checkpoint-1"}


def test_the_lock_is_refused_at_once_in_the_same_process_too(out: Path) -> None:
    with lock(out):
        started = time.monotonic()
        with pytest.raises(OutputError, match="another irlhf process"), lock(out):
            pass
    assert time.monotonic() - started < 1
    assert names(out.parent) == set()


SLOW = """
import time
def wait(examples):
    open("started", "w").close()
    time.sleep(60)
    return [1.0] * len(examples)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds out.jsonl in the middle of scoring."""
    write(tmp_path / "in.jsonl", [example(i) for i in range(3)])
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "rewards.yaml").write_text("rewards: {late: {scorer: 'slow:wait'}}")
    command = [*IRLHF, "score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as holder:
        wait_until((tmp_path / "started").exists)
        yield holder
        holder.kill()


def test_a_second_process_on_the_same_output_is_refused_at_once(held: subprocess.Popen[bytes]) -> None:
    started = time.monotonic()
    outcome = call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl")
    assert time.monotonic() - started < 2
    assert outcome.code == 4
    assert outcome.err == "irlhf: out.jsonl: another irlhf process is writing it; wait, or choose another output\n"


def test_a_killed_holder_frees_the_output(held: subprocess.Popen[bytes], tmp_path: Path) -> None:
    held.send_signal(signal.SIGKILL)
    held.wait()
    (tmp_path / "slow.py").write_text("def wait(examples): return [1.0] * len(examples)")
    sys.modules.pop("slow", None)
    assert process("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl").returncode == 0
    assert len(read(tmp_path / "out.jsonl")) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_stopped_run_says_so_with_its_exit_code(held: subprocess.Popen[bytes], number: int, code: int) -> None:
    held.send_signal(number)
    _, error = held.communicate(timeout=20)
    assert held.returncode == code
    assert b"stopped; the same command resumes" in error
    assert b"Traceback" not in error
    assert not {"out.jsonl", "out.jsonl.lock"} & names(Path.cwd())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_from_where_it_was(number: int, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [example(i) for i in range(640)])
    (tmp_path / "steady.py").write_text(
        "import time\ndef wait(examples): time.sleep(0.1); return [1.0] * len(examples)\n"
    )
    (tmp_path / "rewards.yaml").write_text("rewards: {late: {scorer: 'steady:wait'}}")
    command = [*IRLHF, "score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "--json"]
    partial = tmp_path / "out.jsonl.partial"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        wait_until(lambda: first.poll() is not None or (partial.exists() and partial.stat().st_size > 10_000))
        first.send_signal(number)
    assert first.returncode == 128 + number
    again = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(again.stdout)["resumed"] >= 100
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == [f"e{i}" for i in range(640)]


def test_a_full_disk_is_one_line_and_the_rows_so_far_are_good(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [example(i, completion="word " * 200) for i in range(40)])
    (tmp_path / "rewards.yaml").write_text("rewards: {long: {scorer: length}}")
    command = ("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "-q")

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    full = process(*command, preexec_fn=small_disk)
    assert full.returncode == 4
    assert full.stderr.decode().count("\n") == 1
    assert "out.jsonl: cannot be written (File too large)" in full.stderr.decode()
    assert not (tmp_path / "out.jsonl").exists()
    resumed = process(*command, "--json")
    assert resumed.returncode == 0
    assert json.loads(resumed.stdout)["resumed"] > 5
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == [f"e{i}" for i in range(40)]


def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [example(i) for i in range(3)])
    with Path("/dev/full").open("wb") as full:
        command = [*IRLHF, "prepare", str(source), "-o", "-"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 4
    assert done.stderr.decode().count("\n") == 1
    assert "No space left" in done.stderr.decode()


def test_a_folder_that_cannot_be_written_to_is_said_before_any_work(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [example()])
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.access(closed, os.W_OK):  # root may write anywhere but where nobody can
        closed = Path("/proc")
    outcome = call("prepare", source, "-o", closed / "out.jsonl")
    assert outcome.code == 4
    assert outcome.err.count("\n") == 1
