"""A function or a class of yours, from a module beside the rewards.yaml or from an installed package."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from irlhf.core.errors import BackendError, ConfigError, IrlhfError
from irlhf.core.example import Example
from irlhf.core.registry import SCORERS, did_you_mean
from irlhf.scoring.scorers.base import Failure, Reply, Traits


class PythonFunction:
    """Calls a function of yours, or an object made of a class of yours.

    Examples go in; for each a number comes out, a mapping of names to numbers, or a Failure. Its replies are kept
    only where `revision` names the state of the code, which nobody else can know.
    """

    def __init__(
        self, door: str, *, beside: Path, options: Mapping[str, Any] | None = None, revision: str = ""
    ) -> None:
        self.door, self.beside, self.options = door, beside, options or {}
        kept = f"function {door} {sorted(self.options.items())!r} {revision}" if revision else ""
        self.traits = Traits(identity=kept, whole_row=True)

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Return what the function says of each example."""
        try:
            return [_reply(result) for result in self._function(examples)]
        except IrlhfError:
            raise
        except Exception as error:  # somebody else's code, which may fail in any way
            raise BackendError(f"{self.door}: the scorer stopped with {_error_line(error)}") from error

    @cached_property
    def _function(self) -> Callable[[Sequence[Example]], Iterable[Any]]:
        target = _import(self.door, self.beside)
        if inspect.isclass(target):
            return self._object(target)
        if not callable(target):
            raise ConfigError(f"{self.door} is neither a function nor a class")
        return partial(target, **self.options) if self.options else target

    def _object(self, target: Any) -> Callable[[Sequence[Example]], Iterable[Any]]:
        try:
            return target(**self.options)  # type: ignore[no-any-return]
        except IrlhfError:
            raise
        except Exception as error:
            raise ConfigError(f"{self.door} cannot be made of these options: {_error_line(error)}") from error


def _reply(given: Any) -> Reply | Failure:
    if isinstance(given, Failure):
        return given
    numbers = given if isinstance(given, Mapping) else {"": given}
    return {
        name: number.item() if hasattr(number, "item") else number for name, number in numbers.items()
    }  # numpy, torch


def _import(door: str, beside: Path) -> Any:
    # A module of yours stands where you are, as with `python -m`, or beside the rewards.yaml that names it.
    for folder in (str(beside.resolve()), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module, _, attribute = door.partition(":")
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # the module is somebody else's code
        raise ConfigError(f"scorer '{door}': {_error_line(error)}{did_you_mean(module, SCORERS)}") from error
    if not hasattr(loaded, attribute):
        raise ConfigError(f"module {module} has no '{attribute}'")
    return getattr(loaded, attribute)


def _error_line(error: Exception) -> str:
    """Say in one line what somebody else's code raised, and where."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
