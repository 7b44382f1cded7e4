"""studies/run.py: commands over a grid, gone on with after a kill, kept as one row a cell."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT, Row, begun, example, names, read, wait_until, write

from irlhf.quickstart.quickstart import steps
from irlhf.quickstart.settings import QuickstartSettings

RUN = (sys.executable, str(ROOT / "studies" / "run.py"))
ROWS = 300  # more than a scorer is asked at once, so that some are written while it waits
# Behind its first batch the scorer waits for as long as a file called `hold` stands beside it.
PATIENT = """
import time
from pathlib import Path
hold, batches = Path(__file__).with_name("hold"), []
def words(examples):
    batches.append(examples)
    while len(batches) > 1 and hold.exists():
        time.sleep(0.01)
    return [len(one.completion.split()) for one in examples]
"""
STUDY = """
grid: {limit: [2, 3]}
commands:
  - irlhf prepare {here}/raw.jsonl --limit {limit} -o examples.jsonl
  - each: {name: [one, two]}
    run: irlhf score examples.jsonl -r {here}/rewards.yaml -o {name}.jsonl
results: {card: one.jsonl.run.json}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of two small cells; the file can be written anew."""
    folder = tmp_path / "studies"
    folder.mkdir()
    write(folder / "raw.jsonl", [example(i) for i in range(ROWS)])
    (folder / "rewards.yaml").write_text("rewards: {a: {scorer: 'patient:words'}}")
    (folder / "patient.py").write_text(PATIENT)
    (folder / "small.yaml").write_text(STUDY)
    return folder / "small.yaml"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*RUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def results() -> list[Row]:
    return read(Path("out/results.jsonl"))


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_combination_is_a_cell_and_every_cell_a_row(study: Path) -> None:
    done = run(study, "-o", "out")
    assert done.returncode == 0, done.stderr
    assert names(Path("out")) == {"limit=2", "limit=3", "results.jsonl"}
    assert [row["cell"] for row in results()] == [{"limit": 2}, {"limit": 3}]
    for row in results():
        assert set(row) == {"study", "cell", "commit", "versions", "seconds", "results"}
        assert row["study"] == "small"
        assert set(row["commit"]) == {"rev", "dirty"}
        assert {"irlhf", "python", "torch", "transformers"} == set(row["versions"])
        assert len(row["seconds"]) == 3
        assert all(seconds > 0 for seconds in row["seconds"].values())
        assert row["results"]["card"]["counts"]["written"] == row["cell"]["limit"]
        assert str(Path.cwd()) not in json.dumps(row["seconds"])


@pytest.mark.slow
def test_a_complete_study_runs_nothing_again(study: Path) -> None:
    run(study, "-o", "out")
    before = times(Path("out"))
    again = run(study, "-o", "out", "--jobs", 2)
    assert again.returncode == 0
    assert times(Path("out")) == before


def test_cells_run_side_by_side(study: Path) -> None:
    study.write_text("grid: {n: [0, 1]}\ncommands: ['sh {here}/meet.sh {n}']\nresults: {seen: seen.json}\n")
    meet = (
        'echo > ../met-$1; while ! [ -e ../met-$((1 - $1)) ]; do sleep 0.01; done; echo "{\\"t\\": $OMP_NUM_THREADS}"'
    )
    (study.parent / "meet.sh").write_text(f"{meet} > seen.json\n")
    assert run(study, "-o", "out", "--jobs", 2).returncode == 0
    assert [row["results"]["seen"] for row in results()] == [{"t": 1}, {"t": 1}]


@pytest.mark.slow
def test_only_the_named_cells_run(study: Path) -> None:
    assert run(study, "-o", "out", "--only", "limit=3").returncode == 0
    assert [row["cell"] for row in results()] == [{"limit": 3}]
    assert not Path("out/limit=2").exists()
    assert run(study, "-o", "out").returncode == 0
    assert [row["cell"] for row in results()] == [{"limit": 3}, {"limit": 2}]


@pytest.mark.slow
def test_a_dry_run_shows_the_commands_and_writes_nothing(study: Path) -> None:
    shown = run(study, "-o", "out", "--dry-run")
    assert shown.returncode == 0
    assert not Path("out").exists()
    lines = shown.stdout.splitlines()
    assert lines[0] == "# limit=2: 3 commands, 0 done"
    assert lines[1] == "irlhf prepare '{here}/raw.jsonl' --limit 2 -o examples.jsonl"
    assert len(lines) == 8
    run(study, "-o", "out", "--only", "limit=2")
    shown = run(study, "-o", "out", "--dry-run")
    assert [line.startswith("#") for line in shown.stdout.splitlines()] == [True] * 5 + [False] * 3


@pytest.mark.slow
def test_a_failing_command_stops_its_cell_alone_and_says_why(study: Path) -> None:
    study.write_text(STUDY.replace("-o {name}.jsonl", "-o {name}.jsonl --limit {limit}"))
    Path("out/limit=2").mkdir(parents=True)
    Path("out/limit=2/two.jsonl").write_text("mine\n")
    done = run(study, "-o", "out")
    assert done.returncode == 1
    assert "two.jsonl exists but was not written by irlhf" in done.stderr
    assert "1 of 2 cells are complete" in done.stderr
    assert [row["cell"] for row in results()] == [{"limit": 3}]
    log = Path("out/limit=2/study.log").read_text()
    assert "$ irlhf score examples.jsonl -r '{here}/rewards.yaml' -o two.jsonl --limit 2\n" in log
    assert "two.jsonl exists but was not written by irlhf" in log
    assert log.endswith("# exit code 2\n")
    Path("out/limit=2/two.jsonl").unlink()
    first = Path("out/limit=2/one.jsonl").stat().st_mtime_ns
    assert run(study, "-o", "out").returncode == 0
    assert Path("out/limit=2/one.jsonl").stat().st_mtime_ns == first
    assert list(results()[1]["seconds"].values())[2] == "not available"


def test_what_cannot_be_run_or_is_not_there_fails_its_cell(study: Path) -> None:
    study.write_text("grid: {n: ['nowhere', 'true']}\ncommands: ['{n} it']\nresults: {a: a.json}\n")
    done = run(study, "-o", "out")
    assert done.returncode == 1
    assert "n=nowhere: 'nowhere it' cannot be run (No such file or directory)" in done.stderr
    assert "n=true: out/n=true/a.json: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_changed_command_is_run_again_with_all_behind_it(study: Path) -> None:
    study.write_text(STUDY.replace("limit: [2, 3]", "limit: [2]"))
    run(study, "-o", "out")
    before = times(Path("out"))
    changed = STUDY.replace("limit: [2, 3]", "limit: [2]").replace("[one, two]", "[one, other]")
    study.write_text(changed + "\n")
    assert run(study, "-o", "out").returncode == 0
    after = times(Path("out"))
    rows = ("examples.jsonl", "one.jsonl", "two.jsonl")
    assert {name for name in before if before[name] == after[name]} == {
        f"out/limit=2/{name}" for name in (*rows, *(f"{row}.run.json" for row in rows), "study.lock")
    }
    (row,) = results()
    assert [command.split()[-1] for command in row["seconds"]] == ["examples.jsonl", "one.jsonl", "other.jsonl"]


@pytest.mark.slow  # whole processes
def test_another_choice_of_results_needs_no_new_run(study: Path) -> None:
    run(study, "-o", "out", "--only", "limit=2")
    log = Path("out/limit=2/study.log").read_text()
    study.write_text(STUDY.replace("card: one", "other: two"))
    run(study, "-o", "out", "--only", "limit=2")
    assert [set(row["results"]) for row in results()] == [{"other"}]
    assert Path("out/limit=2/study.log").read_text() == log


def test_an_evaluation_loses_its_single_points_alone(study: Path) -> None:
    front = {"arms": [{"points": [{"chosen": True}]}]}
    policies = {"p": {"rewards": {"a": {"n": 1, "points": [[0.1, 0.2]]}}}}
    evaluation = {"version": 3, "policies": policies, "tradeoff": [], "fronts": front}
    (study.parent / "eval.json").write_text(json.dumps(evaluation))
    study.write_text("commands: ['cp {here}/eval.json .']\nresults: {all: eval.json}\n")
    assert run(study, "-o", "out").returncode == 0
    (row,) = results()
    assert row["results"]["all"] == {**evaluation, "policies": {"p": {"rewards": {"a": {"n": 1}}}}}


def begin(study: Path) -> "subprocess.Popen[bytes]":
    """Start a study, and come back when its slow command has written rows but not all, and waits."""
    (study.parent / "hold").touch()
    study.write_text(STUDY.replace("[2, 3]", f"[{ROWS}]").replace("-o {name}", "-q -o {name}"))
    child = subprocess.Popen([*RUN, study, "-o", "out"], stderr=subprocess.DEVNULL)
    wait_until(lambda: child.poll() is not None or begun(Path(f"out/limit={ROWS}/one.jsonl")))
    return child


def is_held(path: Path) -> bool:
    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def assert_it_goes_on(study: Path) -> dict[str, Any]:
    (study.parent / "hold").unlink()
    done = run(study, "-o", "out")
    assert done.returncode == 0, done.stderr
    (row,) = results()
    assert [one["id"] for one in read(Path(f"out/limit={ROWS}/one.jsonl"))] == [f"e{i}" for i in range(ROWS)]
    assert [seconds == "not available" for seconds in row["seconds"].values()] == [False, True, False]
    return row


@pytest.mark.slow  # whole processes
def test_killed_in_the_middle_it_goes_on(study: Path) -> None:
    child = begin(study)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert is_held(Path(f"out/limit={ROWS}/study.lock")), "the command that is left behind holds its cell"
    assert_it_goes_on(study)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_ends_its_commands_and_goes_on_later(number: int, code: int, study: Path) -> None:
    child = begin(study)
    child.send_signal(number)
    assert child.wait(timeout=30) == code
    assert not is_held(Path(f"out/limit={ROWS}/study.lock"))
    assert Path(f"out/limit={ROWS}/one.jsonl.partial").exists()
    assert "stopped; the same command resumes" in Path(f"out/limit={ROWS}/study.log").read_text()
    assert_it_goes_on(study)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("results:", "resluts:", "unknown key 'resluts'; did you mean 'results'?"),
        ("each:", "eech:", "unknown key 'commands.1.eech'; did you mean 'each'?"),
        ("--limit {limit}", "--limit {limt}", "unknown {limt}; did you mean 'limit'?"),
        ("{name}.jsonl", "two.jsonl", "stands twice in a cell"),
        ("[2, 3]", "[2, 2]", "or would name two"),
        ("name: [one", "limit: [one", "'limit' already means something"),
        ("grid: {limit", "grid: {here", "'here' already means something"),
        ("[2, 3]", "[]", "grid.limit: List should have at least 1 item"),
        ("-o examples.jsonl", "-o a.jsonl && ls", "no shell reads '&&' here"),
        ("-o examples.jsonl", "-o 'a", "No closing quotation"),
        ("-o examples.jsonl", "-o {a", "a brace itself is written twice"),
    ],
)
def test_a_study_that_cannot_run_is_refused_before_anything_does(old: str, new: str, said: str, study: Path) -> None:
    study.write_text(STUDY.replace(old, new))
    done = run(study, "-o", "out")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [("limti=2", "did you mean 'limit'?"), ("limit=4", "not a value of limit (there are: 2, 3)")],
)
def test_only_what_the_grid_has_can_be_named(given: str, said: str, study: Path) -> None:
    done = run(study, "-o", "out", "--only", given)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_study_of_the_quickstart_can_be_spelled_out() -> None:
    shown = run(ROOT / "studies" / "quickstart.yaml", "-o", "out", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("#")] == ["# seed=0", "# seed=1", "# seed=2"]
    commands = [line.split() for line in lines if not line.startswith("#")][: len(lines) // 3 - 1]
    there = {"rewards.yaml", "template.yaml"}
    there |= {step.arguments[step.arguments.index("-o") + 1] for step in steps(QuickstartSettings())}
    for command in commands[1:]:
        needed = {word for word in command[2:] if word.endswith((".jsonl", ".yaml"))} - {command[-1]}
        assert needed | ({command[2]} if command[1] == "sample" else set()) <= there, command
        there.add(command[-1])
    assert {"eval.json", "eval-validation.json", "eval-test.json", "eval-best.json"} <= there
