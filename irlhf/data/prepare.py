"""Turn raw data of any known shape into one clean record per completion, split by prompt."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example, Where, dumps
from irlhf.core.registry import FORMATS
from irlhf.data import parallel
from irlhf.data.cleaning import clean
from irlhf.data.column_mapping import TEXTS, renamed
from irlhf.data.formats.base import Format, Rejected, Row, detect, find_format
from irlhf.data.hub import fetch, is_hub
from irlhf.data.parallel import BlockResult
from irlhf.data.publish.dataset import publish, typed
from irlhf.data.raw_rows import uniform
from irlhf.data.report import PrepareReport
from irlhf.data.saved import is_saved, saved_files
from irlhf.data.settings import PrepareSettings
from irlhf.data.splits import Splits
from irlhf.io.files import STREAM, read_blocks, read_each
from irlhf.io.jsonl import Broken, Given, rows_in
from irlhf.io.resumable import ResumableWriter, RunManifest, resumable_output
from irlhf.io.tables import bare, repeated

_SHAPE = re.compile(r"\.(json.*|csv|tsv|txt|parquet|arrow|feather)$", re.IGNORECASE)  # file name extensions


def prepare(
    sources: Sequence[str | Path], output: str | Path, settings: PrepareSettings = PrepareSettings()
) -> dict[str, Any]:
    """Write one example per completion and return a summary.

    The split of a row depends on the normalized words of its prompt up to the first user turn, so equal prompts and the
    turns of one conversation get the same split, in all runs. Rows rejected by a rule, such as those with an empty
    completion, are written with the reason to `<output>.rejected.jsonl`. Unreadable rows stop the run or are rejected
    too, see `on_bad_row`. A source `hub:ORG/NAME` is a data set of the Hub. With `card`, the output is a folder
    (irlhf/data/publish/dataset.py). Raises ConfigError, DataError and BackendError.
    """
    _check(sources, settings)
    paths, out = [Path(source).expanduser() for source in sources], Path(output).expanduser()
    inputs = _input_files(paths)
    names = dict(inputs)
    manifest = RunManifest("prepare", {f"source {n}": path for n, (path, _) in enumerate(inputs, 1)}, asdict(settings))
    findings, splits = PrepareReport(), Splits(settings.test, settings.validation)
    alone = bool(settings.limit or settings.drop_duplicates or settings.card) or any(map(is_hub, paths))

    def fill(writer: ResumableWriter, *paths: Path) -> None:
        for path in paths:
            _prepare(path, names[path], settings, _Outputs(writer, findings, splits), alone)

    if settings.card:
        summary = publish(names, out, manifest, fill, findings)
    else:
        with resumable_output(out, manifest, resumable=False) as writer:
            if not writer.finished:
                fill(writer, *(path for path, _ in inputs))
                writer.counts.update(findings.counts)
        summary = writer.summary()
    findings.tell()
    splits.tell()
    return {**summary, "formats": {source: known.reason for source, known in findings.formats.items()}}


def work() -> None:
    """Run as a worker process, see irlhf/data/parallel.py."""
    parallel.worker_main(_block_function)


class _Outputs(NamedTuple):
    """The outputs of a source: rows, counts and splits."""

    rows: ResumableWriter | BlockResult
    findings: PrepareReport
    splits: Splits

    def write(self, example: Example) -> None:
        split = self.splits.of(example)
        self.rows.write_row(example.to_json(split))
        self.rows.counts[f"split {split}"] += 1


def _block_function(order: dict[str, Any]) -> Callable[[int, bytes], BlockResult]:
    path, known, settings = Path(order["path"]), find_format(order["format"]), PrepareSettings(**order["settings"])

    def prepare_block(number: int, block: bytes) -> BlockResult:
        result, findings, splits = BlockResult(), PrepareReport(), Splits(settings.test, settings.validation)
        outputs = _Outputs(result, findings, splits)
        ids: list[tuple[int, str]] = []
        error = ""
        try:
            rows = _rows(rows_in(block, number, path), settings, outputs)
            for where, example in _read(known, rows, order["name"], settings, outputs):
                ids.append((where.line, example.id))
                outputs.write(example)
        except DataError as failure:
            error = str(failure)
        given = [[prompt, split] for prompt, split in splits.given.items()]
        counted = {"splits": splits.counts, "given": given, "leaks": splits.leaks}
        result.summary = {"ids": ids, "found": findings.to_json(), **counted, "error": error}
        return result

    return prepare_block


def _prepare(path: Path, name: str, settings: PrepareSettings, outputs: _Outputs, alone: bool) -> None:
    """Write the examples of one source; with `alone`, without worker processes."""
    texts = [column for name, column in settings.map.items() if name in TEXTS]
    given = read_each(path, lambda note: outputs.findings.say(path, note), settings.delimiter, texts)
    known, rows = _detected(islice(_rows(given, settings, outputs), settings.limit or None), settings, outputs)
    if known is None:
        return
    outputs.findings.formats[str(path)] = known
    workers = 0 if alone or known.gather else parallel.worker_count(path)
    first = next(rows, None) if workers else None
    here = rows if first is None else iter([first])
    for where, example in _read(known, here, name, settings, outputs):
        identifier = outputs.findings.ids(example.id, where)
        outputs.write(example if identifier == example.id else replace(example, id=identifier))
    if first:
        order = {"path": str(path), "name": name, "format": known.name, "settings": asdict(settings)}
        with closing(parallel.block_results(read_blocks(path, first.where.line + 1), order, workers)) as results:
            for result in results:
                _take(result, path, outputs)


def _take(result: BlockResult, path: Path, outputs: _Outputs) -> None:
    """Write the result of a worker's block. Raises DataError if the worker did."""
    assert isinstance(outputs.rows, ResumableWriter)
    source, ids = str(path), result.summary["ids"]
    unique = [outputs.findings.ids(identifier, Where(source, line)) for line, identifier in ids]
    rows = result.rows
    if unique != [identifier for _, identifier in ids]:
        lines = zip(bytes(rows).splitlines(), unique, strict=True)
        rows = b"".join(dumps({**json.loads(line), "id": identifier}) for line, identifier in lines)
    outputs.rows.append(rows, result.rejects, result.counts)
    outputs.findings.add(result.summary["found"])
    outputs.splits.counts.update(result.summary["splits"])
    outputs.splits.leaks.update(result.summary["leaks"])
    for prompt, split in result.summary["given"]:
        outputs.splits.take_given(prompt, split)
    if result.summary["error"]:
        raise DataError(result.summary["error"])


