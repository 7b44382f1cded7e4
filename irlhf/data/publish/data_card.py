"""Write README.md, the data card of a data set."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from irlhf.core.example import PAIR, SPLITS, TEST, TRAIN, VALIDATION
from irlhf.data.cleaning import BEGUN, JOINED
from irlhf.data.formats.base import Format
from irlhf.data.formats.helpers import CUT, DIFFER, EQUAL, NOTED, TIE
from irlhf.data.publish.features import described, fields_as_yaml
from irlhf.data.publish.sources import SOURCES, SourceInfo
from irlhf.io.column_types import ColumnTypes
from irlhf.io.markdown import code, escaped, fenced, write_page

FILE = "README.md"
USER_TURNS, SOURCE_ROW = "user_turns", "source_row"  # fields of a data set that examples do not have
MOST_ROWS = 20  # rejected rows listed per reason

_TEMPLATE = "data/publish/data-card.md.jinja"
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
_FIELDS = {
    "id": "unique id of the row",
    "prompt": "the conversation so far, as messages; it ends with the turn to answer",
    "completion": "the answer",
    "group": "id of the prompt, equal in all rows that may be compared",
    "label": "`chosen` or `rejected`, if answers were compared",
    "split": f"`{TRAIN}`, `{VALIDATION}` or `{TEST}`, by the words of the prompt, so that equal prompts have equal"
    " splits in all files; a suggestion, independent of the split in a file name",
    "source": "the raw file of the row",
    PAIR: "id of a pair; two rows with the same one were compared with each other",
    USER_TURNS: "number of user messages in `prompt`",
    SOURCE_ROW: "the row number in `source`, counted from 0",
    NOTED: "repairs and other notes; empty for most rows",
}
_NOTES = {
    JOINED: "consecutive turns of one speaker were joined by a blank line",
    BEGUN: "the prompt ended with an answer, which is now the beginning of the completion, joined by a blank line",
    CUT: "turns after the completion were removed",
    DIFFER: "the prompts of a pair differ; each row keeps its own prompt, and the rows are not compared",
    EQUAL: "the completions of a pair are equal",
    TIE: "the completions were compared, and neither was better",
}
_NOTED = f"{NOTED} "  # prefix of the counts of notes
_UNKNOWN = "as in the raw data"


@dataclass(frozen=True)
class Aside:
    """The rows rejected for one reason."""

    count: int = 0
    rows: Sequence[int] = ()  # the first of them, counted from 0 in the source


@dataclass(frozen=True)
class Part:
    """One file of the data set, and its provenance."""

    file: str
    subset: str
    split: str  # from the file name, for the hub; `split` of a row may differ
    source: str
    sha256: str
    known: Format
    read: int  # rows of the source
    counts: Counter[str]
    aside: Mapping[str, Aside]  # by reason


def write_data_card(
    folder: Path, name: str, parts: Sequence[Part], columns: Mapping[str, ColumnTypes], settings: Mapping[str, Any]
) -> None:
    """Write the data card of a folder that will be called `name`. Equal data sets get equal cards."""
    origins = [SOURCES[name] for name in _each(part.known.name for part in parts) if name in SOURCES]
    meanings = {**{key: meaning for name in origins for key, meaning in name.fields.items()}, **_FIELDS}
    notes = _each(key for part in parts for key in part.counts if key.startswith(_NOTED))
    licence = _licence(parts)
    write_page(
        folder / FILE,
        _TEMPLATE,
        front=_front(name, parts, columns, origins, licence),
        title=escaped(name),
        version=version("irlhf"),
        rows=_rows(parts),
        parts=parts,
        code=code,
        e=escaped,
        most=MOST_ROWS,
        becomes={part.known.name: part.known.becomes for part in parts},
        fields=[(code(key), code(kind), meanings.get(key, _UNKNOWN)) for key, kind in _types(columns)],
        notes=[
            (key, escaped(key.removeprefix(_NOTED)), _NOTES.get(key.removeprefix(_NOTED), _UNKNOWN)) for key in notes
        ],
        load=fenced(_load(name, parts[0]), "python"),
        score=_shell("irlhf", "score", f"{name}/{parts[0].file}", "-r", "rewards.yaml"),
        command=_shell("irlhf", "prepare", *(part.source for part in parts), *_flags(settings), "-o", name),
        origins=origins,
        notices=_each(name.notice for name in origins),
        limits=_each(limit for name in origins for limit in name.limits),
        back=[fenced(name, "python") for name in _each(name.back for name in origins)],
        citations=[fenced(name.citation, "bibtex") for name in origins],
        licence=licence,
        terms=[fenced(name) for name in _each(name.terms for name in origins)],
    )


def _front(
    name: str, parts: Sequence[Part], columns: Mapping[str, ColumnTypes], origins: Sequence[SourceInfo], licence: str
) -> str:
    """Return the front matter of the card, which tells the Hub and its loaders the files and column types."""
    from huggingface_hub import DatasetCardData

    rows = _rows(parts)
    size = next((label for most, label in _SIZES.items() if rows < most), "n>10M")
    return DatasetCardData(
        license=licence or None,
        language=_each(source.language for source in origins) or None,
        pretty_name=name,
        size_categories=[size],
        tags=["irlhf", *_each(tag for source in origins for tag in source.tags)],
        configs=[
            {
                "config_name": subset,
                "data_files": [
                    {"split": split, "path": [part.file for part in source]} for split, source in splits.items()
                ],
            }
            for subset, splits in _subsets(parts).items()
        ],
        dataset_info=[
            {
                "config_name": subset,
                "features": fields_as_yaml(columns[subset].types),
                "splits": [{"name": split, "num_examples": _rows(source)} for split, source in splits.items()],
            }
            for subset, splits in _subsets(parts).items()
        ],
    ).to_yaml()


def _types(columns: Mapping[str, ColumnTypes]) -> list[tuple[str, str]]:
    """Return every field with its types, which may differ between subsets."""
    types: dict[str, dict[str, None]] = {}
    for column in columns.values():
        for key, feature in column.types.items():
            types.setdefault(key, {})[described(feature)] = None
    return [(key, " or ".join(kinds)) for key, kinds in types.items()]


def _subsets(parts: Sequence[Part]) -> dict[str, dict[str, list[Part]]]:
    """Return the parts by subset and split."""
    subsets: dict[str, dict[str, list[Part]]] = {}
    for split in SPLITS:
        for part in parts:
            if part.split == split:
                subsets.setdefault(part.subset, {}).setdefault(split, []).append(part)
    return {part.subset: subsets[part.subset] for part in parts}


def _licence(parts: Sequence[Part]) -> str:
    """Return the common licence of all parts, or ""."""
    licences = {SOURCES[part.known.name].licence if part.known.name in SOURCES else "" for part in parts}
    return licences.pop() if len(licences) == 1 else ""


def _load(name: str, part: Part) -> str:
    return (
        "from datasets import load_dataset\n\n"
        f"rows = load_dataset({name!r}, {part.subset!r}, split={part.split!r})  # local folder, or owner/name on a hub"
    )


def _flags(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the command line options of the settings."""
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            for key, flag_value in value.items():
                yield from (flag, f"{key}={flag_value}")
        elif value is not False and value != "":
            yield from (flag,) if value is True else (flag, f"{value}")


def _shell(*words: str) -> str:
    return fenced(shlex.join(words), "sh")


def _rows(parts: Iterable[Part]) -> int:
    return sum(part.counts["written"] for part in parts)


def _each(values: Iterable[str]) -> list[str]:
    """Return the distinct values, in order."""
    return list(dict.fromkeys(values))
