"""Read rows one at a time, and write files that appear complete or not at all."""

import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
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

STREAM = Path("-")  # stdin for reading, stdout for writing
YAML_LIMIT = 2**20  # bytes
SAVED = ("dataset_dict.json", "state.json")  # files in a folder written by the `save_to_disk` of datasets
TEMPORARY = ".irlhf."  # prefix of the names of unfinished files

_Row = TypeVar("_Row")
_JSON = re.compile(rb"\s*(\{|\[\s*(\{|$))")  # the start of an object or a list of objects; [Draft] is text
_TYPED = (b"PAR1", b"ARRO", b"\xff\xff\xff\xff")  # first bytes of parquet files, and of Arrow files and streams
_UNSUPPORTED = {  # first bytes of other files → what they are, and what to do
    b"PK\x03\x04": "zip files and spreadsheets are not supported; unzip it, or save it as CSV",
    b"7z\xbc\xaf": "7z files are not supported; unpack it",
    b"Rar!": "rar files are not supported; unpack it",
    b"\x04\x22\x4d\x18": "lz4 files are not supported; unpack it",
    b"FEA1": "Feather files of version 1 are not supported; save it as parquet",
    b"Obj\x01": "Avro files are not supported; save it as parquet",
    b"SQLi": "databases are not supported; export the table as CSV",
    b"\x89HDF": "HDF5 files are not supported; save it as parquet",
    b"\x80\x04\x95": "pickled data is not supported, because it can run code; save it as parquet",
    b"\xff\xfe": "saved as UTF-16; save it as UTF-8",
    b"\xfe\xff": "saved as UTF-16; save it as UTF-8",
}


def read_rows(path: Path) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Yield every row of a file (`-` for stdin) with its place.

    Raises ConfigError if the path cannot be read and DataError if a row cannot be read.
    """
    for where, row in read_each(path):
        if isinstance(row, Broken):
            raise row.error
        yield where, row


def expanded(name: str) -> str:
    """Return a path with ~ replaced by the home folder; other names, such as those on the hub, are unchanged."""
    return str(Path(name).expanduser()) if name.startswith("~") else name


def _ignore(reason: str) -> None:
    """Discard the reason."""


def read_each(
    path: Path, tell: Tell = _ignore, delimiter: str = "", texts: Collection[str] = ()
) -> Iterator[tuple[Where, Given]]:
    """Yield every row with its place; rows that cannot be read are yielded as `Broken`.

    The format is JSONL, a table (.csv, .tsv), one JSON value with a list, parquet, or Arrow. It is recognized by the
    first bytes and the name of the file. All formats but parquet and Arrow may be compressed with gzip, zstandard,
    bzip2 or xz. The place is the line number in JSONL, else the row number. `tell` is called with the reason if a file
    is read as a table although its name does not say so. `delimiter` separates the cells of a table; if empty, it is
    inferred from the name and the header. `texts` are names of columns of a table that are text.
    """
    how = Reading(tell, delimiter, frozenset(texts), not path.is_file())
    yield from _read(path, partial(_rows, how=how), lambda item: item[0].line)


def read_blocks(path: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of lines of a JSONL file, starting with the line `first`, each with its first line number."""

    def blocks(stream: Any, path: Path, packer: str) -> Iterator[tuple[int, bytes]]:
        return blocks_of(stream, path, first)

    def last_line(block: tuple[int, bytes]) -> int:
        filled = block[1].rstrip()
        return block[0] + filled.count(b"\n") if filled else 0

    yield from _read(path, blocks, last_line, first - 1)


