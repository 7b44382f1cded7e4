"""Write rows so that a killed run can resume without losing or repeating any.

    <out>.lock            held by the one process that writes
    <out>.run.json        the manifest: digests of the inputs, all settings
    <out>.partial         the rows so far, each appended in one write
    <out>.rejected.jsonl  the rejected rows, each with its reason
    <out>                 appears when complete

The same command resumes after the last complete row. A command with other settings is an error.
"""

import glob
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError, OutputError
from irlhf.core.example import Example, Where, dumps
from irlhf.core.hashing import Shard, add_new
from irlhf.io import files
from irlhf.io.compression import COMPRESSED_SUFFIXES, compress
from irlhf.io.jsonl import Broken, Given, parse_row
from irlhf.io.manifest import InputFile, Manifest, differences, manifest_path, read_manifest
from irlhf.io.tables import SEPARATORS, bare

SYNC_ROWS = 32  # rows that a power failure may lose; a kill loses none
SYNC_SECONDS = 1.0
PARQUET = ".parquet"
PARTIAL = ".partial"  # suffix of an incomplete output


@dataclass(frozen=True)
class RunManifest:
    """The inputs and settings of a run. Runs with equal manifests write equal files."""

    command: str
    inputs: Mapping[str, Path]
    settings: Mapping[str, Any]
    afresh: str = ""  # what a new start costs, for the error message
    recorded: Mapping[str, Any] = field(default_factory=dict)  # facts for later commands, which may differ between runs

    def with_digests(self) -> Manifest:
        """Return the manifest as a file, with the digest of every input. Raises ConfigError if one cannot be read."""
        inputs = {role: InputFile(path=str(path), sha256=digest_of(path)) for role, path in self.inputs.items()}
        settings = json.loads(json.dumps(self.settings, default=str))
        recorded = json.loads(json.dumps(self.recorded, default=str))
        return Manifest(command=self.command, inputs=inputs, settings=settings, recorded=recorded)