def _read(
    known: Format, rows: Iterator[Row], name: str, settings: PrepareSettings, outputs: _Outputs
) -> Iterator[tuple[Where, Example]]:
    """Yield the cleaned examples of rows; write rejected ones."""
    findings = outputs.findings
    for row in known.gather(rows) if known.gather else rows:
        try:
            examples = [_cleaned(example, row, name) for example in known.read(row, name)]
            if findings.columns is not None:
                examples = typed(examples, row.where, findings.columns)
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, outputs)
            continue
        for example in examples:
            if isinstance(example, Rejected):
                outputs.rows.reject(row.where, example.reason, example.row)
            elif settings.drop_duplicates and findings.is_again(example):
                outputs.rows.reject(row.where, "an earlier row has the same prompt and completion", example.to_json())
                findings.counts["duplicates dropped"] += 1
            else:
                findings.look(row.where, example)
                yield row.where, example


def _detected(rows: Iterator[Row], settings: PrepareSettings, outputs: _Outputs) -> tuple[Format | None, Iterator[Row]]:
    """Return the format of the first row with a known format, and the rows from there on."""
    if settings.format != "auto":
        return find_format(settings.format), rows
    for row in rows:
        try:
            return detect(row), chain([row], rows)
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, outputs)
    return None, rows


def _cleaned(example: Example | Rejected, row: Row, name: str) -> Example | Rejected:
    return clean(example, row.fields, name) if isinstance(example, Example) else example


def _input_files(sources: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the files to read, each with the prefix of its row ids; downloads Hub data sets."""
    names = _names([source for source in sources if not is_hub(source)])
    files: list[tuple[Path, str]] = []
    for source in sources:
        if is_hub(source):
            files += fetch(source)
        else:
            files += saved_files(source, names[source]) if is_saved(source) else [(source, names[source])]
    return files


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the id prefix of each source: its file name, with the folder if two files have the same name."""
    short = {path: "stdin" if path == STREAM else _SHAPE.sub("", bare(path.name)) for path in paths}
    counts = Counter(short.values())
    return {path: name if counts[name] == 1 else f"{path.resolve().parent.name}-{name}" for path, name in short.items()}


def _rows(given: Iterable[tuple[Where, Given]], settings: PrepareSettings, outputs: _Outputs) -> Iterator[Row]:
    for where, fields in given:
        outputs.findings.read += 1
        if isinstance(fields, Broken):
            _set_aside(fields.error, where, fields.given, settings, outputs)
            continue
        row = Row(where, fields)
        try:
            yield uniform(renamed(row, settings.map) if settings.map else row, settings.map)
        except DataError as error:
            _set_aside(error, row.where, row.fields, settings, outputs)


def _set_aside(error: DataError, where: Where, given: object, settings: PrepareSettings, outputs: _Outputs) -> None:
    """Write an unreadable row with the reason, or raise the error if it should stop the run."""
    if settings.on_bad_row == "stop":
        raise error
    outputs.rows.reject(where, str(error).removeprefix(f"{where}: "), given)


def _check(sources: Sequence[str | Path], settings: PrepareSettings) -> None:
    if not sources:
        raise ConfigError("no source to prepare; add a file, or - for stdin")
    if twice := repeated(str(source) if is_hub(Path(source)) else os.path.realpath(source) for source in sources):
        raise ConfigError(f"{twice[0]} is named twice; name each source once")
    if settings.format != "auto" and settings.format not in FORMATS:
        find_format(settings.format)
    if settings.delimiter and (len(settings.delimiter) > 1 or settings.delimiter in '"\r\n'):
        raise ConfigError(f"--delimiter {settings.delimiter!r}: it must be one character, such as ';', or tab")
    if min(settings.test, settings.validation) < 0 or settings.test + settings.validation > 1:
        raise ConfigError(
            f"--test {settings.test} and --validation {settings.validation} must be at least 0 and at most 1 together"
        )
