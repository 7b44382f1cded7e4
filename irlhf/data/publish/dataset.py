"""Write a data set folder for a hub: typed rows, one file per source, and a data card.

<out>/<source>.jsonl     the examples of one source
<out>/README.md          the data card
<out>.rejected.jsonl     the rejected rows, each with its reason
<out>.run.json           the manifest
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import SPLITS, TRAIN, Example, Where, as_messages
from irlhf.data.formats.base import Rejected
from irlhf.data.formats.helpers import NOTED, notes
from irlhf.data.publish.data_card import MOST_ROWS, SOURCE_ROW, USER_TURNS, Aside, Part, write_data_card
from irlhf.data.publish.sources import SOURCES
from irlhf.data.report import PrepareReport
from irlhf.io.column_types import TEXT, ColumnTypes
from irlhf.io.files import STREAM, whole_file
from irlhf.io.manifest import manifest_path, read_manifest
from irlhf.io.resumable import ResumableWriter, RunManifest, beside, outcome, resumable_folder, resumable_output

Fill = Callable[[ResumableWriter, Path], None]  # writes the examples of a source

_REJECTED = ".rejected.jsonl"
_MOST_REASONS = 20  # in the data card; others are only in the rejected rows
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")  # characters that are unsafe in file names
_SPLIT = re.compile(rf"(?:(?P<subset>.+)[._-])?(?P<split>{'|'.join(SPLITS)})")


def typed(examples: Sequence[Example | Rejected], where: Where, columns: ColumnTypes) -> list[Example | Rejected]:
    """Return the examples of a row with the fields of a data set. Raises DataError if a column type differs."""
    full = [_documented(example, where) if isinstance(example, Example) else example for example in examples]
    typed_examples = (
        replace(example, split=example.split or TRAIN) for example in full if isinstance(example, Example)
    )
    columns.take([example.to_json() for example in typed_examples], where)
    return full


def publish(
    names: Mapping[Path, str], out: Path, manifest: RunManifest, fill: Fill, findings: PrepareReport
) -> dict[str, Any]:
    """Write the folder, with one file per source written by `fill`, and return a summary."""
    if out == STREAM:
        raise ConfigError("a data set is a folder and cannot go to stdout; choose an output with -o")
    files, parts = _files([(path, names[path]) for path in manifest.inputs.values()]), []
    with resumable_folder(out, manifest) as folder:
        if folder is not None:
            for stale in folder.iterdir():
                stale.unlink()
            columns = {_subset(name): ColumnTypes(known={NOTED: [TEXT]}) for name in files.values()}
            for path, name in files.items():
                findings.columns = columns[_subset(name)]
                parts.append(_part(path, folder / name, fill, findings))
            _gather(folder, beside(out, _REJECTED))
            write_data_card(folder, out.name, parts, columns, manifest.settings)
    for name in sorted({part.known.name for part in parts} & SOURCES.keys()):
        console.note(f"README.md describes {name} rows as {SOURCES[name].name}; edit it if they are not")
    counts = sum((part.counts for part in parts), Counter())
    return {**outcome(out, already=not parts), **counts, "files": [str(out / name) for name in files.values()]}


def _files(names: Sequence[tuple[Path, str]]) -> dict[Path, str]:
    """Return the file name of each source in the folder. Raises ConfigError if two are equal."""
    files = [(path, f"{_UNSAFE.sub('-', name).strip('-._') or 'data'}.jsonl") for path, name in names]
    duplicates = [name for name, count in Counter(name for _, name in files).items() if count > 1]
    if duplicates:
        raise ConfigError(f"two sources would be written to {duplicates[0]}; rename one of them")
    return dict(files)


def _documented(example: Example, where: Where) -> Example:
    """Return an example with its prompt as messages, its notes and the fields that a data set adds.

    An example that was prepared before keeps its source row, like its `source`.
    """
    prompt = as_messages(example.prompt)
    extra = {name: value for name, value in example.extra.items() if name not in (USER_TURNS, SOURCE_ROW, NOTED)}
    extra[USER_TURNS] = sum(turn["role"] == "user" for turn in prompt)
    extra[SOURCE_ROW] = example.extra.get(SOURCE_ROW, where.line - 1)
    extra[NOTED] = notes(example.extra)
    return replace(example, prompt=prompt, extra=extra)


def _part(path: Path, file: Path, fill: Fill, findings: PrepareReport) -> Part:
    """Write one file without its manifest; the manifest of the folder covers it."""
    noted, read = findings.counts.copy(), findings.read
    with resumable_output(file, RunManifest("prepare", {"source": path}, {}), resumable=False) as writer:
        fill(writer, path)
    if not writer.counts["written"]:
        raise DataError(f"{path}: none of its rows can be used, and hubs reject empty files; remove this source")
    digest = read_manifest(file).inputs["source"].sha256
    manifest_path(file).unlink()
    return Part(
        file=file.name,
        subset=_subset(file.name),
        split=_split(file.name),
        source=path.name,
        sha256=digest,
        known=findings.formats[str(path)],
        read=findings.read - read,
        counts=writer.counts + (findings.counts - noted),
        aside=_reasons(beside(file, _REJECTED)),
    )


def _reasons(rejected: Path) -> dict[str, Aside]:
    """Return the count and the first rows of each reason for rejection."""
    reasons: dict[str, Aside] = {}
    if not rejected.exists():
        return reasons
    with rejected.open("rb") as lines:
        # Not read_rows, which limits the depth: a rejected row may have the largest depth and is nested in another.
        for row in map(json.loads, lines):
            reason = row["reason"] if row["reason"] in reasons or len(reasons) < _MOST_REASONS else "other reasons"
            before = reasons.get(reason, Aside())
            rows = [*before.rows, int(row["where"].rpartition(":")[2]) - 1]
            reasons[reason] = Aside(before.count + 1, rows[:MOST_ROWS])
    return reasons


def _gather(folder: Path, output: Path) -> None:
    """Move the rejected rows of all files out of the folder, into one file."""
    parts = sorted(folder.glob(f"*{_REJECTED}"))
    if not parts:
        output.unlink(missing_ok=True)
        return
    with whole_file(output) as temporary, temporary.open("wb") as stream:
        for part in parts:
            with part.open("rb") as rows:
                shutil.copyfileobj(rows, stream)
            part.unlink()


def _subset(file: str) -> str:
    """Return the subset of a file: its name without the split at the end."""
    name = file.removesuffix(".jsonl")
    match = _SPLIT.fullmatch(name)
    return (match["subset"] or "default") if match else name


def _split(file: str) -> str:
    match = _SPLIT.fullmatch(file.removesuffix(".jsonl"))
    return match["split"] if match else TRAIN
