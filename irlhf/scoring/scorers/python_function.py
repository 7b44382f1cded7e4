"""A Python function or class as a scorer, from a module beside the rewards.yaml or an installed package."""

import difflib
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
from irlhf.core.registry import SCORERS
from irlhf.scoring.scorers.base import Failure, Reply, Traits


class PythonFunction:
    """Calls a user's function, or an instance of a user's class.

    It gets a list of examples and returns, for each, a number, a mapping of names to numbers, or a Failure. Replies are
    cached only if `revision` identifies the version of the code.
    """

    def __init__(
        self, import_path: str, *, beside: Path, options: Mapping[str, Any] | None = None, revision: str = ""
    ) -> None:
        self.import_path, self.beside, self.options = import_path, beside, options or {}
        identity = f"function {import_path} {sorted(self.options.items())!r} {revision}" if revision else ""
        self.traits = Traits(identity=identity, whole_row=True)

    def __call__(self, examples: Sequence[Example]) -> list[Reply | Failure]:
        """Return the function's reply for each example. Raises BackendError if it fails."""
        try:
            return [_reply(result) for result in self._function(examples)]
        except IrlhfError:
            raise
        except Exception as error:  # user code can raise any exception
            raise BackendError(f"{self.import_path}: the scorer failed with {_error_line(error)}") from error

    @cached_property
    def _function(self) -> Callable[[Sequence[Example]], Iterable[Any]]:
        target = _import(self.import_path, self.beside)
        if not callable(target):
            raise ConfigError(f"{self.import_path} is neither a function nor a class")
        if not inspect.isclass(target):
            return partial(target, **self.options)
        try:
            return target(**self.options)  # type: ignore[return-value]
        except IrlhfError:
            raise
        except Exception as error:
            problem = f"cannot be created with these options: {_error_line(error)}"
            raise ConfigError(f"{self.import_path} {problem}") from error


def _reply(given: Any) -> Reply | Failure:
    if isinstance(given, Failure):
        return given
    numbers = given if isinstance(given, Mapping) else {"": given}
    # Numbers of numpy and torch become Python's.
    return {name: number.item() if hasattr(number, "item") else number for name, number in numbers.items()}


def _import(import_path: str, beside: Path) -> Any:
    # Search the working directory first, as `python -m` does, then the folder of the rewards.yaml.
    for folder in (str(beside.resolve()), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module, _, attribute = import_path.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0] and error.name != module:  # an import inside the module
            raise ConfigError(f"scorer '{import_path}': {_error_line(error)}") from error
        near = difflib.get_close_matches(module, SCORERS, n=1)
        meant = f"; did you mean the scorer '{near[0]}'?" if near else ""
        problem = f"no module '{module}' in this folder or in that of rewards.yaml, and none is installed{meant}"
        raise ConfigError(f"scorer '{import_path}': {problem}") from error
    except Exception as error:  # user code can raise any exception
        raise ConfigError(f"scorer '{import_path}': {_error_line(error)}") from error
    if not hasattr(loaded, attribute):
        raise ConfigError(f"module {module} has no '{attribute}'")
    return getattr(loaded, attribute)


def _error_line(error: Exception) -> str:
    """Return the exception of user code and its location, in one line."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
