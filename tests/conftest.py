"""What several test files stand on: a shell without colours, the shared data, one small trained policy."""

import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fuzz import Watch
    from openai_server import OpenAIServer

# Before anything imports the program: plain output of a fixed width, one thread, no network. Ray, which reads its
# settings when it is imported, listens to this machine alone, without a token, and reports nothing.
os.environ.update(
    _TYPER_FORCE_DISABLE_TERMINAL="1",
    COLUMNS="80",
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_worker_niceness="0",  # at Ray's 15, workers get nothing of a busy machine
)

import pytest
from filelock import FileLock
from helpers import SHARED, Bench, Forks, call, examples, write


@pytest.fixture
def shared() -> Path:
    """The folder of real inputs that stand beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("IRLHF_SHARED_DATA names no folder with the shared data")
    return SHARED


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test where its files are, and forget the modules that it imported from there."""
    monkeypatch.chdir(tmp_path)
    path, before = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(f"{tmp_path}{os.sep}"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def running() -> "Iterator[OpenAIServer]":
    """A host with OpenAI's fine-tuning API, for all tests of a file."""
    from openai_server import hosting

    with hosting() as server:
        yield server


@pytest.fixture
def host(running: "OpenAIServer", monkeypatch: pytest.MonkeyPatch) -> "OpenAIServer":
    """The host without jobs; waits of this process take a thousandth of their time."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds * 0.001))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-55b1f")
    running.begin()
    return running


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> "Watch":
    """`prepare`, with what passes on the way kept (see fuzz.py)."""
    from fuzz import Watch

    return Watch(monkeypatch)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Bench:
    """Scored examples with two rewards and a `tiny` policy trained on them for a few steps, once for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    made = Bench(shared / "bench")
    with FileLock(shared / "bench.lock"):
        if not made.policy.exists():
            make_bench(made)
    return made


def make_bench(made: Bench) -> None:
    """Make the files by the commands; the policy comes last."""
    made.folder.mkdir(exist_ok=True)
    write(made.examples, examples(240))
    made.rewards.write_text("rewards:\n  short: {scorer: length, direction: lower}\n  colour: {column: colour}\n")
    for command in (
        ("score", made.examples, "-r", made.rewards, "-o", made.scored),
        ("finetune", made.scored, "-r", made.rewards, "-o", made.policy, "--epochs", "1", "--context", "128"),
    ):
        outcome = call(*command)
        assert outcome.code == 0, outcome.err


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.process.kill()
    made.process.communicate()


def pytest_collection_finish() -> None:
    """Keep what the test modules have imported out of garbage collections: torch alone is a million objects."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which tests were left out."""
    if config.option.markexpr == "not slow":
        terminalreporter.write_line("The slow tests were left out: make test-slow runs them.")
