"""Plain files in and out: rows read one at a time, whole files that appear complete or not at all."""

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from irlhf.core.console import CONTROL_CHARACTERS
from irlhf.core.errors import ConfigError, DataError, IrlhfError, OutputError
from irlhf.core.example import Where
from irlhf.io import compression
from irlhf.io.jsonl import BOM, Broken, Given, blocks_of, first_line, numbered_lines, refuse
from irlhf.io.tables import Reading, Tell, bare, is_jsonl, rows_of

STREAM = Path("-")  # stdin where a file is read, stdout where one is written
YAML_LIMIT = 2**20  # bytes
TEMPORARY = ".irlhf."  # how the names of unfinished files begin

_Row = TypeVar("_Row")
_JSON = re.compile(rb"\s*(\{|\[\s*(\{|$))")  # how an object or a list of them begins; [Draft] is text
_PARQUET, _ZIP = b"PAR1", b"PK\x03\x04"  # what such files begin with


def read_rows(path: Path) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Yield every row of a file (`-` for stdin) with its place.

    Raises ConfigError for a path that cannot be read and DataError for a row that cannot.
    """
    for where, row in read_each(path):
        if isinstance(row, Broken):
            raise row.error
        yield where, row


def _unsaid(reason: str) -> None:
    """Tell nobody."""


def read_each(path: Path, tell: Tell = _unsaid, delimiter: str = "") -> Iterator[tuple[Where, Given]]:
    """Yield every row with its place, and those that cannot be read as `Broken`.

    JSONL, tables (.csv, .tsv), a list in one JSON value and parquet are told by what they begin with and by their
    names; all but parquet may be packed by gzip or zstandard. The place is a line of JSONL, else a row. What a name
    does not say is told, with the reason. `delimiter` separates the cells of tables; empty, the name and the header say
    what does.
    """
    yield from _read(path, partial(_rows, how=Reading(tell, delimiter)), lambda item: item[0].line)


def read_blocks(path: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a JSONL file from the line `first` on, many at a time, with the number of the first."""

    def blocks(stream: Any, path: Path, packer: str) -> Iterator[tuple[int, bytes]]:
        return blocks_of(stream, path, first)

    def last_of(block: tuple[int, bytes]) -> int:
        filled = block[1].rstrip()
        return block[0] + filled.count(b"\n") if filled else 0

    yield from _read(path, blocks, last_of, first - 1)


def read_texts(path: Path) -> Iterator[tuple[Where, str]]:
    """Yield every line of a text file that is not blank, without its end, with its place.

    Raises ConfigError for a path that cannot be read and DataError for a line that is not UTF-8.
    """

    def lines(stream: Any, path: Path, packer: str) -> Iterator[tuple[int, bytes]]:
        return numbered_lines(stream, path)

    for number, line in _read(path, lines, lambda numbered: numbered[0]):
        where = Where(str(path), number)
        try:
            text = (line.removeprefix(BOM) if number == 1 else line).decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
        if text.strip():
            yield where, text


def holds_texts(path: Path) -> bool:
    """Return whether a file holds a text a line: a .txt, packed or not, that does not begin as JSON does."""
    if path == STREAM or Path(bare(path.name)).suffix.lower() != ".txt":
        return False
    with _open(path) as raw:
        stream, _ = compression.decompressed(raw, _head(raw, path))
        try:
            return not _JSON.match(_head(stream, path).removeprefix(BOM))
        except compression.DAMAGE:  # whoever reads it will say so
            return False


def holds_jsonl(path: Path) -> bool:
    """Return whether a file holds rows that are a line each, and can be told apart without reading them."""
    with _open(path) as raw:
        stream, _ = compression.decompressed(raw, _head(raw, path))
        try:
            return _head(stream, path) != _PARQUET and is_jsonl(stream, path)
        except compression.DAMAGE:  # whoever reads it will say so
            return False


