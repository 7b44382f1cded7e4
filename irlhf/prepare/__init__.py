"""Turn raw data of any known shape into one clean record per completion, split by prompt."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from irlhf.errors import ConfigError, DataError
from irlhf.files import STREAM, parse_row, read_lines
from irlhf.journal import Journal, RunCard, journal
from irlhf.prepare.formats import Row, detect, find_format
from irlhf.records import TEST, TRAIN, VALIDATION, Content, Example, Where, unique, words
from irlhf.registry import FORMATS

_HASH_RANGE = 2**64


@dataclass(frozen=True)
class PrepareSettings:
    """How raw data is read and split. Shares are of prompts, in [0, 1]; what is left is the training split."""

    format: str = "auto"
    test: float = 0.1
    validation: float = 0.05
    limit: int = 0  # rows of each source; 0 is all
    on_bad_row: Literal["stop", "skip"] = "stop"


def prepare(
    sources: Sequence[str | Path], output: str | Path, settings: PrepareSettings = PrepareSettings()
) -> dict[str, Any]:
    """Write one example per completion and return what was done.

    The split of a row hangs on its normalised prompt alone, so equal prompts never part, in one run or
    in several. Rows that the format's own rule sets aside (an empty completion) are counted and kept with
    their reason in `<output>.rejected.jsonl`; rows that cannot be read stop the run or join them.
    Raises ConfigError and DataError.
    """
    paths, out = [Path(source) for source in sources], Path(output)
    _check(paths, settings)
    card = RunCard("prepare", {f"source {n}": path for n, path in enumerate(paths, 1)}, asdict(settings))
    with journal(out, card, resumable=False) as book:
        if not book.finished:
            names = _names(paths)
            found = (pair for path in paths for pair in _read(path, names[path], settings, book))
            for example in unique(found):
                split = example.split or _split(example.prompt, settings)
                book.write(replace(example, split=split))
                book.counts[f"split {split}"] += 1
    return book.summary()


def _read(path: Path, name: str, settings: PrepareSettings, book: Journal) -> Iterator[tuple[Where, Example]]:
    reader = find_format(settings.format) if settings.format != "auto" else None
    for row in islice(_rows(path, settings, book), settings.limit or None):
        try:
            reader = reader or detect(row)
            found = list(reader.read(row, name))
        except DataError as error:
            if settings.on_bad_row == "stop":
                raise
            book.reject(row.where, _reason(error, row.where), row.fields)
            continue
        for one in found:
            if isinstance(one, Example):
                yield row.where, one
            else:
                book.reject(row.where, one.reason, one.row)


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Name each source for its rows' ids: by its file, and by its folder too where two files are called alike."""
    short = {path: "stdin" if path == STREAM else path.name.split(".json")[0] for path in paths}
    alike = Counter(short.values())
    return {path: name if alike[name] == 1 else f"{path.resolve().parent.name}-{name}" for path, name in short.items()}


def _rows(path: Path, settings: PrepareSettings, book: Journal) -> Iterator[Row]:
    for where, line in read_lines(path):
        try:
            yield Row(where, parse_row(line, where))
        except DataError as error:
            if settings.on_bad_row == "stop":
                raise
            book.reject(where, _reason(error, where), line.decode("utf-8", "replace"))


def _split(prompt: Content, settings: PrepareSettings) -> str:
    """Return the split of a prompt: a hash of its words, so that spacing, case and width do not matter."""
    point = int.from_bytes(hashlib.sha256(words(prompt).encode()).digest()[:8]) / _HASH_RANGE
    if point < settings.test:
        return TEST
    return VALIDATION if point < settings.test + settings.validation else TRAIN


def _check(paths: Sequence[Path], settings: PrepareSettings) -> None:
    if not paths:
        raise ConfigError("no source to prepare; name a file, or - for stdin")
    if settings.format != "auto" and settings.format not in FORMATS:
        find_format(settings.format)
    if min(settings.test, settings.validation) < 0 or settings.test + settings.validation > 1:
        raise ConfigError(f"shares of {settings.test} test and {settings.validation} validation leave no room")


def _reason(error: DataError, where: Where) -> str:
    return str(error).removeprefix(f"{where}: ")
