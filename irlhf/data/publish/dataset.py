"""A folder that a hub takes as it stands: typed rows, a file for each source, and a data card.

<out>/<source>.jsonl     the examples of one source
<out>/README.md          the data card
<out>.rejected.jsonl     the rows that were set aside, each with its reason
<out>.run.json           what was made of what
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
from irlhf.data.features import TEXT, Columns
from irlhf.data.formats.base import Rejected
from irlhf.data.formats.helpers import NOTED, notes
from irlhf.data.publish.data_card import MOST_ROWS, SOURCE_ROW, USER_TURNS, Aside, Part, write_data_card
from irlhf.data.publish.sources import SOURCES
from irlhf.data.report import PrepareReport
from irlhf.io.files import STREAM, read_json, whole_file
from irlhf.io.resumable import ResumableWriter, RunManifest, beside, resumable_folder, resumable_output

Fill = Callable[[ResumableWriter, Path], None]  # writes the examples of a source

_REJECTED = ".rejected.jsonl"
_MOST_REASONS = 20  # in the card; what else there is stands in the rejected rows
_ODD = re.compile(r"[^A-Za-z0-9._-]+")  # in names, where globs and other systems read them
_SPLIT = re.compile(rf"(?:(?P<subset>.+)[._-])?(?P<split>{'|'.join(SPLITS)})")


def typed(examples: Sequence[Example | Rejected], where: Where, columns: Columns) -> list[Example | Rejected]:
    """Give the examples of a row the fields of a data set. Raises DataError where one does not fit the columns."""
    full = [_documented(example, where) if isinstance(example, Example) else example for example in examples]
    made = (replace(example, split=example.split or TRAIN) for example in full if isinstance(example, Example))
    columns.take([example.to_json() for example in made], where)
    return full


def publish(
    names: Mapping[Path, str], out: Path, manifest: RunManifest, fill: Fill, findings: PrepareReport
) -> dict[str, Any]:
    """Write the folder from what `fill` writes of each source, and return what was done."""
    if out == STREAM:
        raise ConfigError("a data set is a folder, not a stream; name one with -o")
    files, parts = _files([(path, names[path]) for path in manifest.inputs.values()]), []
    with resumable_folder(out, manifest) as folder:
        if folder is not None:
            for stale in folder.iterdir():
                stale.unlink()
            columns = {_subset(name): Columns(known={NOTED: [TEXT]}) for name in files.values()}
            for path, name in files.items():
                findings.columns = columns[_subset(name)]
                parts.append(_part(path, folder / name, fill, findings))
            _gather(folder, beside(out, _REJECTED))
            write_data_card(folder, out.name, parts, columns, manifest.settings)
    for name in sorted({part.known.name for part in parts} & SOURCES.keys()):
        console.note(f"README.md takes {name} rows for {SOURCES[name].name}; mend it if they are not")
    counts = sum((part.counts for part in parts), Counter())
    return {"output": str(out), "finished": not parts, **counts, "files": [str(out / name) for name in files.values()]}


def _files(names: Sequence[tuple[Path, str]]) -> dict[Path, str]:
    """Return the name of each source's file in the folder."""
    files = [(path, f"{_ODD.sub('-', name).strip('-._') or 'data'}.jsonl") for path, name in names]
    twice = [name for name, count in Counter(name for _, name in files).items() if count > 1]
    if twice:
        raise ConfigError(f"two sources would be written to {twice[0]}; call one otherwise")
    return dict(files)


def _documented(example: Example, where: Where) -> Example:
    """Return an example whose prompt is messages, with what was noted of it and the fields that a data set adds.

    Where the row was is kept of one that has been prepared before, as its `source` is.
    """
    prompt = as_messages(example.prompt)
    extra = {name: value for name, value in example.extra.items() if name not in (USER_TURNS, SOURCE_ROW, NOTED)}
    extra[USER_TURNS] = sum(turn["role"] == "user" for turn in prompt)
    extra[SOURCE_ROW] = example.extra.get(SOURCE_ROW, where.line - 1)
    extra[NOTED] = notes(example.extra)
    return replace(example, prompt=prompt, extra=extra)


def _part(path: Path, file: Path, fill: Fill, findings: PrepareReport) -> Part:
    """Write one file, and forget how: that stands beside the folder."""
    noted, read = findings.counts.copy(), findings.read
    with resumable_output(file, RunManifest("prepare", {"source": path}, {}), resumable=False) as book:
        fill(book, path)
    if not book.counts["written"]:
        raise DataError(f"{path}: none of its rows can be used, and no hub reads an empty file; leave it out")
    made = beside(file, ".run.json")
    digest = read_json(made)["inputs"]["source"]["sha256"]
    made.unlink()
    return Part(
        file=file.name,
        subset=_subset(file.name),
        split=_split(file.name),
        source=path.name,
        sha256=digest,
        known=findings.formats[str(path)],
        read=findings.read - read,
        counts=book.counts + (findings.counts - noted),
        aside=_reasons(beside(file, _REJECTED)),
    )


def _reasons(rejected: Path) -> dict[str, Aside]:
    """Return how often rows are set aside for each reason, and the first of them."""
    reasons: dict[str, Aside] = {}
    if not rejected.exists():
        return reasons
    with rejected.open("rb") as lines:
        # Not as rows of others are read: what was set aside may be as deep as one can be, and stands in a row here.
        for row in map(json.loads, lines):
            reason = row["reason"] if row["reason"] in reasons or len(reasons) < _MOST_REASONS else "other reasons"
            before = reasons.get(reason, Aside())
            rows = [*before.rows, int(row["where"].rpartition(":")[2]) - 1]
            reasons[reason] = Aside(before.count + 1, rows[:MOST_ROWS])
    return reasons


def _gather(folder: Path, output: Path) -> None:
    """Move what was set aside out of the folder, into one file."""
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
    """Return what a hub calls the file's subset: its name without the split at its end."""
    name = file.removesuffix(".jsonl")
    match = _SPLIT.fullmatch(name)
    return (match["subset"] or "default") if match else name


def _split(file: str) -> str:
    match = _SPLIT.fullmatch(file.removesuffix(".jsonl"))
    return match["split"] if match else TRAIN
