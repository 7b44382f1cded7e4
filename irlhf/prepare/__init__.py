"""Turn raw data of any known shape into one clean record per completion, split by prompt."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from irlhf.errors import ConfigError, DataError
from irlhf.files import STREAM, read_blocks, read_each
from irlhf.journal import Journal, RunCard, journal
from irlhf.prepare import hands
from irlhf.prepare.clean import clean
from irlhf.prepare.columns import renamed
from irlhf.prepare.findings import Findings
from irlhf.prepare.formats import Known, Rejected, Row, detect, find_format
from irlhf.prepare.hands import Sheet
from irlhf.records import TEST, TRAIN, VALIDATION, Content, Example, Where, check_new, unique, words
from irlhf.registry import FORMATS
from irlhf.tables import Broken, Given, bare, rows_in

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
            for path in paths:
                _prepare(path, names[path], settings, (book, findings))
            book.counts.update(findings.counts)
    findings.tell()
    return {**book.summary(), "formats": findings.formats}


def work() -> None:
    """Prepare the blocks of rows that another process hands over (irlhf/prepare/hands.py)."""
    hands.serve(_begin)


def _begin(order: dict[str, Any]) -> Callable[[int, bytes], Sheet]:
    path, known, settings = Path(order["path"]), find_format(order["format"]), PrepareSettings(**order["settings"])

    def make(number: int, block: bytes) -> Sheet:
        sheet, findings = Sheet(), Findings()
        ids: list[tuple[int, str]] = []
        error = ""
        try:
            rows = _rows(rows_in(block, number, path), settings, sheet)
            for where, example in _read(known, rows, order["name"], settings, (sheet, findings)):
                ids.append((where.line, example.id))
                _write(example, settings, sheet)
        except DataError as stopped:
            error = str(stopped)
        sheet.told = {"ids": ids, "found": findings.counts, "first": findings.first, "error": error}
        return sheet

    return make


def _prepare(path: Path, name: str, settings: PrepareSettings, books: tuple[Journal, Findings]) -> None:
    """Write the examples of one source."""
    book, findings = books
    given = islice(_rows(read_each(path), settings, book), settings.limit or None)
    known, rows = _recognised(given, settings, book)
    if known is None:
        return
    findings.formats[str(path)] = known.reason
    alone = settings.limit or settings.drop_duplicates or hasattr(known.reader, "gathered")
    many = 0 if alone else hands.count(path)
    first = next(rows, None) if many else None
    if first is None:
        for example in unique(_read(known, rows, name, settings, books), findings.ids):
            _write(example, settings, book)
        return
    order = {"path": str(path), "name": name, "format": known.name, "settings": asdict(settings)}
    with closing(hands.sheets(read_blocks(path, first.where.line), order, many)) as sheets:
        for sheet in sheets:
            for line, identifier in sheet.told["ids"]:
                check_new(identifier, Where(str(path), line), findings.ids)
            book.append(sheet.rows, sheet.rejects, sheet.counts)
            findings.add(sheet.told["found"], sheet.told["first"])
            if sheet.told["error"]:
                raise DataError(sheet.told["error"])


def _write(example: Example, settings: PrepareSettings, book: Journal | Sheet) -> None:
    split = example.split or _split(example.prompt, settings)
    book.write_row(example.to_json(split))
    book.counts[f"split {split}"] += 1


def _read(
    known: Known, rows: Iterator[Row], name: str, settings: PrepareSettings, books: tuple[Journal | Sheet, Findings]
) -> Iterator[tuple[Where, Example]]:
    """Yield the examples of rows as their format reads them and the rules of `clean` leave them."""
    book, findings = books
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


def _recognised(
    rows: Iterator[Row], settings: PrepareSettings, book: Journal | Sheet
) -> tuple[Known | None, Iterator[Row]]:
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


def _rows(given: Iterable[tuple[Where, Given]], settings: PrepareSettings, book: Journal | Sheet) -> Iterator[Row]:
    for where, fields in given:
        if isinstance(fields, Broken):
            _set_aside(fields.error, where, fields.given, settings, book)
            continue
        row = Row(where, fields)
        try:
            yield renamed(row, settings.map) if settings.map else row
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, book)


def _set_aside(error: DataError, where: Where, given: object, settings: PrepareSettings, book: Journal | Sheet) -> None:
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
