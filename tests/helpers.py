"""Small tools that test files share: rows in and out, the program called in this process or in its own."""

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("IRLHF_SHARED_DATA") or "/nowhere").resolve()
IRLHF = (sys.executable, "-m", "irlhf")

CANARY = "sk-canary-41c9d"  # the key that hosts are asked with, which nothing may repeat

Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Bench:
    """The files of one finished line, up to the policy."""

    folder: Path

    @property
    def examples(self) -> Path:
        return self.folder / "examples.jsonl"

    @property
    def rewards(self) -> Path:
        return self.folder / "rewards.yaml"

    @property
    def scored(self) -> Path:
        return self.folder / "scored.jsonl"

    @property
    def policy(self) -> Path:
        return self.folder / "policy"


def call(*arguments: object) -> Outcome:
    """Run the program in this process, as a shell would. A traceback fails the test."""
    from typer.testing import CliRunner

    from irlhf.cli.app import app

    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        told = "".join(traceback.format_exception(result.exception))
        raise AssertionError(f"irlhf {' '.join(map(str, arguments))} ended in a traceback:\n{told}")
    return Outcome(result.exit_code, result.stdout, result.stderr)


def process(*arguments: object, given: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the program in a process of its own, to its end."""
    command = [*IRLHF, *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, timeout=120, check=False, **options)


class Forks:
    """Runs of the command line, one after the other, each a process of its own (see fork_server.py)."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("fork_server.py"))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, script], **pipes)
        self.now = 0  # the process that runs

    def __call__(self, *arguments: object, at: int = 0, after: bool = False, patience: float = 0.4) -> Outcome:
        """Run one. `patience` is in seconds for an answer."""
        assert self.process.stdin is not None
        order = {"folder": str(Path.cwd()), "arguments": list(map(str, arguments)), "patience": patience}
        order |= {"crash": {"at": at, "after": after}, "environment": {"OPENAI_API_KEY": CANARY}}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        self.now = self.heard()["pid"]
        code = self.heard()["code"]
        return Outcome(code, Path("out.txt").read_text(), Path("err.txt").read_text())

    def heard(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def send(self, number: int) -> None:
        os.kill(self.now, number)


def slow_after(count: int, cases: Iterable[Any]) -> list[Any]:
    """Return parametrized cases of which all but the first few are slow; a case of several values is a pytest.param."""
    kind = type(pytest.param())
    params = [case if isinstance(case, kind) else pytest.param(case) for case in cases]
    slow = [pytest.param(*case.values, id=case.id, marks=(*case.marks, pytest.mark.slow)) for case in params[count:]]
    return params[:count] + slow


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Return as soon as a condition holds; fail where it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.002)


def begun(output: Path) -> bool:
    """Return whether a run has written rows of an output that is not complete."""
    partial = output.with_name(f"{output.name}.partial")
    try:
        return partial.stat().st_size > 0
    except FileNotFoundError:
        return False


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[Row]:
    """Return the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def names(folder: Path) -> set[str]:
    """Return all that stands in a folder, hidden files too."""
    return {path.name for path in folder.iterdir()}


def write_unversioned_manifest(output: Path, settings: Mapping[str, Any] | None = None, command: str = "") -> None:
    """Replace an output's manifest by one as irlhf 0.1 wrote it, with other settings or another command."""
    path = output.with_name(f"{output.name}.run.json")
    manifest = json.loads(path.read_text())
    manifest.pop("version", None)
    manifest["settings"] |= settings or {}
    manifest["command"] = command or manifest["command"]
    path.write_text(json.dumps(manifest))


def example(number: int = 0, **fields: Any) -> Row:
    """Return one legal example."""
    row = {"id": f"e{number}", "prompt": f"Question {number}?", "completion": f"Answer {number}."}
    return {**row, **fields}


_TOPICS = ("a fern", "the oven", "my bicycle", "an old lamp", "the garden", "a letter")
_VERBS = ("care for", "clean", "mend", "sell", "paint")
_SENTENCE = "first you look at it closely and then take what you need with great care before you begin"


def examples(count: int) -> list[Row]:
    """Return examples on everyday topics, 5 to 18 words long; of ten prompts one is test, one validation."""
    rows = []
    for i in range(count):
        topic, verb = _TOPICS[i % len(_TOPICS)], _VERBS[i % len(_VERBS)]
        words = _SENTENCE.split()[: 5 + (i * 7) % 14]
        rows.append(
            {
                "id": f"e{i}",
                "prompt": f"How do I {verb} {topic} number {i}?",
                "completion": f"To {verb} {topic}, {' '.join(words)}.",
                "group": f"g{i}",
                "split": {0: "test", 1: "validation"}.get(i % 10, "train"),
                "colour": (i * 5) % 11,
            }
        )
    return rows
