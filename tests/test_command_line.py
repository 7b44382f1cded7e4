"""The program as a shell meets it: quick to start, quiet in pipes, sparing with what it loads."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import IRLHF, call, example, names, process, read, write

from irlhf.core.console import CONTROL_CHARACTERS

HEAVY = ("torch", "transformers", "openai", "matplotlib", "scipy", "numpy", "ray", "pyarrow", "huggingface_hub")

LOADED = f"""
import sys
from typer.testing import CliRunner
from irlhf.cli.app import app
result = CliRunner().invoke(app, sys.argv[1:])
assert result.exit_code == 0, result.output
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *(
            [name, "--help"]
            for name in ("prepare", "score", "finetune", "sample", "eval", "plot", "reward-model", "rounds", "jobs")
        ),
        ["prepare", "raw.jsonl", "-o", "out.jsonl"],
        ["score", "raw.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl"],
    ],
)
def test_light_work_loads_nothing_heavy(arguments: list[str]) -> None:
    write(Path("raw.jsonl"), [example(i) for i in range(10)])
    Path("rewards.yaml").write_text("rewards: {a: {scorer: length}}")
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True)
    # The statistics of the rewards need numpy.
    assert done.stdout == ("numpy\n" if arguments[-1] == "out.jsonl" and "-r" in arguments else "\n")


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = f"import sys, irlhf; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"[]\n"


def test_rows_walk_through_a_pipe_and_the_reader_may_leave() -> None:
    write(Path("raw.jsonl"), [example(i) for i in range(20_000)])
    Path("rewards.yaml").write_text("rewards: {a: {scorer: length}}")
    irlhf = f"{sys.executable} -m irlhf"
    line = f"{irlhf} prepare raw.jsonl -o - | {irlhf} score - -r rewards.yaml -o - | head -3; echo ${{PIPESTATUS[@]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True)
    *rows, codes = done.stdout.split("\n")[:-1]
    assert [json.loads(row)["rewards"] for row in rows] == [{"a": 2.0}] * 3
    assert codes == "141 141 0"
    assert done.stderr == ""
    assert names(Path.cwd()) == {"raw.jsonl", "rewards.yaml"}


def test_a_long_evaluation_may_be_cut_by_its_reader(tmp_path: Path) -> None:
    program = "from irlhf.io.files import write_json, STREAM\nwrite_json(STREAM, {'a': list(range(100_000))})"
    line = f'{sys.executable} -c "{program}" | head -1'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert "Exception ignored" not in done.stderr


def test_data_goes_to_stdout_and_everything_else_to_stderr() -> None:
    write(Path("raw.jsonl"), [example(i) for i in range(5)])
    done = process("prepare", "raw.jsonl", "-o", "-")
    assert [json.loads(line)["id"] for line in done.stdout.split(b"\n")[:-1]] == [f"e{i}" for i in range(5)]
    assert done.stderr.splitlines()[-1].startswith(b"wrote 5 examples to -")


def test_the_last_line_names_the_next_command() -> None:
    write(Path("raw.jsonl"), [example(i) for i in range(5)])
    assert call("prepare", "raw.jsonl", "-o", "first.jsonl").err.endswith("; next: irlhf score first.jsonl -r FILE\n")
    Path("rewards.yaml").touch()
    outcome = call("prepare", "raw.jsonl", "-o", "out.jsonl")
    assert outcome.err.endswith("\nwrote 5 examples to out.jsonl; next: irlhf score out.jsonl -r rewards.yaml\n")
    assert outcome.err.startswith('raw.jsonl: read as prompt-completion, because of "prompt" and "completion"\n')
    assert outcome.out == ""


def test_quiet_says_nothing() -> None:
    write(Path("raw.jsonl"), [example(i) for i in range(5)])
    outcome = call("prepare", "raw.jsonl", "-o", "out.jsonl", "-q")
    assert (outcome.out, outcome.err) == ("", "")


def test_json_is_one_object_on_stdout() -> None:
    write(Path("raw.jsonl"), [example(i) for i in range(5)])
    outcome = call("prepare", "raw.jsonl", "-o", "out.jsonl", "--json")
    assert json.loads(outcome.out)["written"] == 5