def _read(
    path: Path, find: Callable[[Any, Path, str], Iterator[_Row]], line_of: Callable[[_Row], int], number: int = 0
) -> Iterator[_Row]:
    """Yield what is found in a file behind the line `number`.

    What is wrong with the file is said with the line behind the last one found; 0 is none.
    """
    try:
        with _open(path) as raw:
            stream, packer = compression.decompressed(raw, _head(raw, path))
            try:
                for item in find(stream, path, packer):
                    number = line_of(item) or number
                    yield item
            except compression.DAMAGE as error:
                reason = f"the {packer} file is cut short or damaged; fetch it again"
                raise DataError(f"{path}:{number + 1}: {reason}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if not number:
        raise DataError(f"{path}: no rows in it")


def _rows(stream: Any, path: Path, packer: str, how: Reading) -> Iterator[tuple[Where, Given]]:
    if _head(stream, path) != _PARQUET:
        return rows_of(stream, path, how)
    if packer or not stream.seekable():
        raise DataError(f"{path}: parquet is read from its end; give it as a file of its own, not packed or by a pipe")
    from irlhf.io.parquet import rows_of as parquet_rows

    return parquet_rows(stream, path)


def _head(stream: Any, path: Path) -> bytes:
    """Return the first bytes without taking them. Raises DataError for what is not read here."""
    head: bytes = stream.peek(4)[:4]
    if head == _ZIP:
        raise DataError(f"{path}: a zip file (or a spreadsheet), which is not read; unpack it (or save it as CSV)")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: saved as UTF-16; save it as UTF-8")
    return head


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open a file or stdin for reading."""
    if path == STREAM:
        if sys.stdin.isatty():
            print("irlhf: waiting for rows on stdin (Ctrl-D ends it)", file=sys.stderr)
        yield sys.stdin.buffer
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a file of rows")
    try:
        raw = path.open("rb")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    with raw:
        yield raw


def digest(path: Path) -> str:
    """Return the sha256 of a file's bytes, or "-" for a stream, which cannot be read twice."""
    if path == STREAM:
        return str(STREAM)
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no plain file, and it is read twice; use - for a stream")
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of ours. Raises ConfigError, or DataError where it is damaged."""
    try:
        value = json.loads(path.read_bytes(), parse_constant=refuse)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({first_line(error)})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file that a user wrote.

    Anchors, aliases and doubled keys are refused: the first two can swell without bound, the last
    loses what was written. Raises ConfigError with the line.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if len(text) > YAML_LIMIT:
        raise ConfigError(f"{path}: over {YAML_LIMIT >> 20} MiB; that is no settings file")
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: {error.problem or 'not YAML'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML ({first_line(error)})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: no mapping of names to settings in it")
    return value


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write; it becomes `path` when the block ends well, else it is gone."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file")
    handle, name = _temporary(path)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        temporary.chmod(mode)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object, indented, whole or not at all; `-` is stdout."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    if path == STREAM:
        write_stdout(text.encode(errors="replace"))
        return
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode(errors="replace"))


def write_stdout(chunk: bytes | bytearray) -> None:
    """Write JSON to stdout at once. BrokenPipeError, where the reader has enough, is the caller's to pass on.

    A terminal gets control characters as JSON escapes, which say the same and do nothing.
    """
    if sys.stdout.isatty():
        chunk = CONTROL_CHARACTERS.sub(lambda match: f"\\u{ord(match[0]):04x}", chunk.decode()).encode()
    try:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python would flush what is left when it ends, and complain a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise disk_error(Path("stdout"), error) from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give the folder `<path>.partial` to fill; it becomes `path` when the block ends well.

    What stands in it after a failure is kept, so that long work can go on from there.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.mkdir(exist_ok=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _sync(file)
        partial.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise disk_error(path, error) from error


def sweep(folder: Path) -> None:
    """Remove, below a folder, the unfinished files that a kill left. Nobody else may be writing there."""
    for stale in folder.rglob(f"{TEMPORARY}*"):
        stale.unlink(missing_ok=True)


def check_output(output: Path, inputs: Mapping[str, Path]) -> None:
    """Refuse an output that is an input, or that has no folder to stand in, before any work is done."""
    if output == STREAM:
        return
    for role, given in inputs.items():
        if given != STREAM and given.exists() and output.exists() and output.samefile(given):
            raise ConfigError(f"{output} is both the output and the {role}; write to another file")
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent}: no such folder for the output; make it first")
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"{output.parent}: this folder cannot be written to")


def disk_error(path: Path, error: OSError) -> IrlhfError:
    """Say what the disk refused."""
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); free some room or name another")


class _StrictLoader(yaml.SafeLoader):
    """YAML without aliases and without doubled keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read here", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a name must be plain text", problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"{key.value!r} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _temporary(path: Path) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(prefix=f"{TEMPORARY}{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise disk_error(path, error) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
