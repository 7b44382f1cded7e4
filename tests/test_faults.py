"""Every command, every fault of its files: one line, the right exit code, nothing under the final name."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Bench, Outcome, call, example, examples, names, read, write

from irlhf.policy.policy_file import read_policy

Command = Callable[[str, str], Outcome]  # source, output

COMMANDS = ("prepare", "score", "keep", "finetune", "render", "preview", "rounds", "sample", "eval", "plot")
WRITING = tuple(name for name in COMMANDS if name != "preview")
ROWS = ("score", "keep", "finetune", "render", "preview", "rounds", "eval")  # which read every row to its end
DATA, CONFIG, BACKEND = 1, 2, 3  # exit codes


@pytest.fixture
def command(request: pytest.FixtureRequest, bench: Bench) -> Command:
    """One of the commands, quiet, with all that it needs but its source and its output."""
    scorers = bench.folder / "scorers.yaml"  # of samples, too, which have no column
    scorers.write_text(bench.rewards.read_text().replace("column: colour", "scorer: 'regex: [aeiou]'"))
    arguments = {
        "prepare": ["prepare", "SOURCE"],
        "score": ["score", "SOURCE", "-r", bench.rewards],
        "keep": ["score", "SOURCE", "--keep", "best", "--policy", bench.policy],
        "finetune": ["finetune", "SOURCE", "-r", bench.rewards, "--epochs", "1"],
        "render": ["finetune", "SOURCE", "--render-only"],
        "preview": ["finetune", "SOURCE", "--preview", "1"],
        "rounds": ["rounds", "SOURCE", "-r", scorers, "--model", bench.policy, "--rounds", "1"],
        "sample": ["sample", bench.policy, "SOURCE", "-t", "short=0.5"],
        "eval": ["eval", "SOURCE", "--policy", bench.policy],
        "plot": ["plot", "SOURCE"],
    }[request.param]

    def run(source: str, output: str) -> Outcome:
        given = [source if one == "SOURCE" else one for one in arguments]
        return call(*given, "-q", *(("-o", output) if request.param != "preview" else ()))

    return run


def make_faults() -> None:
    packed = gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in examples(200)))
    Path("empty.jsonl").write_bytes(b"")
    Path("blank.jsonl").write_bytes(b"\n \n\n")
    Path("prose.jsonl").write_text("This is a letter.\nIt has two lines.\n")
    Path("array.jsonl").write_text("[1, 2, 3]\n")
    Path("csv.jsonl").write_text("prompt,completion\na,b\n")
    Path("utf16.jsonl").write_bytes('{"a": 1}\n'.encode("utf-16"))
    Path("cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    Path("broken.jsonl.gz").write_bytes(packed[:40] + b"\xff\x00\xff" + packed[43:])
    Path("other.jsonl").write_text('{"colour": "green"}\n')
    Path("folder").mkdir()


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("missing.jsonl", CONFIG),
        ("missing/rows.jsonl", CONFIG),
        ("folder", CONFIG),
        ("empty.jsonl", DATA),
        ("blank.jsonl", DATA),
        ("prose.jsonl", DATA),
        ("array.jsonl", DATA),
        ("csv.jsonl", DATA),
        ("utf16.jsonl", DATA),
        ("cut.jsonl.gz", DATA),
        ("broken.jsonl.gz", DATA),
        ("other.jsonl", DATA),
    ],
)
def test_a_bad_source_is_one_line_and_leaves_nothing(source: str, code: int, command: Command) -> None:
    make_faults()
    before = names(Path.cwd())
    outcome = command(source, "out")
    assert (outcome.code, outcome.err.count("\n")) == (code, 1), outcome.err
    assert outcome.err.startswith("irlhf: ")
    assert source in outcome.err
    assert outcome.out == ""
    assert names(Path.cwd()) == before


@pytest.mark.parametrize("command", WRITING, indirect=True)
def test_an_output_in_a_missing_folder_is_refused_and_the_folder_not_made(command: Command, bench: Bench) -> None:
    outcome = command(str(bench.scored), "missing/out.jsonl")
    assert (outcome.code, outcome.err.count("\n")) == (CONFIG, 1), outcome.err
    assert "missing: the folder of the output does not exist" in outcome.err
    assert names(Path.cwd()) == set()


@pytest.mark.parametrize("command", WRITING, indirect=True)
@pytest.mark.parametrize("spelling", ["in.jsonl", "./in.jsonl", "link.jsonl", "folder/../in.jsonl"])
def test_an_output_that_is_the_input_is_refused(command: Command, spelling: str, bench: Bench) -> None:
    Path("in.jsonl").write_bytes(bench.scored.read_bytes())
    Path("link.jsonl").symlink_to("in.jsonl")
    Path("folder").mkdir()
    outcome = command("in.jsonl", spelling)
    assert (outcome.code, outcome.err.count("\n")) == (CONFIG, 1), outcome.err
    assert Path("in.jsonl").read_bytes() == bench.scored.read_bytes()
    assert names(Path.cwd()) == {"in.jsonl", "link.jsonl", "folder"}


@pytest.mark.parametrize(
    "command", ["prepare", "score", "keep", "finetune", "render", "rounds", "sample"], indirect=True
)
def test_a_file_of_somebody_else_is_not_overwritten(command: Command, bench: Bench) -> None:
    Path("out.jsonl").write_text("precious")
    outcome = command(str(bench.scored), "out.jsonl")
    assert (outcome.code, outcome.err.count("\n")) == (CONFIG, 1), outcome.err
    assert Path("out.jsonl").read_text() == "precious"


@pytest.mark.parametrize("command", [*ROWS, "sample"], indirect=True)
def test_a_bad_row_is_named_by_file_and_line(command: Command, bench: Bench) -> None:
    rows = [{**row, "policy": read_policy(bench.policy).digest} for row in read(bench.scored)]
    write(Path("in.jsonl"), [*rows[:6], example(completion="c", prompt=7), *rows[6:]])
    outcome = command("in.jsonl", "out.jsonl")
    assert (outcome.code, outcome.err.count("\n")) == (DATA, 1), outcome.err
    assert "in.jsonl:7: 'prompt' is a number" in outcome.err
    assert names(Path.cwd()) == {"in.jsonl"}


@pytest.mark.parametrize("command", ROWS, indirect=True)
def test_a_sample_that_stands_twice_is_refused(command: Command, bench: Bench) -> None:
    row = {**read(bench.scored)[2], "policy": read_policy(bench.policy).digest}
    write(Path("in.jsonl"), [row, row])
    outcome = command("in.jsonl", "out.jsonl")
    assert (outcome.code, outcome.err.count("\n")) == (DATA, 1), outcome.err
    assert "in.jsonl:2: the sample 'e2' occurs twice" in outcome.err


HOSTILE = "\x1b[2J\x1b]0;pwned\x07\x9b31m\u202egnp.exe\r[/red][link=x]"


@pytest.mark.parametrize("command", ["score", "finetune", "render", "preview"], indirect=True)
def test_what_is_quoted_from_data_cannot_command_the_terminal(command: Command) -> None:
    write(Path("in.jsonl"), [example(id=HOSTILE), example(id=HOSTILE)])
    outcome = command("in.jsonl", "out.jsonl")
    assert outcome.code == DATA
    assert [line.split(":")[0] for line in outcome.err.splitlines()] in (["irlhf"], ["warning", "irlhf"])
    told = outcome.err.replace("\n", "")
    assert not [one for one in told if ord(one) < 32 or 127 <= ord(one) < 160 or one == "\u202e"]
    assert "[/red][link=x]" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (
            ["score", "SCORED", "-r", "typo.yaml"],
            CONFIG,
            "typo.yaml: unknown key 'rewards.a.wieght'; did you mean 'weight'?",
        ),
        (["score", "SCORED", "-r", "none.yaml"], CONFIG, "none.yaml: no such file"),
        (["score", "SCORED", "-r", "SCORED"], CONFIG, "scored.jsonl"),
        (["score", "SCORED", "-r", "column.yaml"], DATA, "no column 'colors'"),
        (["score", "SCORED", "-r", "column.yaml", "--gold"], CONFIG, "no `gold:` in this file"),
        (["finetune", "SCORED", "-r", "typo.yaml"], CONFIG, "did you mean 'weight'?"),
        (["finetune", "SCORED", "-r", "column.yaml"], DATA, "no rows to train on"),
        (["finetune", "SCORED", "--template", "reward-edn"], CONFIG, "did you mean 'reward-end'"),
        (["finetune", "SCORED", "--template", "none.yaml"], CONFIG, "none.yaml: cannot be read"),
        (["finetune", "SCORED", "--model", "./none"], CONFIG, "none: no such folder"),
        (["finetune", "SCORED", "--model", "nobody/none"], BACKEND, "nobody/none: no such folder or cached model"),
        (["finetune", "SCORED", "--baseline", "plian"], CONFIG, "did you mean 'plain'"),
        (
            ["finetune", "constant.jsonl", "-r", "a.yaml"],
            DATA,
            "is 1.0 in all 3 training rows",
        ),
        (["finetune", "unscored.jsonl"], DATA, "no rows to train on"),
        (["sample", "POLICY", "SCORED", "-t", "shrot=0.5"], CONFIG, "no reward 'shrot'; did you mean 'short'?"),
        (["sample", "POLICY", "SCORED", "-t", "short=much"], CONFIG, "invalid from column 7"),
        (["sample", "POLICY", "SCORED", "-t", "short"], CONFIG, "write NAME=VALUE"),
        (["sample", "POLICY", "SCORED", "-t", "short=0.5", "-t", "short=0.6"], CONFIG, "has two targets"),
        (["sample", "POLICY", "SCORED", "-t", "short=1.2..", "--max-tokens", "9"], CONFIG, "none of 1"),
        (["sample", "POLICY", "SCORED", "-t", "short=p101"], CONFIG, "from p0 to p100"),
        (["sample", "POLICY", "SCORED", "--split", "tset"], CONFIG, "did you mean 'test'"),
        (["sample", "POLICY", "SCORED", "--top-p", "0"], CONFIG, "--top-p"),
        (["sample", "POLICY", "SCORED", "--max-tokens", "128"], CONFIG, "leaves no room"),
        (["sample", "POLICY", "training.jsonl"], DATA, "no prompt has the split test"),
        (["sample", ".", "SCORED", "-t", "short=0.5"], CONFIG, ".: without a policy.json"),
        (["sample", "none", "SCORED", "-t", "short=0.5"], CONFIG, "none: without a policy.json"),
        (["eval", "SCORED", "--policy", "POLICY"], DATA, "neither a 'policy' nor a label chosen or rejected"),
        (
            ["eval", "foreign.jsonl", "--policy", "POLICY"],
            CONFIG,
            "no folder of the policy abcdef of these samples was found",
        ),
        (["eval", "foreign.jsonl", "--policy", "none"], CONFIG, "no policy.json in this folder"),
        (["plot", "unscored.jsonl"], DATA, "nothing to draw"),
        (["plot", "-"], CONFIG, "plot reads files, not stdin"),
    ],
)
def test_a_slip_in_the_command_is_told_in_one_line(arguments: list[str], code: int, reason: str, bench: Bench) -> None:
    Path("typo.yaml").write_text("rewards: {a: {scorer: length, wieght: 2}}")
    Path("a.yaml").write_text("rewards: {a: {scorer: length}}")
    Path("column.yaml").write_text("rewards: {a: {column: colors}}")
    write(Path("unscored.jsonl"), [example(i) for i in range(3)])
    write(Path("training.jsonl"), [example(i, split="train") for i in range(3)])
    write(Path("constant.jsonl"), [example(i, rewards={"a": 1.0}) for i in range(3)])
    write(Path("foreign.jsonl"), [example(0, policy="abcdef", asked={"short": 0.5}, rewards={"short": 1.0})])
    before = names(Path.cwd())
    places = {"SCORED": str(bench.scored), "POLICY": str(bench.policy)}
    outcome = call(*(places.get(one, one) for one in arguments), "-q", "-o", "out")
    assert (outcome.code, outcome.err.count("\n")) == (code, 1), outcome.err
    assert reason in outcome.err
    assert names(Path.cwd()) == before


@pytest.mark.parametrize("command", WRITING, indirect=True)
def test_a_name_that_is_too_long_is_one_line(command: Command, bench: Bench) -> None:
    outcome = command(str(bench.scored), "x" * 300 + ".jsonl")
    assert outcome.code in (2, 4)
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, indirect=True)
def test_a_source_whose_name_is_too_long_is_one_line(command: Command) -> None:
    outcome = command("x" * 300 + ".jsonl", "out")
    assert outcome.code in (2, 4)
    assert outcome.err.count("\n") == 1