def test_the_same_command_again_has_nothing_to_do() -> None:
    write(Path("raw.jsonl"), [example(i) for i in range(5)])
    call("prepare", "raw.jsonl", "-o", "out.jsonl")
    outcome = call("prepare", "raw.jsonl", "-o", "out.jsonl")
    assert outcome.code == 0
    assert outcome.err.startswith("out.jsonl is complete already: nothing to do")


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}, {"TERM": "dumb"}])
def test_text_of_any_script_survives_any_locale(environment: dict[str, str]) -> None:
    write(Path("raw.jsonl"), [example(0, completion="日本 naïve \u2028 🌿")])
    done = process("prepare", "raw.jsonl", "-o", "-", env={**os.environ, **environment})
    assert done.returncode == 0
    assert json.loads(done.stdout)["completion"] == "日本 naïve \u2028 🌿"


def test_a_file_name_that_is_no_text_is_no_trouble() -> None:
    source = os.fsencode(Path.cwd()) + b"/raw\xff.jsonl"
    write(Path(os.fsdecode(source)), [{"prompt": "p", "completion": "c"}])
    done = subprocess.run([*IRLHF, "prepare", source, "-o", "out.jsonl"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read(Path("out.jsonl"))) == 1


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    outcome = call("prepare", "raw.jsonl", "--outptu", "x")
    assert outcome.code == 2
    assert "--output" in outcome.err


def test_no_arguments_show_the_help() -> None:
    outcome = call()
    assert "Usage" in outcome.out + outcome.err


def test_a_terminal_never_meets_a_control_character_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "hostile.jsonl").write_text('{"prompt": "a\u202eb\u009bc", "completion": "x\\u001b[2J"}\n')
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*IRLHF, "prepare", str(tmp_path / "hostile.jsonl"), "-q", "-o", "-"])
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so when the child has gone
        while chunk := os.read(terminal, 4096):
            shown += chunk
    os.waitpid(child, 0)
    os.close(terminal)
    row = json.loads(shown)
    assert row["prompt"] == "a\u202eb\u009bc"
    assert not CONTROL_CHARACTERS.search(shown.decode().replace("\r\n", "\n"))


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("score a.jsonl --nosuch", "No such option: --nosuch; see `irlhf score --help`"),
        ("score", "Missing argument 'EXAMPLES'; see `irlhf score --help`"),
        ("score a b", "Got unexpected extra argument(s) (b); see `irlhf score --help`"),
        (
            "score a --limit -1",
            "Invalid value for '--limit': Input should be greater than or equal to 0; see `irlhf score",
        ),
        ("scroe", "No such command 'scroe'. Did you mean 'score'?; see `irlhf --help`"),
        ("--nosuch", "No such option: --nosuch; see `irlhf --help`"),
    ],
)
def test_a_wrong_command_line_is_one_line(command: str, problem: str) -> None:
    outcome = call(*command.split())
    assert (outcome.code, outcome.err.count("\n"), outcome.out) == (2, 1, "")
    assert outcome.err.startswith(f"irlhf: {problem}")


@pytest.mark.parametrize("command", [(), ("jobs",)])
def test_a_missing_command_shows_the_help(command: tuple[str, ...]) -> None:
    outcome = call(*command)
    assert outcome.code == 2
    assert "Usage: " in outcome.out + outcome.err


@pytest.mark.parametrize("folder", [".", "..", "/"])
@pytest.mark.parametrize(
    "command",
    [
        "prepare {} -o out.jsonl",
        "score {} -r rewards.yaml -o out.jsonl",
        "score rows.jsonl -r rewards.yaml -o {}",
        "finetune {} -o policy",
        "sample {} rows.jsonl -o out.jsonl",
        "eval {} -o eval.json",
        "plot {}",
        "reward-model {}",
    ],
)
def test_a_folder_in_place_of_a_file_is_one_line(command: str, folder: str) -> None:
    Path("here").mkdir()
    os.chdir("here")
    Path("rewards.yaml").write_text("rewards: {short: {scorer: length}}\n")
    write(Path("rows.jsonl"), [example(0)])
    outcome = call(*command.format(folder).split())
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
    assert names(Path.cwd()) == {"rewards.yaml", "rows.jsonl"}


INTERRUPTED_IMPORT = """
import sys
from irlhf.__main__ import main

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
main()
"""


def test_an_interrupt_before_the_command_line_is_loaded_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "irlhf: stopped; the same command resumes\n")