def read_texts(path: Path) -> Iterator[tuple[Where, str]]:
    """Yield every line of a text file that is not blank, without its line break, with its place.

    Raises ConfigError if the path cannot be read and DataError if a line is not UTF-8.
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
    """Return whether a file holds one text per line: a .txt, compressed or not, that does not start like JSON."""
    if path == STREAM or Path(bare(path.name)).suffix.lower() != ".txt":
        return False
    with _open(path) as raw:
        stream, _ = compression.decompressed(raw, _head(raw, path))
        try:
            return not _JSON.match(_head(stream, path).removeprefix(BOM))
        except compression.DAMAGE:  # the reader of the rows reports the damage
            return False


def holds_jsonl(path: Path) -> bool:
    """Return whether a file holds one row per line, so that it can be split without parsing the rows."""
    with _open(path) as raw:
        stream, _ = compression.decompressed(raw, _head(raw, path))
        try:
            return _head(stream, path) not in _TYPED and is_jsonl(stream, path)
        except compression.DAMAGE:  # the reader of the rows reports the damage
            return False


def _read(
    path: Path, find: Callable[[Any, Path, str], Iterator[_Row]], line_of: Callable[[_Row], int], number: int = 0
) -> Iterator[_Row]:
    """Yield what `find` finds in a file after the line `number`.

    If the file is damaged, the error names the line after the last one found. Raises DataError if nothing was found.
    """
    try:
        with _open(path) as raw:
            stream, packer = compression.decompressed(raw, _head(raw, path))
            try:
                for item in find(stream, path, packer):
                    number = line_of(item) or number
                    yield item
            except compression.DAMAGE as error:
                reason = f"the {packer} file is truncated or damaged; download it again"
                raise DataError(f"{path}:{number + 1}: {reason}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if not number:
        raise DataError(f"{path}: the file has no rows")


def _rows(stream: Any, path: Path, packer: str, how: Reading) -> Iterator[tuple[Where, Given]]:
    if _head(stream, path) not in _TYPED:
        return rows_of(stream, path, how)
    if packer or not stream.seekable():
        raise DataError(
            f"{path}: parquet and Arrow cannot be read from a compressed file or a pipe; pass the file itself"
        )
    from irlhf.io.parquet import rows_of as typed_rows

    return typed_rows(stream, path)


def _head(stream: Any, path: Path) -> bytes:
    """Return the first bytes without consuming them. Raises DataError for files that cannot be read."""
    head: bytes = stream.peek(4)[:4]
    for start, problem in _UNSUPPORTED.items():
        if head.startswith(start):
            raise DataError(f"{path}: {problem}")
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
        saved = any((path / name).is_file() for name in SAVED)
        fix = f"; read it with `irlhf prepare {path}`" if saved else "; name a file in it"
        raise ConfigError(f"{path} is a folder, not a file of rows{fix}")
    try:
        raw = path.open("rb")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    with raw:
        yield raw


def digest(path: Path) -> str:
    """Return the sha256 of a file's bytes, or "-" for stdin, which cannot be read twice. Raises ConfigError."""
    if path == STREAM:
        return str(STREAM)
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a regular file, but it must be read twice; use - for stdin")
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file written by irlhf. Raises ConfigError, or DataError if it is damaged."""
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
    """Return the mapping in a YAML file written by a user.

    Aliases and repeated keys are rejected: aliases can expand without bound, and repeated keys would be dropped
    silently. Raises ConfigError with the line.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if len(text) > YAML_LIMIT:
        raise ConfigError(f"{path}: over {YAML_LIMIT >> 20} MiB, which is too large for a settings file")
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: {error.problem or 'not YAML'}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML ({first_line(error)})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of names to settings")
    return value


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; it is renamed to `path` if the block succeeds, else removed. Raises OutputError."""
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
    """Write one indented JSON object, completely or not at all; `-` is stdout. Raises OutputError."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    if path == STREAM:
        write_stdout(text.encode(errors="replace"))
        return
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode(errors="replace"))


def write_stdout(chunk: bytes | bytearray) -> None:
    """Write JSON to stdout and flush. Raises BrokenPipeError if the reader has closed the pipe.

    On a terminal, control characters are written as JSON escapes, so that they have no effect.
    """
    if sys.stdout.isatty():
        chunk = CONTROL_CHARACTERS.sub(lambda match: f"\\u{ord(match[0]):04x}", chunk.decode()).encode()
    try:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Otherwise Python flushes the rest at exit and reports the error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise disk_error(Path("stdout"), error) from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield the folder `<path>.partial`; it is renamed to `path` if the block succeeds.

    After a failure its content is kept, so that long work can resume. Raises OutputError.
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
    """Remove the unfinished files of a killed process below a folder. No other process may be writing there."""
    for stale in folder.rglob(f"{TEMPORARY}*"):
        stale.unlink(missing_ok=True)


def check_output(output: Path, inputs: Mapping[str, Path]) -> None:
    """Raise ConfigError or OutputError if an output is an input or its folder is missing or not writable."""
    if output == STREAM:
        return
    for role, given in inputs.items():
        if given != STREAM and given.exists() and output.exists() and output.samefile(given):
            raise ConfigError(f"{output} is both the output and the {role}; write to another file")
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent}: the folder of the output does not exist; create it first")
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"{output.parent}: this folder is not writable")


def disk_error(path: Path, error: OSError) -> IrlhfError:
    """Return the OutputError for a failed write."""
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); free disk space or choose another path")


_WORD_TAGS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")  # yes, no, on, off, true, false, null


class _StrictLoader(yaml.SafeLoader):
    """YAML without aliases and repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.get_mark()
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key.start_mark)
            if key.tag in _WORD_TAGS:
                problem = f"YAML does not read the name {key.value} as text; write '{key.value}' in quotation marks"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"{key.value!r} occurs twice"
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
