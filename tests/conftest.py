"""What several test files stand on: a shell without colours, the shared data, one small trained policy."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz import Watch

# Before anything imports the program: plain output of a fixed width, one thread, no network.
os.environ.update(
    _TYPER_FORCE_DISABLE_TERMINAL="1",
    COLUMNS="80",
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)

import pytest
from toolbox import SHARED, Bench, Forks, call, examples, write


@pytest.fixture
def shared() -> Path:
    """The folder of real inputs that stand beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("IRLHF_SHARED_DATA names no folder with the shared data")
    return SHARED


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test where its files are, so that a stray output lands beside them."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> "Watch":
    """`prepare`, with what passes on the way kept (see fuzz.py)."""
    from fuzz import Watch

    return Watch(monkeypatch)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Scored examples with two rewards and a `tiny` policy trained on them for a few steps, by the commands."""
    made = Bench(tmp_path_factory.mktemp("bench"))
    write(made.examples, examples(240))
    made.rewards.write_text("rewards:\n  short: {scorer: length, direction: lower}\n  colour: {column: colour}\n")
    for command in (
        ("score", made.examples, "-r", made.rewards, "-o", made.scored),
        ("finetune", made.scored, "-r", made.rewards, "-o", made.policy, "--epochs", "1", "--context", "128"),
    ):
        outcome = call(*command)
        assert outcome.code == 0, outcome.err
    return made


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.process.kill()
    made.process.communicate()
