"""Data sets that the `datasets` library saved with `save_to_disk`: folders of Arrow files."""

from pathlib import Path

from irlhf.core.errors import DataError
from irlhf.io.files import SAVED, read_json


def is_saved(source: Path) -> bool:
    """Return whether a source is the folder of a saved data set, or of several splits."""
    return any((source / name).is_file() for name in SAVED)


def saved_files(folder: Path, name: str) -> list[tuple[Path, str]]:
    """Return the Arrow files of a saved data set in order, each with the prefix of its row ids. Raises DataError."""
    splits, state = (folder / file for file in SAVED)
    try:
        if splits.is_file():
            parts = [str(split) for split in read_json(splits)["splits"]]
            return [file for split in parts for file in saved_files(folder / split, f"{name}-{split}")]
        files = [folder / str(entry["filename"]) for entry in read_json(state)["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}: not a data set saved by save_to_disk; save it again, or as parquet") from error
    if not files:
        raise DataError(f"{folder}: the data set has no rows")
    return [(file, name if len(files) == 1 else f"{name}-{number}") for number, file in enumerate(files)]
