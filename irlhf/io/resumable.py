"""Rows written so that a kill at any moment loses none and doubles none.

    <out>.lock            one writer at a time
    <out>.run.json        what is being made: digests of the inputs, every setting
    <out>.partial         the rows so far, each appended whole
    <out>.rejected.jsonl  the rows that were set aside, each with its reason
    <out>                 appears when complete

The same command again goes on behind the last whole row; a command with another setting is refused.
"""

import glob
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError, OutputError
from irlhf.core.example import Example, Where, dumps
from irlhf.core.hashing import add_new
from irlhf.io import files
from irlhf.io.compression import COMPRESSED_SUFFIXES, compress
from irlhf.io.jsonl import parse_row
from irlhf.io.tables import SEPARATORS, bare

SYNC_ROWS = 32  # rows that a power cut may cost; a kill costs none
SYNC_SECONDS = 1.0
PARQUET = ".parquet"
_COMMANDS = {"finetune --objective reward": "reward-model", "finetune --rounds": "rounds"}  # earlier names, and today's
PARTIAL = ".partial"  # behind the name of an output that is not complete

_REMOVED = {"layout": "auto"}  # settings of earlier versions, each with the value that all runs have now


@dataclass(frozen=True)
class RunManifest:
    """What a run makes: equal cards make equal files."""

    command: str
    inputs: Mapping[str, Path]
    settings: Mapping[str, Any]
    afresh: str = ""  # what starting afresh costs, for whoever has to

    def to_json(self) -> dict[str, Any]:
        """Return the card with the digest of every input."""
        inputs = {role: {"path": str(path), "sha256": digest_of(path)} for role, path in self.inputs.items()}
        settings: dict[str, Any] = json.loads(json.dumps(self.settings, default=str))
        return {"command": self.command, "inputs": inputs, "settings": settings}


