"""Turn raw data of any known shape into one clean record per completion, split by prompt."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, Where, check_new, unique
from irlhf.core.registry import FORMATS
from irlhf.data import parallel
from irlhf.data.cleaning import clean
from irlhf.data.column_mapping import renamed
from irlhf.data.formats.base import Format, Rejected, Row, detect, find_format
from irlhf.data.hub import fetch, is_hub
from irlhf.data.parallel import BlockResult
from irlhf.data.publish.dataset import publish, typed
from irlhf.data.report import PrepareReport
from irlhf.data.settings import PrepareSettings
from irlhf.data.splits import Splits
from irlhf.io.files import STREAM, read_blocks, read_each
from irlhf.io.jsonl import Broken, Given, rows_in
from irlhf.io.resumable import ResumableWriter, RunManifest, resumable_output
from irlhf.io.tables import bare

_SHAPE = re.compile(r"\.(json.*|csv|tsv|txt|parquet)$", re.IGNORECASE)  # what a file's name says of its rows


def prepare(
    sources: Sequence[str | Path], output: str | Path, settings: PrepareSettings = PrepareSettings()
) -> dict[str, Any]:
    """Write one example per completion and return what was done.

    The split of a row hangs on the normalised words of its prompt up to the first turn of the user, so neither equal
    prompts nor the turns of one conversation ever part, in one run or in several. Rows that the format's own rule sets
    aside (an empty completion) are counted and kept with their reason in `<output>.rejected.jsonl`; rows that cannot be
    read stop the run or join them. A source `hub:ORG/NAME` is a data set of the Hub. With `card` the output is a folder
    (irlhf/data/publish/dataset.py). Raises ConfigError, DataError and BackendError.
    """
    _check(sources, settings)
    paths, out = [Path(source) for source in sources], Path(output)
    inputs = _input_files(paths)
    names = dict(inputs)
    manifest = RunManifest("prepare", {f"source {n}": path for n, (path, _) in enumerate(inputs, 1)}, asdict(settings))
    findings, splits = PrepareReport(), Splits(settings.test, settings.validation)
    alone = bool(settings.limit or settings.drop_duplicates or settings.card) or any(map(is_hub, paths))

    def fill(book: ResumableWriter, *paths: Path) -> None:
        for path in paths:
            _prepare(path, names[path], settings, _Books(book, findings, splits), alone)

    if settings.card:
        summary = publish(names, out, manifest, fill, findings)
    else:
        with resumable_output(out, manifest, resumable=False) as book:
            if not book.finished:
                fill(book, *(path for path, _ in inputs))
                book.counts.update(findings.counts)
        summary = book.summary()
    findings.tell()
    splits.tell()
    return {**summary, "formats": {source: known.reason for source, known in findings.formats.items()}}


def work() -> None:
    """Prepare the blocks of rows that another process hands over (irlhf/data/parallel.py)."""
    parallel.worker_main(_begin)


class _Books(NamedTuple):
    """Where the rows of a source go, and what is kept of them."""

    rows: ResumableWriter | BlockResult
    findings: PrepareReport
    splits: Splits

    def write(self, example: Example) -> None:
        split = self.splits.of(example)
        self.rows.write_row(example.to_json(split))
        self.rows.counts[f"split {split}"] += 1


def _begin(order: dict[str, Any]) -> Callable[[int, bytes], BlockResult]:
    path, known, settings = Path(order["path"]), find_format(order["format"]), PrepareSettings(**order["settings"])

    def make(number: int, block: bytes) -> BlockResult:
        result, findings, splits = BlockResult(), PrepareReport(), Splits(settings.test, settings.validation)
        books = _Books(result, findings, splits)
        ids: list[tuple[int, str]] = []
        error = ""
        try:
            rows = _rows(rows_in(block, number, path), settings, books)
            for where, example in _read(known, rows, order["name"], settings, books):
                ids.append((where.line, example.id))
                books.write(example)
        except DataError as stopped:
            error = str(stopped)
        result.summary = {"ids": ids, "found": findings.to_json(), "splits": splits.counts, "error": error}
        return result

    return make


def _prepare(path: Path, name: str, settings: PrepareSettings, books: _Books, alone: bool) -> None:
    """Write the examples of one source, all of them here if `alone`."""
    given = read_each(path, lambda note: books.findings.say(path, note), settings.delimiter)
    known, rows = _recognised(islice(_rows(given, settings, books), settings.limit or None), settings, books)
    if known is None:
        return
    books.findings.formats[str(path)] = known
    many = 0 if alone or known.gather else parallel.worker_count(path)
    first = next(rows, None) if many else None
    here = rows if first is None else iter([first])
    for example in unique(_read(known, here, name, settings, books), books.findings.ids):
        books.write(example)
    if first:
        order = {"path": str(path), "name": name, "format": known.name, "settings": asdict(settings)}
        with closing(parallel.block_results(read_blocks(path, first.where.line + 1), order, many)) as results:
            for result in results:
                _take(result, path, books)


def _take(result: BlockResult, path: Path, books: _Books) -> None:
    """Take over what became of a block of rows elsewhere. Raises DataError, as it did there."""
    assert isinstance(books.rows, ResumableWriter)
    source = str(path)
    for line, identifier in result.summary["ids"]:
        check_new(identifier, Where(source, line), books.findings.ids)
    books.rows.append(result.rows, result.rejects, result.counts)
    books.findings.add(result.summary["found"])
    books.splits.counts.update(result.summary["splits"])
    if result.summary["error"]:
        raise DataError(result.summary["error"])


def _read(
    known: Format, rows: Iterator[Row], name: str, settings: PrepareSettings, books: _Books
) -> Iterator[tuple[Where, Example]]:
    """Yield the examples of rows as their format reads them and the rules of `clean` leave them."""
    findings = books.findings
    for row in known.gather(rows) if known.gather else rows:
        try:
            examples = [_cleaned(example, row) for example in known.read(row, name)]
            if findings.columns is not None:
                examples = typed(examples, row.where, findings.columns)
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, books)
            continue
        for example in examples:
            if isinstance(example, Rejected):
                books.rows.reject(row.where, example.reason, example.row)
            elif settings.drop_duplicates and findings.is_again(example):
                books.rows.reject(row.where, "an earlier row has the same prompt and completion", example.to_json())
                findings.counts["duplicates dropped"] += 1
            else:
                findings.look(row.where, example)
                yield row.where, example


def _recognised(rows: Iterator[Row], settings: PrepareSettings, books: _Books) -> tuple[Format | None, Iterator[Row]]:
    """Return the format of the first row that has a known one, and the rows from there on."""
    if settings.format != "auto":
        return find_format(settings.format), rows
    for row in rows:
        try:
            return detect(row), chain([row], rows)
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, books)
    return None, rows


def _cleaned(example: Example | Rejected, row: Row) -> Example | Rejected:
    return clean(example, row.fields) if isinstance(example, Example) else example


def _input_files(sources: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the files to read, each with what its rows are called after; what is on the Hub is fetched."""
    names = _names([source for source in sources if not is_hub(source)])
    return [named for source in sources for named in (fetch(source) if is_hub(source) else [(source, names[source])])]


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Name each source for its rows' ids: by its file, and by its folder too where two files are called alike."""
    short = {path: "stdin" if path == STREAM else _SHAPE.sub("", bare(path.name)) for path in paths}
    alike = Counter(short.values())
    return {path: name if alike[name] == 1 else f"{path.resolve().parent.name}-{name}" for path, name in short.items()}