@dataclass
class ResumableWriter:
    """Appends the rows of one output. Created by `resumable_output`."""

    output: Path
    done: set[int] = field(default_factory=set)  # fingerprints of the ids written by an interrupted run
    finished: bool = False  # an earlier run of the same command completed the output
    counts: Counter[str] = field(default_factory=Counter)
    first_rejection: str = ""  # the place and the reason
    _resumable: bool = True  # if False, an incomplete output is deleted
    _rows: int = -1  # file descriptors
    _rejects: int = -1
    _synced: float = 0.0

    def write(self, example: Example) -> None:
        """Append one example in one write. Raises OutputError."""
        self.write_row(example.to_json())

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Append one row of any keys in one write. Raises OutputError."""
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
        """Write one row to the rejected rows, with the reason. Raises OutputError."""
        self.counts["rejected"] += 1
        self.first_rejection = self.first_rejection or f"{where}: {reason}"
        if self.output != files.STREAM:
            _append(self._rejects, rejection(where, reason, row), self.output)

    def append(self, rows: bytes | bytearray, rejects: bytes | bytearray, counts: Mapping[str, int]) -> None:
        """Append several encoded rows in one write, for an output that is not resumable. Raises OutputError."""
        self.counts.update(counts)
        if self.output == files.STREAM:
            files.write_stdout(rows)
            return
        _append(self._rows, rows, self.output)
        _append(self._rejects, rejects, self.output)

    def summary(self) -> dict[str, Any]:
        """Return the output and the counts, for `--json` and the final note."""
        return {**outcome(self.output, self.finished), "written": 0, **self.counts}


def outcome(output: Path, already: bool = False) -> dict[str, Any]:
    """Return the summary of a successful run. `already_finished` means that an earlier run did the work."""
    return {"output": str(output), "finished": True, **({"already_finished": True} if already else {})}


@contextmanager
def resumable_output(output: Path, manifest: RunManifest, resumable: bool = True) -> Iterator[ResumableWriter]:
    """Yield a writer of rows. The output is completed if the block succeeds; after an error the rows are kept.

    Nothing is kept if `resumable` is False (for work that is cheap to repeat) or if an input is stdin, whose rows
    cannot be compared. Raises ConfigError if the output belongs to another run, and OutputError.
    """
    resumable = resumable and files.STREAM not in manifest.inputs.values()
    if output == files.STREAM:
        yield ResumableWriter(output)
        return
    files.check_output(output, manifest.inputs)
    _check_kind(output, manifest)
    with lock(output):
        made = manifest.with_digests()
        writer = ResumableWriter(output, _resumable=resumable)
        if is_finished(output, made, manifest.afresh):
            writer.finished = True
            beside(output, PARTIAL).unlink(missing_ok=True)  # a killed run may have left it beside a compressed output
            before = read_manifest(output)
            writer.counts.update(before.counts or {})
            if before.recorded != made.recorded:
                before.model_copy(update={"recorded": made.recorded}).write(output)
            yield writer
            return
        _begin(writer, made)
        try:
            yield writer
        except BaseException:
            _keep(writer)
            raise
        _complete(writer, made)


@contextmanager
def resumable_folder(output: Path, manifest: RunManifest, worth: str = "") -> Iterator[Path | None]:
    """Yield the folder `<output>.partial`, which becomes `output`; None if an earlier run completed it.

    After a failure the folder is kept if it has a file that matches the glob `worth`, from which the same command
    resumes. Without `worth` nothing is kept. Raises ConfigError if the output belongs to another run, and OutputError.
    """
    files.check_output(output, manifest.inputs)
    with lock(output):
        made = manifest.with_digests()
        if is_finished(output, made):
            yield None
            return
        if files.STREAM in manifest.inputs.values() and beside(output, PARTIAL).is_dir():
            shutil.rmtree(beside(output, PARTIAL))  # its rows may differ from those on stdin
        _sweep(output)
        files.sweep(beside(output, PARTIAL))
        made.write(output)
        try:
            with files.whole_folder(output) as folder:
                yield folder
        except BaseException:
            partial = beside(output, PARTIAL)
            if partial.is_dir() and not (worth and any(partial.glob(worth))):
                shutil.rmtree(partial)
                manifest_path(output).unlink(missing_ok=True)
            raise


@contextmanager
def lock(output: Path) -> Iterator[None]:
    """Lock the output for this process. Raises OutputError at once if another process holds the lock."""
    path = beside(output, ".lock")
    held = filelock.FileLock(path, timeout=0)
    try:
        held.acquire()
    except filelock.Timeout as error:
        raise OutputError(f"{output}: another irlhf process is writing it; wait, or choose another output") from error
    except OSError as error:
        raise files.disk_error(output, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while locked: a waiting process notices the removed file and retries
        held.release()


def is_finished(output: Path, made: Manifest, afresh: str = "", parts: Path | None = None) -> bool:
    """Return whether the run with this manifest is complete. Raises ConfigError if the output belongs to another run.

    `parts` is the path of the unfinished output if it is not the usual `.partial`.
    """
    manifest_file = manifest_path(output)
    partial = parts or beside(output, PARTIAL)
    if output.exists() and not manifest_file.exists():
        raise ConfigError(f"{output} exists but was not written by irlhf; choose another output, or move the file")
    if not output.exists() and not partial.exists():
        return False
    if manifest_file.exists():
        changed = differences(read_manifest(output), made)
        whole = output if output.exists() and not parts else partial
        fix = f"choose another output, or delete {whole} to start over"
        fix += f" ({afresh})" if afresh else ""
        if changed:
            raise ConfigError(f"{output} belongs to a different run: {'; '.join(changed)}; {fix}")
        if output.exists() and any(entry.sha256 == str(files.STREAM) for entry in made.inputs.values()):
            raise ConfigError(f"{output} exists, but the rows on stdin cannot be compared with its input; {fix}")
    return output.exists()


def recorded_setting(output: Path, name: str) -> Any:
    """Return a setting of the run that started or completed this output; None if there is no such run or setting."""
    started = output != files.STREAM and (output.exists() or beside(output, PARTIAL).exists())
    return read_manifest(output).settings.get(name) if started and manifest_path(output).is_file() else None


def recorded_input(output: Path, role: str) -> str:
    """Return the path of an input of the run that wrote this output, as given then; empty if there is none."""
    inputs = read_manifest(output).inputs if manifest_path(output).is_file() else {}
    return inputs[role].path if role in inputs else ""


def recorded_facts(output: Path) -> dict[str, Any]:
    """Return the `recorded` facts in an output's manifest; empty without a manifest."""
    has_manifest = output != files.STREAM and manifest_path(output).is_file()
    return read_manifest(output).recorded if has_manifest else {}


def counts_of(output: Path) -> dict[str, int]:
    """Return the counts in an output's manifest. Raises ConfigError if it cannot be read."""
    return read_manifest(output).counts or {}


def rejection(where: Where | str, reason: str, row: object) -> bytes:
    """Return the JSONL line of a rejected row."""
    return dumps({"where": str(where), "reason": reason, "row": row})


def beside(output: Path, suffix: str) -> Path:
    """Return the path of a file that accompanies the output."""
    return output.parent / f"{output.name}{suffix}"  # not with_name, which refuses the path "."


def _begin(writer: ResumableWriter, made: Manifest) -> None:
    partial = beside(writer.output, PARTIAL)
    try:
        _sweep(writer.output)
        if partial.exists() and writer._resumable and manifest_path(writer.output).exists():
            writer.done = _recover(partial)
        elif partial.exists():
            partial.unlink()
        made.write(writer.output)
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        writer._rows = os.open(partial, append, 0o666)
        # Every run reads its input from the start, so it finds every rejected row again.
        writer._rejects = os.open(beside(writer.output, ".rejected.partial"), append | os.O_TRUNC, 0o666)
    except OSError as error:
        raise files.disk_error(writer.output, error) from error
    writer.counts["resumed"] = len(writer.done)
    writer._synced = time.monotonic()


