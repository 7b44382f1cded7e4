"""The six commands as functions of a typed package."""

import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest

import irlhf
from irlhf.registry import COMMANDS, FORMATS, PICTURES, SCORERS, resolve

SIX = ("prepare", "score", "finetune", "sample", "eval", "plot")


def test_the_package_offers_the_six_commands() -> None:
    assert set(irlhf.__all__) == set(SIX) == set(COMMANDS)


@pytest.mark.parametrize("name", SIX)
def test_a_command_is_a_function_with_types(name: str) -> None:
    function: Any = getattr(irlhf, name)
    assert inspect.isfunction(function)
    assert all(
        parameter.annotation is not inspect.Parameter.empty
        for parameter in inspect.signature(function).parameters.values()
    )


def test_a_command_stays_a_function_when_its_folder_is_imported() -> None:
    program = (
        "import irlhf, irlhf.score.rules, irlhf.prepare.hh, irlhf.sample.requests, irlhf.plot.style\n"
        "import irlhf.finetune.rows, irlhf.evaluate\n"
        "from irlhf import score as imported\n"
        "functions = [irlhf.score, irlhf.prepare, irlhf.sample, irlhf.plot, irlhf.finetune, irlhf.eval, imported]\n"
        "print(*[type(one).__name__ for one in functions])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["function"] * 7


def test_a_command_can_be_imported_before_and_after_its_folder() -> None:
    importlib.import_module("irlhf.score.rules")
    assert irlhf.score is irlhf.score
    assert irlhf.score.__module__ == "irlhf.score"


@pytest.mark.parametrize("door", [*COMMANDS.values(), *FORMATS.values(), *PICTURES.values(), *SCORERS.values()])
def test_every_row_of_the_registry_leads_somewhere(door: str) -> None:
    assert resolve(door) is not None
