"""A program of yours as a scorer: what it reads, what it may print, and what becomes of it when it fails."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import IRLHF, Row, call, example, read, wait_until, write

from irlhf.core.errors import BackendError, ConfigError
from irlhf.policy.rewards_file import Reward
from irlhf.scoring.cache import NAME
from irlhf.scoring.lookup import find
from irlhf.scoring.score import score
from irlhf.scoring.settings import ScoreSettings

PYTHON = shlex.quote(sys.executable)
ROWS = [example(0, completion="one"), example(1, completion="one two"), example(2, completion="a\u2028b\nc d")]
WORDS = "len(row['completion'].split())"


def program(body: str) -> str:
    """Write a program that knows its `rows` and counts its starts, and return the line that runs it."""
    Path("mine.py").write_text(
        "import json, os, sys, time\n"
        "with open('starts', 'a') as file: file.write('.')\n"
        "rows = [json.loads(line) for line in sys.stdin]\n"
        f"def say(answer): print(json.dumps(answer))\n{body}\n"
    )
    return f"command: {PYTHON} mine.py"


def each(answer: str) -> str:
    return program(f"for row in rows: say({answer})")


def starts() -> int:
    return len(Path("starts").read_text()) if Path("starts").exists() else 0


def scored(rewards: Any, rows: list[Row] = ROWS, output: str = "out.jsonl", **settings: Any) -> list[Row]:
    write(Path("in.jsonl"), rows)
    Path("rewards.yaml").write_text(json.dumps({"rewards": rewards}))
    score("in.jsonl", "rewards.yaml", output, ScoreSettings(**settings))
    return read(Path(output))


def rewards_of(scorer: str, rows: list[Row] = ROWS, **spec: Any) -> list[float]:
    return [row["rewards"]["a"] for row in scored({"a": {"scorer": scorer, **spec}}, rows)]


@pytest.mark.parametrize(
    "answer",
    [
        WORDS,
        f"{{'reward': {WORDS}}}",
        f"{{'whatever': {WORDS}, 'why': 'so many words', 'sure': True}}",
        f"{{'rewards': {{'words': {WORDS}}}, 'seconds': 0.25}}",
        f"{{**row, 'words': {WORDS}}}",
        f"{{**row, 'rewards': {{'words': {WORDS}}}}}",
        f"{{'error': None, 'reward': {WORDS}}}",
    ],
)
def test_each_form_of_answer_is_read(answer: str) -> None:
    rows = [
        {**row, "tokens": 41, "quality": 3, "error": "odd", "rewards": {"old": 7}, "gold": {"old": 7}} for row in ROWS
    ]
    assert rewards_of(each(answer), rows) == [1, 2, 4]


def test_rows_go_in_as_they_stand_but_for_the_rewards_of_another_time() -> None:
    row = example(0, prompt=[{"role": "user", "content": "ß"}], odd={"a": [None]}, rewards={"b": 1}, gold={"b": 1})
    rewards_of(program("json.dump(rows, open('seen.json', 'w'))\nfor row in rows: say(1)"), [row])
    assert json.loads(Path("seen.json").read_text()) == [{k: row[k] for k in ("id", "prompt", "completion", "odd")}]


def test_several_numbers_are_read_in_one_run_by_their_labels() -> None:
    scorer = each(f"{{'words': {WORDS}, 'parts': {{'x': 1}}, 'half': 0.5}}")
    found = scored({"a": {"scorer": scorer, "label": "words"}, "b": {"scorer": scorer, "label": "half"}})
    assert [row["rewards"] for row in found] == [{"a": n, "b": 0.5} for n in (1, 2, 4)]
    assert starts() == 1


def test_one_of_several_numbers_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"2 numbers \(x, y\); choose one with `label:`"):
        rewards_of(each("{'x': 1, 'y': 2}"))


def test_answers_with_ids_may_come_in_any_order() -> None:
    assert rewards_of(program(f"for row in reversed(rows): say({{'id': row['id'], 'n': {WORDS}}})")) == [1, 2, 4]


def test_the_program_starts_once_a_pool() -> None:
    assert len(rewards_of(each("1"), [example(n) for n in range(300)])) == 300
    assert starts() == 2


def test_nothing_is_run_before_the_first_row_comes() -> None:
    find("a", Reward(scorer=each("1")), Path())
    assert starts() == 0


def test_it_is_the_shell_s_line_and_runs_where_irlhf_runs() -> None:
    assert rewards_of("command: NUMBER=3; while read -r line; do echo $NUMBER; done < /dev/stdin | cat") == [3, 3, 3]


@pytest.mark.parametrize(
    "body",
    [
        "for row in rows: say({'reward': 1, 'why': 'x' * 500_000})",
        "sys.stderr.write('x' * 3_000_000)\nfor row in rows: say(1)",
        "sys.stderr.close()\nfor row in rows: say(1)",
    ],
)
def test_a_program_that_says_much_blocks_nobody(body: str) -> None:
    rows = [example(n, completion="y" * 100_000) for n in range(3)]
    assert rewards_of(program(body), rows) == [1, 1, 1]


def test_a_program_that_answers_row_by_row_blocks_nobody() -> None:
    Path("mine.py").write_text("import sys\nfor line in sys.stdin: print(len(line) > 100, flush=True)\n")
    scorer = f"command: {PYTHON} mine.py | sed 's/True/1/'"
    assert rewards_of(scorer, [example(n, completion="y" * 10_000) for n in range(200)]) == [1] * 200


def test_a_program_that_does_not_read_its_rows_may_still_answer() -> None:
    rows = [example(n, completion="y" * 300_000) for n in range(3)]
    assert rewards_of("command: printf '1\\n2\\n\\n3'", rows) == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("say(1)", "1 answers for 3 rows; the program must print one for each"),
        ("for row in rows * 2: say(1)", "6 answers for 3 rows"),
        ("", "0 answers for 3 rows"),
        ("print('loading the model')\nfor row in rows: say(1)", "'loading the model' on stdout is not JSON"),
        ("print('[' * 100_000)\nsay(1)\nsay(1)", "[[[…' on stdout is not JSON"),
        ("sys.stdout.buffer.write(b'1\\n\\xff\\n1\\n')", "on stdout is not JSON"),
        ("for name in ('e0', 'e0', 'e1'): say({'id': name, 'n': 1})", "answer 2: the id 'e0' occurs twice"),
        ("for name in ('e0', 'e1', 'x'): say({'id': name, 'n': 1})", "answer 3: the id 'x' is not the id of a row"),
        ("say({'id': 'e0', 'n': 1})\nsay(1)\nsay(1)", "answer 2 has no id, but others have"),
        ("print('a\\nno\\x1b[2J\\tkey\\n', file=sys.stderr)\nsys.exit(7)", "ended with exit code 7: no\x1b[2J key"),
        ("sys.exit(7)", "ended with exit code 7, with nothing on stderr"),
        (
            "for row in rows: say(1)\nsys.stdout.flush()\n1 / 0",
            "ended with exit code 1: ZeroDivisionError: division by",
        ),
    ],
)
def test_a_program_that_fails_stops_the_run_in_one_line(body: str, told: str) -> None:
    with pytest.raises(BackendError) as caught:
        rewards_of(program(body))
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"command '{PYTHON} mine.py': ")
    assert "\n" not in str(caught.value)
    assert not Path("out.jsonl").exists()


def test_a_program_that_is_killed_stops_the_run() -> None:
    with pytest.raises(BackendError, match=r"it ended with (signal 9|exit code 137)"):  # as the shell has it
        rewards_of(program("os.kill(os.getpid(), 9)"))


def test_a_command_that_is_not_there_is_named() -> None:
    outcome = _outcome("command: no-such-program --flag")
    assert (outcome.code, outcome.err.count("\n")) == (3, 1)
    assert "exit code 127" in outcome.err
    assert "no-such-program" in outcome.err


@pytest.mark.parametrize("odd", ["echo \0", "echo \ud800", "x" * 900_000])
def test_a_command_that_no_system_takes_is_one_line(odd: str) -> None:
    with pytest.raises(BackendError, match="it cannot be started"):
        rewards_of(f"command: {odd}")


def _outcome(scorer: str) -> Any:
    write(Path("in.jsonl"), ROWS)
    Path("rewards.yaml").write_text(json.dumps({"rewards": {"a": {"scorer": scorer}}}))
    return call("score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "-q")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("None", "no reward: null"),
        ("{'error': 'too\\nlong  a text'}", "too long a text"),
        ("{'error': {'code': 3}}", "{'code': 3}"),
        ("{'error': 'x' * 999}", "x" * 199 + "…"),
        ("float('nan')", "reward 'a' is nan, not a finite number"),
        ("1e999", "reward 'a' is inf, not a finite number"),
        ("10 ** 400", "reward 'a' is 1000"),
        ("True", "reward 'a' is True, not a finite number"),
        ("'0.5'", "reward 'a' is '0.5', not a finite number"),
        ("[0.5]", "reward 'a' is [0.5], not a finite number"),
        ("{}", "no number in the answer that is not in the row (keys: none)"),
        ("{'tokens': 41}", "no number in the answer that is not in the row (keys: tokens)"),
        ("{'reward': None}", "no number in the answer that is not in the row (keys: reward)"),
        ("{'reward': '0.5'}", "no number in the answer that is not in the row (keys: reward)"),
        ("{'tokens': 3}", "no number in the answer that is not in the row (keys: tokens)"),
        ("{'rewards': {'a': None}}", "reward 'a' is None, not a finite number"),
        ("{'rewards': {'a': {'b': 1}}}", "reward 'a' is {'b': 1}, not a finite number"),
    ],
)
def test_a_row_without_a_reward_fails_alone_and_keeps_the_reason(answer: str, reason: str) -> None:
    rows = [{**row, "tokens": 41} for row in ROWS]
    scorer = each(f"{answer} if row['id'] == 'e1' else 1")
    found = scored({"a": {"scorer": scorer}}, rows, on_bad_row="skip")
    (failed,) = read(Path("out.jsonl.rejected.jsonl"))
    assert [row["id"] for row in found] == ["e0", "e2"]
    assert failed["reason"].startswith(reason)


def test_replies_are_kept_where_the_program_s_state_has_a_name() -> None:
    spec = {"a": {"scorer": each(WORDS), "revision": "1"}}
    first = scored(spec)
    assert scored(spec, first, "more.jsonl") == first
    assert starts() == 1
    scored({"a": {**spec["a"], "revision": "2"}}, output="other.jsonl")
    assert starts() == 2


def test_replies_of_a_program_without_a_revision_are_not_kept() -> None:
    spec = {"a": {"scorer": each(WORDS)}}
    scored(spec)
    scored(spec, output="more.jsonl")
    assert starts() == 2
    assert not Path(NAME).exists()


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"scorer": "command"}, "command needs a shell command"),
        ({"scorer": "command: "}, "command needs a shell command"),
        ({"scorer": "command: cat", "rubric": "a.md"}, "this scorer does not accept `rubric:` (it accepts revision)"),
        ({"scorer": "command: cat", "read": "probability"}, "is for scorers that return logits"),
    ],
)
def test_what_a_command_does_not_take_is_refused(spec: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scored({"a": spec})
    assert told in str(caught.value)


LASTING = """
import os, signal, subprocess, sys, time
{ignore}
child = subprocess.Popen([sys.executable, "-c", "import time; {ignored}; time.sleep(300)"])
open("pids", "w").write(f"{{os.getpid()}} {{child.pid}}\\n")
time.sleep(300)
"""
STUBBORN = {
    "ignore": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "ignored": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("manners", [{"ignore": "", "ignored": "1"}, STUBBORN])
def test_an_interruption_ends_the_program_and_its_children(
    number: signal.Signals, code: int, manners: dict[str, str]
) -> None:
    write(Path("in.jsonl"), ROWS)
    Path("mine.py").write_text(LASTING.format(**manners))
    Path("rewards.yaml").write_text(json.dumps({"rewards": {"a": {"scorer": f"command: {PYTHON} mine.py; true"}}}))
    command = [*IRLHF, "score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        pids = Path("pids")
        wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"))
        running.send_signal(number)
        told = running.communicate(timeout=60)[1].decode()
    assert running.returncode == code
    assert "Traceback" not in told
    wait_until(lambda: not any(_lives(int(pid)) for pid in pids.read_text().split()))


def test_the_program_does_not_read_what_is_meant_for_irlhf() -> None:
    Path("rewards.yaml").write_text(json.dumps({"rewards": {"a": {"scorer": each("1")}}}))
    rows = [example(n) for n in range(600)]  # more than one pool, so that stdin still holds some
    given = "".join(json.dumps(row) + "\n" for row in rows)
    command = [*IRLHF, "score", "-", "-r", "rewards.yaml", "-o", "-", "-q"]
    done = subprocess.run(command, input=given.encode(), capture_output=True, timeout=120, check=True)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [row["id"] for row in rows]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended, and that nobody has asked about since, is still there.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path("/proc/self").exists() else True