def _sweep(output: Path) -> None:
    """Remove the temporary files that a killed run left for this output and its manifest. Needs the lock."""
    for path in (output, manifest_path(output)):
        for stale in output.parent.glob(f"{files.TEMPORARY}{glob.escape(path.name)}.????????{path.suffix}"):
            stale.unlink(missing_ok=True)


def _recover(partial: Path) -> set[int]:
    """Truncate an incomplete last row, and return the fingerprints of the ids before it. Raises DataError."""
    done: set[int] = set()
    whole = 0
    with partial.open("r+b") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                break
            where = Where(str(partial), number)
            identifier = parse_row(line, where).get("id")
            if not isinstance(identifier, str) or not add_new(done, identifier):
                raise DataError(f"{where}: damaged; delete {partial} to start over")
            whole += len(line)
        stream.truncate(whole)
    return done


def _keep(writer: ResumableWriter) -> None:
    os.close(writer._rows)
    os.close(writer._rejects)
    beside(writer.output, ".rejected.partial").unlink(missing_ok=True)
    partial = beside(writer.output, PARTIAL)
    if not writer._resumable or partial.stat().st_size == 0:
        partial.unlink()
        manifest_path(writer.output).unlink(missing_ok=True)


def _complete(writer: ResumableWriter, made: Manifest) -> None:
    """Rename `.partial` to the output. The output comes last, so that its existence means that all is complete."""
    partial, rejected = beside(writer.output, PARTIAL), beside(writer.output, ".rejected.jsonl")
    try:
        for handle in (writer._rows, writer._rejects):
            os.fsync(handle)
            os.close(handle)
        made.model_copy(update={"counts": dict(writer.counts)}).write(writer.output)
        if writer.counts["rejected"]:
            beside(writer.output, ".rejected.partial").replace(rejected)
        else:
            beside(writer.output, ".rejected.partial").unlink()
            rejected.unlink(missing_ok=True)
        if writer.output.suffix in (*COMPRESSED_SUFFIXES, PARQUET):
            with files.whole_file(writer.output) as temporary:
                _convert(partial, temporary, writer.output)
            partial.unlink()
        else:
            partial.replace(writer.output)
    except OSError as error:
        raise files.disk_error(writer.output, error) from error


def _convert(partial: Path, temporary: Path, output: Path) -> None:
    """Write the rows in the format given by the suffix of the output."""
    if output.suffix in COMPRESSED_SUFFIXES:
        compress(partial, temporary)
        return
    from irlhf.io.parquet import write

    untyped = write(partial, temporary)
    for name, reason in untyped.items():
        console.note(f"{output}: column '{name:.40}' is written as JSON text: {reason}")


def _check_kind(output: Path, manifest: RunManifest) -> None:
    """Raise ConfigError for an output suffix that is not supported."""
    kind = Path(bare(output.name)).suffix
    if kind in SEPARATORS or (kind == PARQUET and output.suffix in COMPRESSED_SUFFIXES):
        raise ConfigError(f"{output}: unsupported suffix; use .jsonl, .jsonl.gz, .jsonl.zst or .parquet")
    if kind == PARQUET:
        import irlhf.io.parquet  # noqa: F401 - fails here if pyarrow is not installed

        if manifest.settings.get("shard"):
            raise ConfigError(
                f"{output}: parquet shards cannot be concatenated with cat; use an output that ends in .jsonl"
            )


def _append(handle: int, row: bytes | bytearray, output: Path) -> None:
    view = memoryview(row)
    try:
        while view:
            view = view[os.write(handle, view) :]
    except OSError as error:
        raise files.disk_error(output, error) from error


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, of a policy's policy.json or of a model folder's files. Raises ConfigError.

    Comments and spaces in a YAML file do not count.
    """
    if path.suffix in (".yaml", ".yml"):
        content = json.dumps(files.read_yaml(path), default=str)
        return hashlib.sha256(content.encode(errors="replace")).hexdigest()
    if not path.is_dir():
        return files.digest(path)
    if (path / "policy.json").is_file():
        return files.digest(path / "policy.json")
    inside = sorted([*path.glob("*.json"), *path.glob("*.jinja"), *path.glob("*.safetensors")])
    if not inside:
        raise ConfigError(f"{path} is a folder without a model; name a file of rows, or the folder of a model")
    return hashlib.sha256("".join(files.digest(path) for path in inside).encode()).hexdigest()


def read_examples(
    rows: Iterable[tuple[Where, Given]],
    parse: Callable[[dict[str, Any], Where], Example],
    shard: Shard,
    writer: ResumableWriter | None,
    *,
    skip: bool,
) -> Iterator[tuple[Where, Example]]:
    """Yield each parsed row with its place. With `skip`, invalid rows are rejected instead of raising DataError.

    Each is rejected by the writer of one shard; a first pass without a writer rejects nothing.
    """
    for where, row in rows:
        given = row.given if isinstance(row, Broken) else row
        try:
            if isinstance(row, Broken):
                raise row.error
            example = parse(row, where)
        except DataError as error:
            if not skip:
                raise
            if writer is not None and shard.holds(f"{given}"):
                writer.reject(where, str(error).removeprefix(f"{where}: "), given)
            continue
        yield where, example