def _rows(given: Iterable[tuple[Where, Given]], settings: PrepareSettings, books: _Books) -> Iterator[Row]:
    for where, fields in given:
        books.findings.read += 1
        if isinstance(fields, Broken):
            _set_aside(fields.error, where, fields.given, settings, books)
            continue
        row = Row(where, fields)
        try:
            yield renamed(row, settings.map) if settings.map else row
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, books)


def _set_aside(error: DataError, where: Where, given: object, settings: PrepareSettings, books: _Books) -> None:
    """Keep what cannot be read, with the reason; raise it where that is to stop the run."""
    if settings.on_bad_row == "stop":
        raise error
    books.rows.reject(where, str(error).removeprefix(f"{where}: "), given)


def _check(sources: Sequence[str | Path], settings: PrepareSettings) -> None:
    if not sources:
        raise ConfigError("no source to prepare; name a file, or - for stdin")
    if settings.format != "auto" and settings.format not in FORMATS:
        find_format(settings.format)
    if settings.delimiter and (len(settings.delimiter) > 1 or settings.delimiter in '"\r\n'):
        raise ConfigError(f"--delimiter {settings.delimiter!r}: give one character, such as ';', or tab")
    if min(settings.test, settings.validation) < 0 or settings.test + settings.validation > 1:
        raise ConfigError(f"shares of {settings.test} test and {settings.validation} validation leave no room")
