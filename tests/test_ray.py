"""--executor ray: the rows of one process, whoever is killed. Real workers on a cluster of two processors."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import IRLHF, Bench, Outcome, begun, call, examples, names, process, read, wait_until, write

pytest.importorskip("ray", reason="--executor ray is an extra")

pytestmark = pytest.mark.slow  # starting a cluster takes a quarter of a minute, and each of its workers a few seconds

WITHOUT_THREADS = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}

CLUSTER = """
import sys, ray
ray.init("local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""
FULL = """
import sys, ray
ray.init(log_to_driver=False)
class Sitter:
    def sit(self): pass
sitter = ray.remote(Sitter).options(num_cpus=2).remote()
ray.get(sitter.sit.remote())
print("full", flush=True)
sys.stdin.read()
"""
MINE = """
import os, signal, time
from pathlib import Path
from irlhf.scoring.scorers.base import Failure

def words(examples):
    return [len(one.completion.split()) for one in examples]

def slow(examples):
    time.sleep(0.1)
    return words(examples)

def fatal_once(examples):
    if any(one.id == "e300" for one in examples) and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return words(examples)

def fatal(examples):
    if any(one.id == "e300" for one in examples) and not Path("mended").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return words(examples)

def silent(examples):
    return [Failure("it says nothing") if one.id in ("e300", "e700") else 1 for one in examples]

def raises(examples):
    return [1 / (one.id != "e300") for one in examples]

def threads(examples):
    import torch
    return [torch.get_num_threads() for one in examples]
"""


@contextmanager
def running(program: str, environment: dict[str, str]) -> Iterator[str]:
    """A program that says one line and stays until it is left."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, text=True, **pipes) as one:  # type: ignore[call-overload]
        yield one.stdout.readline().strip()
        one.stdin.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment of whoever joins a cluster of two processors."""
    with running(CLUSTER, WITHOUT_THREADS) as address:
        yield {**os.environ, "RAY_ADDRESS": address}


@pytest.fixture(scope="module")
def joined(cluster: dict[str, str]) -> Iterator[None]:
    """This process as a member of the cluster, which a command finds and leaves as it is."""
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    ray.init(cluster["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, handler)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _rows() -> None:
    write(Path("in.jsonl"), examples(1000))
    Path("mine").mkdir()
    Path("mine/mine.py").write_text(MINE)


def rewards(function: str) -> Path:
    path = Path("mine/rewards.yaml")
    path.write_text(f"rewards: {{mine: {{scorer: 'mine:{function}'}}, length: {{scorer: length}}}}")
    return path


def command(function: str, output: str, *more: object) -> list[object]:
    return ["score", "in.jsonl", "-r", rewards(function), "-o", output, "-q", *more]


def told(done: subprocess.CompletedProcess[bytes]) -> tuple[int, str]:
    return done.returncode, without_steering(done.stderr.decode())


def said(done: Outcome) -> tuple[int, str]:
    return done.code, without_steering(done.err)


def without_steering(err: str) -> str:
    # That what these scorers count cannot be steered by is true, and beside the point.
    return "".join(line for line in err.splitlines(True) if not line.endswith((" separately\n", " by it\n")))


def test_scores_are_those_of_one_process(joined: None) -> None:
    assert call(*command("words", "one.jsonl")).code == 0
    done = call(*command("words", "two.jsonl", "--executor", "ray", "--workers", "9"))
    assert said(done) == (0, "warning: --workers 9: the Ray cluster has only 2 CPUs; using 2\n")
    assert Path("two.jsonl").read_bytes() == Path("one.jsonl").read_bytes()
    assert Path("two.jsonl.run.json").read_bytes() == Path("one.jsonl.run.json").read_bytes()
    again = call("score", "in.jsonl", "-r", "mine/rewards.yaml", "-o", "two.jsonl")
    assert again.err.startswith("two.jsonl is complete already: nothing to do")


def test_samples_are_those_of_one_process(bench: Bench, joined: None) -> None:
    asked = ["-t", "short=0:1:0.25", "--split", "all", "--limit", "40", "--max-tokens", "12", "--batch", "8", "-q"]
    line = ["sample", os.path.relpath(bench.policy), bench.examples, *asked, "--reference", bench.policy]
    assert call(*line, "-o", "one.jsonl").code == 0
    assert said(call(*line, "-o", "two.jsonl", "--executor", "ray")) == (0, "")
    assert Path("two.jsonl").read_bytes() == Path("one.jsonl").read_bytes()


@pytest.mark.slow
def test_samples_of_a_base_are_those_of_one_process(bench: Bench, cluster: dict[str, str]) -> None:
    base = Path(shutil.copytree(bench.policy, "base"))
    (base / "policy.json").unlink()
    line = ["sample", base, bench.examples, "-n", "2", "--limit", "20", "--max-tokens", "8", "--batch", "8", "-q"]
    assert call(*line, "-o", "one.jsonl").code == 0
    assert told(process(*line, "-o", "two.jsonl", "--executor", "ray", env=cluster)) == (0, "")
    assert Path("two.jsonl").read_bytes() == Path("one.jsonl").read_bytes()


def test_rows_from_stdin_go_to_stdout_and_nothing_else_does(cluster: dict[str, str]) -> None:
    call(*command("fatal_once", "one.jsonl", "--limit", "200"))
    line = ["score", "-", "-r", rewards("fatal_once"), "-o", "-", "-q", "--executor", "ray"]
    done = process(*line, given=Path("in.jsonl").read_bytes(), env=cluster)
    assert told(done) == (0, "")
    assert Path("killed").exists()
    assert done.stdout.startswith(Path("one.jsonl").read_bytes())
    assert done.stdout.count(b"\n") == 1000


def test_a_killed_worker_loses_nothing_and_doubles_nothing(joined: None) -> None:
    assert call(*command("words", "one.jsonl")).code == 0
    line = [*command("fatal_once", "two.jsonl"), "--executor", "ray"]
    assert said(call(*line)) == (0, "")
    assert Path("killed").exists()
    assert Path("two.jsonl").read_bytes() == Path("one.jsonl").read_bytes()


@pytest.mark.slow
def test_rows_that_kill_their_workers_are_named_and_mended_rows_go_on(joined: None) -> None:
    line = [*command("fatal", "two.jsonl"), "--executor", "ray"]
    code, err = said(call(*line))
    assert (code, err.startswith("irlhf: e256 to e511: 3 workers died on these rows"), err.count("\n")) == (3, True, 1)
    assert [row["id"] for row in read(Path("two.jsonl.partial"))] == [f"e{i}" for i in range(256)]
    Path("mended").touch()
    assert said(call(*line)) == (0, "")
    assert [row["id"] for row in read(Path("two.jsonl"))] == [f"e{i}" for i in range(1000)]


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["local", "ray"])
def test_one_engine_goes_on_where_the_other_was_killed(killed: str, cluster: dict[str, str]) -> None:
    call(*command("words", "one.jsonl"))
    line = [*command("slow", "two.jsonl")[:-1], "--executor"]
    first = [*IRLHF, *map(str, line), killed]
    with subprocess.Popen(first, env=cluster, stderr=subprocess.DEVNULL) as child:
        wait_until(lambda: child.poll() is not None or begun(Path("two.jsonl")))
        child.kill()
    assert child.returncode == -signal.SIGKILL
    code, err = told(process(*line, "ray" if killed == "local" else "local", env=cluster))
    assert code == 0, err
    assert "of an earlier run)" in err
    assert Path("two.jsonl").read_bytes() == Path("one.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("function", "more"),
    [
        ("silent", []),
        ("silent", ["--on-bad-row", "skip"]),
        ("raises", []),
        ("missing", []),
    ],
)
def test_what_goes_wrong_is_told_as_one_process_tells_it(function: str, more: list[str], joined: None) -> None:
    here = call(*command(function, "out.jsonl", *more))
    kept = {name: Path(name).read_bytes() for name in names(Path.cwd()) if name.startswith("out.jsonl")}
    for name in kept:
        Path(name).unlink()
    assert said(call(*command(function, "out.jsonl", *more, "--executor", "ray"))) == (
        here.code,
        without_steering(here.err),
    )
    assert kept == {name: Path(name).read_bytes() for name in names(Path.cwd()) if name.startswith("out.jsonl")}


def test_a_bad_row_of_a_stream_waits_for_its_turn(cluster: dict[str, str]) -> None:
    rows = Path("in.jsonl").read_bytes() + b"{}\n"
    line = ["score", "-", "-r", rewards("words"), "-o", "-", "-q"]
    here, there = process(*line, given=rows), process(*line, "--executor", "ray", given=rows, env=cluster)
    assert (told(here)[0], here.stdout.count(b"\n")) == (1, 768)
    assert (told(there), there.stdout) == (told(here), here.stdout)


def test_a_worker_has_the_threads_of_its_share(joined: None) -> None:
    line = command("threads", "out.jsonl", "--executor", "ray", "--workers", "1")
    assert said(call(*line)) == (0, "")
    assert {row["rewards"]["mine"] for row in read(Path("out.jsonl"))} == {2}


@pytest.mark.slow
def test_a_cluster_of_this_machine_is_started_and_goes_with_the_command() -> None:
    line = [*map(str, command("slow", "out.jsonl", "--executor", "ray", "--workers", "1"))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY")}
    environment["HOME"] = str(Path.cwd())  # where Ray keeps the token of such clusters
    with subprocess.Popen([*IRLHF, *line], env=environment, stderr=subprocess.PIPE) as child:
        wait_until(lambda: child.poll() is not None or begun(Path("out.jsonl")))
        child.terminate()
        _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (143, b"irlhf: stopped; the same command resumes\n")
    assert read(Path("out.jsonl.partial"))
    assert not [one for one in Path("/proc").glob("[0-9]*") if stands_here(one)]


def stands_here(one: Path) -> bool:
    try:
        return one.name != str(os.getpid()) and os.readlink(one / "cwd") == str(Path.cwd())
    except OSError:
        return False


@pytest.mark.slow
def test_a_full_cluster_is_not_waited_for_without_end(cluster: dict[str, str]) -> None:
    hurry = "import irlhf.executors.ray as c; c._START_TIMEOUT = 2.0; from irlhf.cli.app import main; main()"
    line = [sys.executable, "-c", hurry, *map(str, command("words", "out.jsonl", "--executor", "ray"))]
    with running(FULL, cluster) as first_line:
        assert first_line == "full"
        code, err = told(subprocess.run(line, env=cluster, capture_output=True, timeout=60, check=False))
    assert (code, err.count("\n")) == (3, 1)
    assert err.startswith(
        "irlhf: no worker started within 2 s: the Ray cluster is full or cannot start one; see `ray status`"
    )


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    nobody = {**os.environ, "RAY_ADDRESS": "127.0.0.1:9"}
    code, err = told(process(*command("words", "out.jsonl", "--executor", "ray"), env=nobody))
    assert (code, err.count("\n")) == (3, 1)
    assert err.startswith("irlhf: no Ray cluster at RAY_ADDRESS=127.0.0.1:9: ")


def test_without_ray_one_line_says_how_to_have_it() -> None:
    program = "import sys; sys.modules['ray'] = None; from irlhf.cli.app import main; main()"
    line = [sys.executable, "-c", program, *map(str, command("words", "out.jsonl", "--executor", "ray"))]
    done = subprocess.run(line, capture_output=True, check=False)
    assert told(done) == (2, "irlhf: --executor ray needs Ray: pip install 'irlhf[ray]'\n")


def test_workers_belong_to_an_engine_that_has_some() -> None:
    outcome = call(*command("words", "out.jsonl", "--workers", "2"))
    assert (outcome.code, outcome.err) == (2, "irlhf: --workers needs --executor ray; remove --workers\n")
    assert call("score", "in.jsonl", "--keep", "best", "--executor", "ray").code == 2
