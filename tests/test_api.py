"""The commands as functions of a typed package."""

import inspect
import subprocess
import sys
from typing import Any

import pytest

import irlhf
from irlhf.core.errors import ConfigError
from irlhf.core.registry import FORMATS, PICTURES, SCORERS, resolve

NAMES = ("prepare", "score", "finetune", "sample", "eval", "plot", "reward_model", "run_rounds")


def test_the_package_offers_the_commands() -> None:
    assert set(irlhf.__all__) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_is_a_function_with_types(name: str) -> None:
    function: Any = getattr(irlhf, name)
    assert inspect.isfunction(function)
    assert all(
        parameter.annotation is not inspect.Parameter.empty
        for parameter in inspect.signature(function).parameters.values()
    )


def test_the_commands_are_functions_whatever_else_is_imported() -> None:
    program = (
        "import irlhf, irlhf.scoring.scorers.rules, irlhf.data.formats.anthropic, irlhf.sampling.target_resolution\n"
        "import irlhf.plotting.style, irlhf.training.training_set, irlhf.evaluation.evaluate\n"
        "from irlhf import score as imported\n"
        "functions = [*(getattr(irlhf, name) for name in irlhf.__all__), imported]\n"
        "print(*[type(function).__name__ for function in functions])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["function"] * (len(NAMES) + 1)


def test_the_package_lists_its_functions_and_refuses_other_names() -> None:
    assert {"eval", "finetune", "plot", "prepare", "sample", "score", "__version__"} <= set(dir(irlhf))
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        _ = irlhf.scores


@pytest.mark.parametrize(
    "name", ["PrepareSettings", "ScoreSettings", "FinetuneSettings", "SampleSettings", "EvalSettings", "PlotSettings"]
)
def test_the_package_offers_the_settings_of_its_functions(name: str) -> None:
    assert inspect.isclass(getattr(irlhf, name))
    assert name in dir(irlhf)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"target": "kindness=0.9"}, r"pass a tuple, as in target=\('kindness=0.9',\)"),
        ({"n": 0}, "n is 0; it must be at least 1"),
        ({"temperature": -1}, "temperature is -1; it must be at least 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        irlhf.SampleSettings(**settings)


@pytest.mark.parametrize("door", [*FORMATS.values(), *PICTURES.values(), *SCORERS.values()])
def test_every_row_of_the_registry_leads_somewhere(door: str) -> None:
    assert resolve(door) is not None