@dataclass
class ResumableWriter:
    """The rows of one output while it is being written. Made by `journal`."""

    output: Path
    done: set[int] = field(default_factory=set)  # fingerprints of the ids that an interrupted run wrote
    finished: bool = False  # an earlier run of the same command completed the output
    counts: Counter[str] = field(default_factory=Counter)
    _resumable: bool = True  # if not, rows are worth nothing before all are there
    _rows: int = -1  # file descriptors
    _rejects: int = -1
    _synced: float = 0.0

    def write(self, example: Example) -> None:
        """Append one example in one write."""
        self.write_row(example.to_json())

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Append one row of another shape in one write."""
        self.counts["written"] += 1
        if self.output == files.STREAM:
            files.write_stdout(dumps(row))
            return
        _append(self._rows, dumps(row), self.output)
        due = self.counts["written"] % SYNC_ROWS == 0 or time.monotonic() - self._synced > SYNC_SECONDS
        if due and self._resumable:
            os.fsync(self._rows)
            self._synced = time.monotonic()

    def reject(self, where: Where | str, reason: str, row: object) -> None:
        """Set one row aside with the reason."""
        self.counts["rejected"] += 1
        if self.output != files.STREAM:
            _append(self._rejects, rejection(where, reason, row), self.output)

    def append(self, rows: bytes | bytearray, rejects: bytes | bytearray, counts: Mapping[str, int]) -> None:
        """Append what was made elsewhere, several rows in one write, for an output that is not resumed."""
        self.counts.update(counts)
        if self.output == files.STREAM:
            files.write_stdout(rows)
            return
        _append(self._rows, rows, self.output)
        _append(self._rejects, rejects, self.output)

    def summary(self) -> dict[str, Any]:
        """Return what was done, for `--json` and for the closing line."""
        return {"output": str(self.output), "finished": self.finished, **self.counts}


@contextmanager
def resumable_output(output: Path, manifest: RunManifest, resumable: bool = True) -> Iterator[ResumableWriter]:
    """Open an output of rows. Leaving the block well completes it; leaving it otherwise keeps the rows.

    With `resumable` False (work cheaper to do again than to check) nothing is kept; neither is it where an
    input is a stream, because nobody can tell whether it is the same one.
    """
    resumable = resumable and files.STREAM not in manifest.inputs.values()
    if output == files.STREAM:
        yield ResumableWriter(output)
        return
    files.check_output(output, manifest.inputs)
    _check_kind(output, manifest)
    with lock(output):
        made = manifest.to_json()
        book = ResumableWriter(output, _resumable=resumable)
        if is_finished(output, made, manifest.afresh):
            book.finished = True
            beside(output, PARTIAL).unlink(missing_ok=True)  # a kill may have left it behind a packed output
            book.counts.update(files.read_json(beside(output, ".run.json")).get("counts", {}))
            yield book
            return
        _begin(book, made)
        try:
            yield book
        except BaseException:
            _keep(book)
            raise
        _complete(book, made)


@contextmanager
def resumable_folder(output: Path, manifest: RunManifest, worth: str = "") -> Iterator[Path | None]:
    """Give the folder `<output>.partial` to build `output` in; None where an earlier run completed it.

    After a failure the folder is kept if it holds a file like `worth`, from which the same command goes on; without
    `worth` nothing is kept.
    """
    files.check_output(output, manifest.inputs)
    with lock(output):
        made = manifest.to_json()
        if is_finished(output, made):
            yield None
            return
        if files.STREAM in manifest.inputs.values() and beside(output, PARTIAL).is_dir():
            shutil.rmtree(beside(output, PARTIAL))  # of other rows, for all we know
        _sweep(output)
        files.sweep(beside(output, PARTIAL))
        files.write_json(beside(output, ".run.json"), made)
        try:
            with files.whole_folder(output) as folder:
                yield folder
        except BaseException:
            partial = beside(output, PARTIAL)
            if partial.is_dir() and not (worth and any(partial.glob(worth))):
                shutil.rmtree(partial)
                beside(output, ".run.json").unlink(missing_ok=True)
            raise


@contextmanager
def lock(output: Path) -> Iterator[None]:
    """Hold the output for this process. Raises OutputError at once where another process holds it."""
    path = beside(output, ".lock")
    held = filelock.FileLock(path, timeout=0)
    try:
        held.acquire()
    except filelock.Timeout as error:
        raise OutputError(f"{output}: another irlhf process is writing it; wait for it or name another") from error
    except OSError as error:
        raise files.disk_error(output, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: a waiter sees that its file has no name and starts over
        held.release()


def is_finished(output: Path, made: Mapping[str, Any], afresh: str = "", parts: Path | None = None) -> bool:
    """Return whether this very run is complete already. Raises ConfigError where another one is there.

    `parts` is where there is more of the output than one `.partial`.
    """
    manifest_file = beside(output, ".run.json")
    partial = parts or beside(output, PARTIAL)
    if output.exists() and not manifest_file.exists():
        raise ConfigError(f"{output} exists and no irlhf run wrote it; name another output or move it away")
    if not output.exists() and not partial.exists():
        return False
    if manifest_file.exists():
        changed = _differences(_current(files.read_json(manifest_file)), made)
        whole = output if output.exists() and not parts else partial
        mend = f"name another output, or delete {whole} to start afresh"
        mend += f" ({afresh})" if afresh else ""
        if changed:
            raise ConfigError(f"{output} was begun otherwise: {'; '.join(changed)}; {mend}")
        if output.exists() and any(entry["sha256"] == str(files.STREAM) for entry in made["inputs"].values()):
            raise ConfigError(f"{output} exists, and whether stdin holds the same rows cannot be told; {mend}")
    return output.exists()


def recorded_setting(output: Path, name: str) -> Any:
    """Return a setting of the run that began or completed this output; None where there is no such run or setting."""
    manifest = beside(output, ".run.json")
    begun = output != files.STREAM and (output.exists() or beside(output, PARTIAL).exists())
    return files.read_json(manifest).get("settings", {}).get(name) if begun and manifest.is_file() else None


def counts_of(output: Path) -> dict[str, int]:
    """Return what was counted while an output was written."""
    counts: dict[str, int] = files.read_json(beside(output, ".run.json"))["counts"]
    return counts


def rejection(where: Where | str, reason: str, row: object) -> bytes:
    """Return the line of a row that is set aside."""
    return dumps({"where": str(where), "reason": reason, "row": row})


def beside(output: Path, suffix: str) -> Path:
    """Return the path of a file that accompanies the output."""
    return output.with_name(output.name + suffix)


def _begin(book: ResumableWriter, made: Mapping[str, Any]) -> None:
    partial = beside(book.output, PARTIAL)
    try:
        _sweep(book.output)
        if partial.exists() and book._resumable and beside(book.output, ".run.json").exists():
            book.done = _recover(partial)
        elif partial.exists():
            partial.unlink()
        files.write_json(beside(book.output, ".run.json"), made)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        book._rows = os.open(partial, append, 0o666)
        # Every run reads its input from the start, so it meets every reject again.
        book._rejects = os.open(beside(book.output, ".rejected.partial"), append | os.O_TRUNC, 0o666)
    except OSError as error:
        raise files.disk_error(book.output, error) from error
    book.counts["resumed"] = len(book.done)
    book._synced = time.monotonic()


def _sweep(output: Path) -> None:
    """Remove the unfinished files that a kill left of this output and its card. The lock is held."""
    for path in (output, beside(output, ".run.json")):
        for stale in output.parent.glob(f"{files.TEMPORARY}{glob.escape(path.name)}.????????{path.suffix}"):
            stale.unlink(missing_ok=True)


def _recover(partial: Path) -> set[int]:
    """Cut the row that a kill tore, and return the fingerprints of the ids before it."""
    done: set[int] = set()
    whole = 0
    with partial.open("r+b") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                break
            where = Where(str(partial), number)
            identifier = parse_row(line, where).get("id")
            if not isinstance(identifier, str) or not add_new(done, identifier):
                raise DataError(f"{where}: damaged; delete {partial} to start afresh")
            whole += len(line)
        stream.truncate(whole)
    return done


def _keep(book: ResumableWriter) -> None:
    os.close(book._rows)
    os.close(book._rejects)
    beside(book.output, ".rejected.partial").unlink(missing_ok=True)
    partial = beside(book.output, PARTIAL)
    if not book._resumable or partial.stat().st_size == 0:
        partial.unlink()
        beside(book.output, ".run.json").unlink(missing_ok=True)


def _complete(book: ResumableWriter, made: Mapping[str, Any]) -> None:
    """Turn `.partial` into the output: rejects first, the output last, so that it vouches for the rest."""
    partial, rejected = beside(book.output, PARTIAL), beside(book.output, ".rejected.jsonl")
    try:
        for handle in (book._rows, book._rejects):
            os.fsync(handle)
            os.close(handle)
        files.write_json(beside(book.output, ".run.json"), {**made, "counts": dict(book.counts)})
        if book.counts["rejected"]:
            beside(book.output, ".rejected.partial").replace(rejected)
        else:
            beside(book.output, ".rejected.partial").unlink()
            rejected.unlink(missing_ok=True)
        if book.output.suffix in (*COMPRESSED_SUFFIXES, PARQUET):
            with files.whole_file(book.output) as temporary:
                _convert(partial, temporary, book.output)
            partial.unlink()
        else:
            partial.replace(book.output)
    except OSError as error:
        raise files.disk_error(book.output, error) from error


def _convert(partial: Path, temporary: Path, output: Path) -> None:
    """Write the rows as the output's name says."""
    if output.suffix in COMPRESSED_SUFFIXES:
        compress(partial, temporary)
        return
    from irlhf.io.parquet import write

    untyped = write(partial, temporary)
    for name, reason in untyped.items():
        console.note(f"{output}: column '{name:.40}' is JSON text, because {reason}")


