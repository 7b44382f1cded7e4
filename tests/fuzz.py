"""What holds of `prepare` whatever it is given: the account closes, or one line says where and what is wrong."""

import contextlib
import gc
import importlib
import io
import json
import shutil
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from helpers import Row, call, names, read

from irlhf.core import console
from irlhf.core.errors import IrlhfError
from irlhf.core.example import Where, dumps, from_json
from irlhf.data import parallel
from irlhf.data.prepare import prepare
from irlhf.data.settings import PrepareSettings
from irlhf.io import jsonl
from irlhf.io.files import holds_jsonl, read_rows
from irlhf.io.jsonl import parse_row
from irlhf.io.resumable import ResumableWriter

PATIENCE = 10  # seconds of processor time for one file of a few kilobytes
LONGEST = 4000  # characters of an error
EXIT_CODES = (1, 2)  # of data, and of a path or an option


class TooSlowError(BaseException):
    """Nothing catches it but the test."""


@dataclass
class Run:
    """What one run of `prepare` read, made and set aside."""

    read: list[Where] = field(default_factory=list)
    made: list[Where] = field(default_factory=list)
    aside: list[Where] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)  # rows that stop a run, by what it then says
    written: bytes = b""
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    warned: str = ""


class Watch:
    """Runs `prepare` as the command does, to stdout, and keeps what passes on the way."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.run = Run()
        room = importlib.import_module("irlhf.data.prepare")  # the name alone is the function
        for name, keep in (("read_each", self._reading), ("_read", self._making), ("_set_aside", self._bad)):
            patch.setattr(room, name, keep(getattr(room, name)))
        patch.setattr(ResumableWriter, "reject", self._rejecting(ResumableWriter.reject))
        patch.setattr(console, "_quiet", True)

    def _reading(self, read_each: Any) -> Any:
        def watched(path: Path, *more: Any) -> Iterator[Any]:
            for where, row in read_each(path, *more):
                self.run.read.append(where)
                yield where, row

        return watched

    def _making(self, examples: Any) -> Any:
        def watched(*given: Any) -> Any:
            return self._made(examples(*given))

        return watched

    def _made(self, pairs: Iterator[Any]) -> Iterator[Any]:
        for where, example in pairs:
            self.run.made.append(where)
            yield where, example

    def _bad(self, set_aside: Any) -> Any:
        def watched(error: IrlhfError, *rest: Any) -> None:
            self.run.bad.append(str(error))
            set_aside(error, *rest)

        return watched

    def _rejecting(self, reject: Any) -> Any:
        def watched(journal: ResumableWriter, where: Where, reason: str, row: object) -> None:
            self.run.aside.append(where)
            assert reason
            dumps({"where": str(where), "reason": reason, "row": row})
            reject(journal, where, reason, row)

        return watched

    def __call__(self, path: Path, settings: PrepareSettings) -> Run:
        """Run it once. Any error but ours goes on to the test."""
        self.run = Run()
        out, told = io.TextIOWrapper(io.BytesIO()), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told), _uncollected():
            try:
                self.run.summary = prepare([path], "-", settings)
            except IrlhfError as error:
                self.run.error = str(error)
        done, self.run = self.run, Run()
        done.written, done.warned = out.buffer.getvalue(), told.getvalue()
        return done


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Leave what earlier cases left: where it is collected as deep as Python goes, its finalizers fail aloud."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def examine(watch: Watch, path: Path, settings: PrepareSettings) -> Run:
    """Hold one file to all that is promised, within PATIENCE. Returns the run that skips bad rows."""
    with limited(PATIENCE):
        stopped = watch(path, replace(settings, on_bad_row="stop"))
        skipped = watch(path, replace(settings, on_bad_row="skip")) if stopped.error else stopped
    for run in (stopped, skipped):
        hold(run, path)
    assert stopped.bad in ([], [stopped.error])
    assert stopped.error == next(iter(skipped.bad), skipped.error)
    assert skipped.written.startswith(stopped.written)
    return skipped


def hold(run: Run, path: Path) -> None:
    """Hold one run to its account, and its rows and its words to their form."""
    for said in (run.error, *run.bad):
        assert not said or (said.startswith(f"{path}:") and len(said.splitlines()) == 1 and len(said) < LONGEST), said
    assert all(line.startswith("warning: ") for line in run.warned.splitlines()), run.warned
    rows = run.written.split(b"\n")
    assert rows.pop() == b""
    for number, row in enumerate(rows, 1):
        where = Where("out.jsonl", number)
        example = from_json(parse_row(row, where), where)
        assert dumps(example.to_json()) == row + b"\n"
        assert isinstance(example.prompt, str) or example.prompt[-1]["role"] in ("user", "tool")
    accounted = {*run.made, *run.aside}
    assert accounted <= {*run.read}
    assert [where.line for where in run.read] == sorted({where.line for where in run.read})
    if run.error:
        return
    assert (len(run.made), len(run.aside)) == (run.summary.get("written", 0), run.summary.get("rejected", 0))
    assert len(rows) == len(run.made)
    grouped = (
        run.summary["formats"].get(str(path), "").startswith("oasst,")
    )  # several rows make one, the first its place
    assert accounted == {*run.read} or (grouped and bool(accounted) == bool(run.read))


def hold_files(path: Path, settings: PrepareSettings, expected: Run) -> None:
    """Hold the command with its files to what a run to stdout made, and its output to being read as itself."""
    folder = Path("held")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    out = folder / "out.jsonl"
    try:
        prepare([path], out, replace(settings, on_bad_row="skip"))
    except IrlhfError as error:
        assert (str(error), names(folder)) == (expected.error, set())  # noqa: PT017 - an error is one of the outcomes
        return
    written = out.read_bytes()
    assert written == expected.written
    aside: list[Row] = read(folder / "out.jsonl.rejected.jsonl") if expected.aside else []
    assert [row["where"] for row in aside] == [str(where) for where in expected.aside]
    assert names(folder) == {"out.jsonl", "out.jsonl.run.json", *["out.jsonl.rejected.jsonl"] * bool(aside)}
    if written:
        prepare([out], folder / "again.jsonl", PrepareSettings("prompt-completion"))
        assert (folder / "again.jsonl").read_bytes() == written


def hold_blocks(path: Path, settings: PrepareSettings, expected: Run) -> None:
    """Hold what becomes of a file that is read block by block, as by several processes, to what one run made."""
    folder = Path("held")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    error = ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BLOCK", 700)
        patch.setattr(parallel, "worker_count", lambda path: int(holds_jsonl(path)))
        patch.setattr(parallel, "block_results", _sheets)
        try:
            prepare([path], folder / "out.jsonl", replace(settings, on_bad_row="skip"))
        except IrlhfError as stopped:
            error = str(stopped)
    found = {name: (folder / name).read_bytes() for name in names(folder) if not name.endswith(".run.json")}
    aside = found.pop("out.jsonl.rejected.jsonl", b"").count(b"\n")
    assert (error, found) == (expected.error, {} if error else {"out.jsonl": expected.written})
    assert aside == (0 if error else len(expected.aside))


def _sheets(blocks: Iterable[tuple[int, bytes]], order: dict[str, Any], many: int) -> Iterator[parallel.BlockResult]:
    """Make the sheets that other processes would, one after the other."""
    make = importlib.import_module("irlhf.data.prepare")._block_function(json.loads(dumps(order)))
    for number, block in blocks:
        sheet = make(number, block)
        sheet.summary = json.loads(dumps(sheet.summary))
        yield sheet


def hold_typed(path: Path, settings: PrepareSettings, expected: Run) -> None:
    """Hold parquet to the rows of a run to stdout, and a folder for a hub to being whole or not there."""
    folder = Path("held")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    skipping = replace(settings, on_bad_row="skip")
    try:
        prepare([path], folder / "out", replace(skipping, card=True))
        assert "README.md" in names(folder / "out")
    except IrlhfError as error:
        assert (str(error).split(":")[0], names(folder)) == (str(path), set())  # noqa: PT017 - one of the outcomes
    if expected.written and not expected.error:
        prepare([path], folder / "out.parquet", skipping)
        rows = [bare(json.loads(row)) for row in expected.written.split(b"\n")[:-1]]
        found = [bare(row) for _, row in read_rows(folder / "out.parquet")]
        assert [from_json(row, "out") for row in found] == [from_json(row, "out") for row in rows]


def bare(value: Any) -> Any:
    """A value without what is null in its objects, which parquet need not keep."""
    if isinstance(value, dict):
        return {name: bare(one) for name, one in value.items() if one is not None}
    return [*map(bare, value)] if isinstance(value, list) else value


def hold_command(path: Path, settings: PrepareSettings, expected: Run) -> None:
    """Hold what a shell sees to it: rows on stdout, one line on stderr where it fails, the exit code."""
    options = ["--drop-duplicates"] * settings.drop_duplicates
    outcome = call("prepare", path, "-o", "-", "--format", settings.format, "--on-bad-row", "skip", "-q", *options)
    said = [line for line in outcome.err.splitlines() if not line.startswith("warning: ")]
    if not expected.error and not expected.written:
        assert outcome.code == 1
        assert [line for line in said if not line.startswith("irlhf: -: no row is left")] == []
        return
    assert (outcome.code in EXIT_CODES) == bool(expected.error)
    assert len(said) == bool(expected.error)
    assert all(line.startswith(f"irlhf: {path}:") for line in said)
    if not expected.error:
        assert outcome.out.encode() == expected.written


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt what takes more processor time than that; a busy machine does not count."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"over {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
