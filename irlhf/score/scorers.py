"""What a scorer is, and how one is found by the name that rewards.yaml gives it."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from irlhf.errors import BackendError, ConfigError, DataError, IrlhfError
from irlhf.records import Example, finite
from irlhf.registry import SCORERS, did_you_mean, resolve, scorer_names
from irlhf.rewards import Reward

Answer = Mapping[str, float]  # reward name → raw reward


@dataclass(frozen=True)
class Failure:
    """Why an example has no reward. It is counted and reported, never replaced by a number."""

    reason: str
    error: type[IrlhfError] = BackendError  # what stops the run where such rows are not set aside


class Scorer(Protocol):
    """Gives each example its reward, or says why not."""

    def __call__(self, examples: Sequence[Example]) -> Sequence[Answer | Failure]:
        """Return one answer for each example, in their order."""


class Column:
    """Reads a number that the data holds already; `scores.humour` looks inside an object."""

    def __init__(self, name: str, column: str) -> None:
        self.name, self.column = name, column

    def __call__(self, examples: Sequence[Example]) -> list[Answer | Failure]:
        """Return each row's number."""
        return [self._read(example) for example in examples]

    def _read(self, example: Example) -> Answer | Failure:
        value: Any = example.extra
        for part in self.column.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return Failure(f"no column '{self.column}'{did_you_mean(self.column, example.extra)}", DataError)
            value = value[part]
        number = float(value) if isinstance(value, bool) else value  # true and false are 1 and 0
        if not finite(number):
            return Failure(f"column '{self.column}' holds {value!r:.40}, not a number", DataError)
        return {self.name: number}


class Function:
    """Calls a function of yours: examples in, one number each out (or a Failure, or a mapping of numbers)."""

    def __init__(self, name: str, function: Any) -> None:
        self.name, self.function = name, function

    def __call__(self, examples: Sequence[Example]) -> list[Answer | Failure]:
        """Return what the function says of each example."""
        try:
            return [self._answer(one) for one in self.function(examples)]
        except IrlhfError:
            raise
        except Exception as error:  # somebody else's code, which may fail in any way
            raise BackendError(f"{self.name}: the scorer stopped with {_told(error)}") from error

    def _answer(self, given: Any) -> Answer | Failure:
        if isinstance(given, Failure):
            return given
        numbers = given if isinstance(given, Mapping) else {self.name: given}
        return {name: one.item() if hasattr(one, "item") else one for name, one in numbers.items()}  # numpy, torch


class Panel:
    """All scorers of a run, asked together."""

    def __init__(self, wanted: Mapping[str, Reward], beside: Path) -> None:
        self.scorers = [build(name, reward, beside) for name, reward in wanted.items()]

    def __call__(self, examples: Sequence[Example], advance: Callable[[int], None]) -> list[Answer | Failure]:
        """Return what all of them together say of each example."""
        answers: list[Answer | Failure] = [{} for _ in examples]
        for scorer in self.scorers:
            answers = [_merge(*pair) for pair in zip(answers, _call(scorer, examples), strict=True)]
        advance(len(examples))
        return answers


def _call(scorer: Scorer, pool: Sequence[Example]) -> Sequence[Answer | Failure]:
    answers = scorer(pool)
    if len(answers) != len(pool):
        raise BackendError(f"a scorer gave {len(answers)} answers to {len(pool)} examples; one each is due")
    return answers


def _merge(one: Answer | Failure, other: Answer | Failure) -> Answer | Failure:
    if isinstance(one, Failure):
        return one
    if isinstance(other, Failure):
        return other
    for name, number in other.items():
        if not finite(number):
            return Failure(f"reward '{name}' is {number!r:.40}, not a finite number")
    return {**one, **other}


def build(name: str, reward: Reward, beside: Path) -> Scorer:
    """Return the scorer of one reward. Raises ConfigError where nothing answers to its name."""
    if reward.column:
        return Column(name, reward.column)
    kind, _, argument = reward.scorer.partition(":")
    known = scorer_names()
    if kind in known:
        factory = resolve(known[kind])
        scorer: Scorer = factory(name, argument, reward) if kind in SCORERS else _own(name, factory, reward)
        return scorer
    if not argument:
        raise ConfigError(f"{name}: unknown scorer '{reward.scorer}'{did_you_mean(reward.scorer, known)}")
    return _own(name, _import(name, reward.scorer, beside), reward)


def _own(name: str, target: Any, reward: Reward) -> Scorer:
    """Wrap a user's function, or make an object of a user's class."""
    if inspect.isclass(target):
        try:
            return Function(name, target(**reward.options))
        except IrlhfError:
            raise
        except Exception as error:
            raise ConfigError(f"{name}: {reward.scorer} cannot be made of these options: {_told(error)}") from error
    if not callable(target):
        raise ConfigError(f"{name}: {reward.scorer} is neither a function nor a class")
    return Function(name, partial(target, **reward.options) if reward.options else target)


def _import(name: str, door: str, beside: Path) -> Any:
    # A module of yours stands where you are, as with `python -m`, or beside the rewards.yaml that names it.
    for folder in (str(beside.resolve()), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    module, _, attribute = door.partition(":")
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # the module is somebody else's code
        raise ConfigError(f"{name}: scorer '{door}': {_told(error)}{did_you_mean(module, SCORERS)}") from error
    if not hasattr(loaded, attribute):
        raise ConfigError(f"{name}: module {module} has no '{attribute}'")
    return getattr(loaded, attribute)


def _told(error: Exception) -> str:
    """Say in one line what somebody else's code raised, and where."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
