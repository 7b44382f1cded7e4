"""Plain files in and out: rows read one at a time, whole files that appear complete or not at all."""

import gzip
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from irlhf.errors import ConfigError, DataError, IrlhfError, OutputError
from irlhf.records import Where

STREAM = Path("-")  # stdin where a file is read, stdout where one is written
LINE_LIMIT = 16 * 2**20  # bytes; a longer line is a broken file, or somebody's bomb
YAML_LIMIT = 2**20  # bytes
# C0 but newline and tab, DEL, C1, and the characters that turn the direction of text: a model or a data
# set could use them to rewrite the screen or to hide what it says.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
TEMPORARY = ".irlhf."  # how the names of unfinished files begin
DEPTH_LIMIT = 100  # levels of nesting in one row, well below Python's own

_GZIP = b"\x1f\x8b"
_NOT_READ = {b"\x28\xb5\x2f\xfd": "zstandard", b"PAR1": "parquet", b"PK\x03\x04": "zip"}


def read_rows(path: Path) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Yield every row of a JSONL file (plain or gzip, `-` for stdin) with its place.

    Raises ConfigError for a path that cannot be read and DataError for a row that cannot.
    """
    for where, line in read_lines(path):
        yield where, parse_row(line, where)


def read_lines(path: Path) -> Iterator[tuple[Where, bytes]]:
    """Yield every line that is not blank, without its line end, with its place."""
    number = 0
    found = False
    try:
        with open_input(path) as stream:
            while line := stream.readline(LINE_LIMIT + 1):
                number += 1
                if len(line) > LINE_LIMIT:
                    raise DataError(f"{path}:{number}: a line of over {LINE_LIMIT >> 20} MiB; is it JSONL?")
                if line.strip():
                    found = True
                    yield Where(str(path), number), line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}:{number + 1}: the gzip file is cut short or damaged; fetch it again") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if not found:
        raise DataError(f"{path}: no rows in it")


def parse_row(line: bytes, where: Where) -> dict[str, Any]:
    """Return the object on one line. Raises DataError."""
    try:
        text = line.decode("utf-8-sig" if where.line == 1 else "utf-8")
        row = json.loads(text, parse_constant=_refuse, parse_float=_float)
        if line.count(b"{") + line.count(b"[") > DEPTH_LIMIT and _depth(row) > DEPTH_LIMIT:
            raise RecursionError
        if isinstance(row, dict) and b"\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate has no bytes to be written as
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: half a character (a lone surrogate \\ud800-\\udfff); mend the text") from error
    except RecursionError as error:
        raise DataError(f"{where}: nested too deeply (over {DEPTH_LIMIT} levels)") from error
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({_first_line(error)})") from error
    if not isinstance(row, dict):
        raise DataError(f'{where}: not a JSON object; each line must be one, like {{"prompt": …}}')
    return row


@contextmanager
def open_input(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a file or stdin for reading, unpacked where it is gzip."""
    if path == STREAM:
        if sys.stdin.isatty():
            print("irlhf: waiting for JSONL on stdin (Ctrl-D ends it)", file=sys.stderr)
        with _unpacked(sys.stdin.buffer, path) as rows:
            yield rows
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a folder, not a file of rows")
    try:
        raw = path.open("rb")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    with raw, _unpacked(raw, path) as rows:
        yield rows


@contextmanager
def _unpacked(raw: Any, path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Look at the first bytes without taking them, and unpack gzip."""
    head = raw.peek(4)[:4]
    if head in _NOT_READ:
        raise DataError(f"{path}: a {_NOT_READ[head]} file, which is not read yet; unpack it to JSONL first")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: saved as UTF-16; save it as UTF-8")
    if head.startswith(_GZIP):
        with gzip.open(raw, "rb") as unpacked:
            yield unpacked
    else:
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
        value = json.loads(path.read_bytes(), parse_constant=_refuse)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({_first_line(error)})") from error
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
        raise ConfigError(f"{path}: not YAML ({_first_line(error)})") from error
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


def write_stdout(chunk: bytes) -> None:
    """Write JSON to stdout at once. BrokenPipeError, where the reader has enough, is the caller's to pass on.

    A terminal gets control characters as JSON escapes, which say the same and do nothing.
    """
    if sys.stdout.isatty():
        chunk = CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", chunk.decode()).encode()
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


def pack(source: Path, target: Path) -> None:
    """Write `source` as the gzip file `target`, with no time stamp in it: equal rows, equal bytes."""
    with (
        source.open("rb") as rows,
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
    ):
        shutil.copyfileobj(rows, packed, 2**20)


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


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.20} is beyond what a number can be")
    return number


def _depth(value: object) -> int:
    """Return how many levels a value is nested, found level by level: no recursion, no limit."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inside = [one for one in level if isinstance(one, dict | list)]
        level = [item for one in inside for item in (one.values() if isinstance(one, dict) else one)]
    return depth


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]


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
