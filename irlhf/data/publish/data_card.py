"""README.md: the data card of a data set, as a hub reads it."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from irlhf.core.example import PAIR, SPLITS, TEST, TRAIN, VALIDATION
from irlhf.data.cleaning import BEGUN, JOINED
from irlhf.data.features import Columns, described, fields_as_yaml
from irlhf.data.formats.base import Format
from irlhf.data.formats.helpers import CUT, DIFFER, EQUAL, NOTED, TIE
from irlhf.data.publish.sources import SOURCES, SourceInfo
from irlhf.io.markdown import code, escaped, fenced, write_page

FILE = "README.md"
USER_TURNS, SOURCE_ROW = "user_turns", "source_row"  # fields that a data set has beside those of an example
MOST_ROWS = 20  # that are named of those set aside for one reason

_TEMPLATE = "data/publish/data-card.md.jinja"
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
_FIELDS = {
    "id": "the row's own name",
    "prompt": "the conversation so far, as messages; it ends with the turn that is answered",
    "completion": "the answer",
    "group": "the prompt's own name, the same in all rows that may be compared",
    "label": "`chosen` or `rejected`, where answers were compared",
    "split": f"`{TRAIN}`, `{VALIDATION}` or `{TEST}`, by the words of the prompt, so that equal prompts never part, not"
    " across files either; a suggestion, and another thing than the split in a file's name",
    "source": "the file that the row came from",
    PAIR: "where rows have the same one, they stand against each other",
    USER_TURNS: "how many messages of `prompt` are the user's",
    SOURCE_ROW: "the row of `source` that it came from, counted from 0",
    NOTED: "what was repaired in the row, and what else there is to know of it; mostly empty",
}
_NOTES = {
    JOINED: "two turns of one speaker in a row are one turn, joined by a blank line",
    BEGUN: "the prompt ended with an answer; it begins the completion, joined by a blank line",
    CUT: "turns behind the completion are left out",
    DIFFER: "the two prompts of a pair are not the same; each row keeps its own, and nothing compares them",
    EQUAL: "the two completions of a pair are the same",
    TIE: "the completions were compared, and none was better",
}
_NOTED = f"{NOTED} "  # how the counts of notes begin
_UNKNOWN = "as in the raw data"


@dataclass(frozen=True)
class Aside:
    """Rows that were set aside for one reason."""

    count: int = 0
    rows: Sequence[int] = ()  # the first of them, 0-based in the source


@dataclass(frozen=True)
class Part:
    """One file of the data set, and how it was made."""

    file: str
    subset: str
    split: str  # of the file by its name, which is a hub's; the rows' own may be another
    source: str
    sha256: str
    known: Format
    read: int  # rows of the source
    counts: Counter[str]
    aside: Mapping[str, Aside]  # by reason


def write_data_card(
    folder: Path, name: str, parts: Sequence[Part], columns: Mapping[str, Columns], settings: Mapping[str, Any]
) -> None:
    """Write the card of the files in a folder, which will have a name. Equal data sets get equal cards."""
    origins = [SOURCES[name] for name in _each(part.known.name for part in parts) if name in SOURCES]
    meanings = {**{key: meaning for name in origins for key, meaning in name.fields.items()}, **_FIELDS}
    notes = _each(key for part in parts for key in part.counts if key.startswith(_NOTED))
    licence = _licence(parts)
    write_page(
        folder / FILE,
        _TEMPLATE,
        front=_yaml(_front(name, parts, columns, origins, licence)),
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
    name: str, parts: Sequence[Part], columns: Mapping[str, Columns], origins: Sequence[SourceInfo], licence: str
) -> dict[str, Any]:
    """Return the head of the card, from which a hub and its loaders know the files and the types."""
    rows = _rows(parts)
    size = next((label for most, label in _SIZES.items() if rows < most), "n>10M")
    return {
        **({"license": licence} if licence else {}),
        **({"language": _each(source.language for source in origins)} if origins else {}),
        "pretty_name": name,
        "size_categories": [size],
        "tags": ["irlhf", *_each(tag for source in origins for tag in source.tags)],
        "configs": [
            {
                "config_name": subset,
                "data_files": [
                    {"split": split, "path": [part.file for part in source]} for split, source in splits.items()
                ],
            }
            for subset, splits in _subsets(parts).items()
        ],
        "dataset_info": [
            {
                "config_name": subset,
                "features": fields_as_yaml(columns[subset].features),
                "splits": [{"name": split, "num_examples": _rows(source)} for split, source in splits.items()],
            }
            for subset, splits in _subsets(parts).items()
        ],
    }


def _types(columns: Mapping[str, Columns]) -> list[tuple[str, str]]:
    """Return every field with its type, which may be another in another subset."""
    types: dict[str, dict[str, None]] = {}
    for column in columns.values():
        for key, feature in column.features.items():
            types.setdefault(key, {})[described(feature)] = None
    return [(key, " or ".join(kinds)) for key, kinds in types.items()]


def _subsets(parts: Sequence[Part]) -> dict[str, dict[str, list[Part]]]:
    """Return the parts of each split of each subset."""
    subsets: dict[str, dict[str, list[Part]]] = {}
    for split in SPLITS:
        for part in parts:
            if part.split == split:
                subsets.setdefault(part.subset, {}).setdefault(split, []).append(part)
    return {part.subset: subsets[part.subset] for part in parts}


def _licence(parts: Sequence[Part]) -> str:
    """Return the licence that all parts are known to have."""
    licences = {SOURCES[part.known.name].licence if part.known.name in SOURCES else "" for part in parts}
    return licences.pop() if len(licences) == 1 else ""


def _load(name: str, part: Part) -> str:
    return (
        "from datasets import load_dataset\n\n"
        f"rows = load_dataset({name!r}, {part.subset!r}, split={part.split!r})  # a folder here, or owner/name of a hub"
    )


def _flags(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options of the command that these settings are."""
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            for key, flag_value in value.items():
                yield from (flag, f"{key}={flag_value}")
        elif value is not False and value != "":
            yield from (flag,) if value is True else (flag, f"{value}")


def _shell(*words: str) -> str:
    return fenced(shlex.join(words), "sh")


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n")


def _rows(parts: Iterable[Part]) -> int:
    return sum(part.counts["written"] for part in parts)


def _each(values: Iterable[str]) -> list[str]:
    """Return every value once, in order."""
    return list(dict.fromkeys(values))
