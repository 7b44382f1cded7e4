"""The JSON files of other commands, read so that their texts are safe to show."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from irlhf.core.console import clean
from irlhf.core.errors import DataError
from irlhf.io.files import read_json

# What Python, matplotlib and the page's template say where a part is missing or of another kind.
_ODD = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, UndefinedError)


@dataclass(frozen=True)
class Shape:
    """What a kind of file holds: its parts, of which the first tells it from other files."""

    name: str
    version: int
    parts: Mapping[str, type]
    writer: str  # the command that writes it
    again: str  # what to do about a file of another shape
    older: tuple[int, ...] = ()  # versions that are read as well

    def holds(self, first: Mapping[str, Any]) -> bool:
        """Return whether a file, by its first object, is of this kind."""
        return next(iter(self.parts)) in first and "version" in first

    def read(self, path: Path, usual: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a file holds, with `usual` where it may lack something. Raises DataError for another shape."""
        content = {**usual, **read_json(path)}
        if content["version"] not in (self.version, *self.older):
            problem = f"version {content['version']!r:.20} of {self.name}, and plot reads version {self.version}"
            raise DataError(f"{path}: {problem}; {self.again}")
        for name, kind in self.parts.items():
            if not isinstance(content.get(name), kind):
                raise self.lacks(path, f"'{name}'")
        safe: dict[str, Any] = _safe(content)
        return safe

    def lacks(self, path: Path, what: str) -> DataError:
        """Return the error that something is not in a file as it should be."""
        return DataError(f"{path}: no {what} as `{self.writer}` writes it; {self.again}")


@contextmanager
def sound(paths: Iterable[str | Path]) -> Iterator[None]:
    """Make one line of what goes wrong with a part of files of ours, each number of which was not looked at before."""
    try:
        yield
    except _ODD as error:
        files, text = ", ".join(map(str, paths)), " ".join(f"{type(error).__name__}: {error}".split())
        reason = f"damaged, or changed by hand ({text:.100})"
        raise DataError(f"{files}: {reason}; run the command that wrote it again") from error


def _safe(value: Any) -> Any:
    """Return JSON whose texts hold no control characters and no half characters."""
    if isinstance(value, str):
        return clean(value).encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_safe(key): _safe(item) for key, item in value.items()}
    return [_safe(item) for item in value] if isinstance(value, list) else value
