"""Turn raw data of any known shape into one clean record per completion, split by prompt."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from irlhf.errors import ConfigError, DataError
from irlhf.files import STREAM, read_each
from irlhf.journal import Journal, RunCard, journal
from irlhf.prepare.clean import clean
from irlhf.prepare.columns import renamed
from irlhf.prepare.findings import Findings
from irlhf.prepare.formats import Known, Rejected, Row, detect, find_format
from irlhf.records import TEST, TRAIN, VALIDATION, Content, Example, Where, unique, words
from irlhf.registry import FORMATS
from irlhf.tables import Broken, bare

_HASH_RANGE = 2**64
_SHAPE = re.compile(r"\.(json.*|csv|tsv|parquet)$", re.IGNORECASE)  # what a file's name says of its rows


@dataclass(frozen=True)
class PrepareSettings:
    """How raw data is read and split. Shares are of prompts, in [0, 1]; what is left is the training split."""

    format: str = "auto"
    test: float = 0.1
    validation: float = 0.05
    limit: int = 0  # rows of each source; 0 is all
    on_bad_row: Literal["stop", "skip"] = "stop"
    map: Mapping[str, str] = field(default_factory=dict)  # what columns are to be called → what they are called
    drop_duplicates: bool = False  # rows whose prompt and completion stood before


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
    findings = Findings()
    with journal(out, card, resumable=False) as book:
        if not book.finished:
            names = _names(paths)
            found = (pair for path in paths for pair in _read(path, names[path], settings, (book, findings)))
            for example in unique(found):
                split = example.split or _split(example.prompt, settings)
                book.write_row(example.to_json(split))
                book.counts[f"split {split}"] += 1
            book.counts.update(findings.counts)
    findings.tell()
    return {**book.summary(), "formats": findings.formats}


def _read(
    path: Path, name: str, settings: PrepareSettings, books: tuple[Journal, Findings]
) -> Iterator[tuple[Where, Example]]:
    """Yield the examples of one source as its format reads it and the rules of `clean` leave them."""
    book, findings = books
    known, rows = _recognised(islice(_rows(path, settings, book), settings.limit or None), settings, book)
    if known is None:
        return
    findings.formats[str(path)] = known.reason
    gathered = getattr(known.reader, "gathered", None)
    for row in gathered(rows) if gathered else rows:
        try:
            found = [_cleaned(one, row) for one in known.reader.read(row, name)]
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, book)
            continue
        for one in found:
            if isinstance(one, Rejected):
                book.reject(row.where, one.reason, one.row)
            elif settings.drop_duplicates and findings.is_again(one):
                book.reject(row.where, "an earlier row has the same prompt and completion", one.to_json())
                findings.counts["duplicates dropped"] += 1
            else:
                findings.look(row.where, one)
                yield row.where, one


def _recognised(rows: Iterator[Row], settings: PrepareSettings, book: Journal) -> tuple[Known | None, Iterator[Row]]:
    """Return the format of the first row that has a known one, and the rows from there on."""
    if settings.format != "auto":
        return find_format(settings.format), rows
    for row in rows:
        try:
            return detect(row), chain([row], rows)
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, book)
    return None, rows


def _cleaned(found: Example | Rejected, row: Row) -> Example | Rejected:
    return clean(found, row.fields) if isinstance(found, Example) else found


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Name each source for its rows' ids: by its file, and by its folder too where two files are called alike."""
    short = {path: "stdin" if path == STREAM else _SHAPE.sub("", bare(path.name)) for path in paths}
    alike = Counter(short.values())
    return {path: name if alike[name] == 1 else f"{path.resolve().parent.name}-{name}" for path, name in short.items()}


def _rows(path: Path, settings: PrepareSettings, book: Journal) -> Iterator[Row]:
    for where, fields in read_each(path):
        if isinstance(fields, Broken):
            _set_aside(fields.error, where, fields.given, settings, book)
            continue
        row = Row(where, fields)
        try:
            yield renamed(row, settings.map) if settings.map else row
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, book)


def _set_aside(error: DataError, where: Where, given: object, settings: PrepareSettings, book: Journal) -> None:
    """Keep what cannot be read, with the reason; raise it where that is to stop the run."""
    if settings.on_bad_row == "stop":
        raise error
    book.reject(where, str(error).removeprefix(f"{where}: "), given)


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