def _check_kind(output: Path, manifest: RunManifest) -> None:
    """Refuse a name that says of the rows what they are not, and parquet where it is of no use."""
    kind = Path(bare(output.name)).suffix
    if kind in SEPARATORS or (kind == PARQUET and output.suffix in COMPRESSED_SUFFIXES):
        raise ConfigError(f"{output}: rows are written as JSONL, packed or not, or as parquet; end it on .jsonl or so")
    if kind == PARQUET:
        import irlhf.io.parquet  # noqa: F401 - fails here if pyarrow is not installed

        if manifest.settings.get("shard"):
            raise ConfigError(f"{output}: cat cannot put parts in parquet together; name the part .jsonl")


def _append(handle: int, row: bytes | bytearray, output: Path) -> None:
    view = memoryview(row)
    try:
        while view:
            view = view[os.write(handle, view) :]
    except OSError as error:
        raise files.disk_error(output, error) from error


def _current(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with the names of today for what an earlier version called otherwise."""
    command, settings = str(manifest.get("command", "")), dict(manifest.get("settings", {}))
    for before, now in _COMMANDS.items():
        command = command.replace(before, now)
    if settings.get("baseline") == "untouched":
        settings["baseline"] = "prompted"
    return {**manifest, "command": command, "settings": settings}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs between two cards, where it is and where it was."""
    changed = []
    if before.get("command") != now["command"]:
        changed.append(f"by `irlhf {before.get('command')}`")
    was, here = _flat(before.get("inputs", {})), _flat(now["inputs"])
    changed += [
        f"the {role.removesuffix('.sha256')} ({here.get(role.replace('sha256', 'path'), 'none')}) has changed"
        for role in sorted(was.keys() | here.keys())
        if role.endswith("sha256") and was.get(role) != here.get(role)
    ]
    was, here = _flat(before.get("settings", {})), _flat(now["settings"])
    for name, automatic in _REMOVED.items():
        if name not in here and was.get(name) == automatic:
            del was[name]
    changed += [
        f"{name} was {was.get(name, 'not set')!s:.60} and is {here.get(name, 'not set')!s:.60}"
        for name in sorted(was.keys() | here.keys())
        if was.get(name) != here.get(name)
    ]
    return changed


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def digest_of(path: Path) -> str:
    """Return a file's digest; for a policy that of its card, which vouches for the weights."""
    if not path.is_dir():
        return files.digest(path)
    if (path / "policy.json").is_file():
        return files.digest(path / "policy.json")
    inside = sorted([*path.glob("*.json"), *path.glob("*.jinja"), *path.glob("*.safetensors")])
    if not inside:
        raise ConfigError(f"{path} is a folder without a model in it")
    return hashlib.sha256("".join(files.digest(path) for path in inside).encode()).hexdigest()
