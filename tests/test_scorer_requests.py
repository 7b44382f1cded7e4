"""Every scorer that asks a server, through faults, kills and the end of the server: each row ends and is paid once."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_api import Asked, Reply, Server, error, serving
from fake_judge import KEY, RUBRIC, chat, number_of, place, sure
from helpers import IRLHF, Row, call, example, process, read, slow_after, wait_until, write
from test_server_scorers import moderated, probs

from irlhf.openai_api.concurrency import FIRST

pytestmark = pytest.mark.timeout(120)

ROWS = [example(number) for number in range(60)]
COMMAND = ["score", "in.jsonl", "-r", "rewards.yaml", "-o", "out.jsonl", "-q", "--on-bad-row", "skip"]


@dataclass(frozen=True)
class Kind:
    """A scorer, and what its server says of a row: well, or so that there is no number in it."""

    spec: Row
    good: Callable[[int], Any]
    bad: list[tuple[Any, str]]  # with the reason that must be told
    reward: Callable[[int], float]
    own_address: bool = False


REFUSES = (chat(None, refusal="I will not judge this."), "the model refused: 'I will not judge this.'")
KINDS = {
    "judge": Kind(
        {"scorer": "openai:m", "rubric": "rubric.md"},
        lambda number: chat("7", place("7", {"7": 0.5, "8": 0.5 - number / 200})),
        [
            REFUSES,
            (chat("7"), "the server returned no logprobs"),
            (chat("I cannot", place("I", {"I": 1.0})), "answered 'I cannot', expected one digit from 0 to 9"),
            (
                chat("7", {**place("7", {}), "top_logprobs": [{"token": "7", "logprob": math.nan}]}),
                "returned no logprobs",
            ),
        ],
        lambda number: (7 * 0.5 + 8 * (0.5 - number / 200)) / (1 - number / 200),
    ),
    "votes": Kind(
        {"scorer": "openai:m", "rubric": "rubric.md", "votes": 1},
        lambda number: chat(str(number % 10)),
        [
            REFUSES,
            (chat("NaN"), "answered 'NaN', expected"),
            (chat(None, finish_reason="length"), "finish reason 'length'"),
        ],
        lambda number: number % 10,
    ),
    "binary": Kind(
        {"scorer": "binary:m"},
        lambda number: chat("1", place("1", {"1": 0.75 - number / 200, "0": 0.25 + number / 200})),
        [REFUSES, (chat("1"), "the server returned no logprobs"), (sure(7), "the model was not trained for this")],
        lambda number: 0.75 - number / 200,
    ),
    "vllm": Kind(
        {"scorer": "vllm:m"},
        lambda number: probs(number - 30.5),
        [(probs(math.nan), "reward 'a' is nan, not a finite number"), (probs(None), "data.0.probs.0: input should be")],
        lambda number: number - 30.5,
    ),
    "moderation": Kind(
        {"scorer": "moderation", "direction": "lower"},
        lambda number: moderated(hate=number / 60, violence=None),
        [(moderated(hate=math.nan), "reward 'a' is nan"), (moderated(hate=None), "the server scored no category")],
        lambda number: number / 60,
    ),
    "http": Kind(
        {},
        lambda number: {"reward": number / 7},
        [(math.nan, "reward 'a' is nan"), ("no", "expected a number"), ({"reward": None}, "an object of numbers")],
        lambda number: number / 7,
        own_address=True,
    ),
}


def lay(kind: Kind, server: Server, **more: Any) -> None:
    write(Path("in.jsonl"), ROWS)
    Path("rubric.md").write_text(RUBRIC)
    address = {"scorer": f"{server.root}/score"} if kind.own_address else {"base_url": server.url}
    Path("rewards.yaml").write_text(json.dumps({"rewards": {"a": {**kind.spec, **address, "timeout": 1, **more}}}))


def faults() -> list[Reply]:
    """Return what passes: each stands before a row's answer once."""
    return [
        error(429, retry_after="1"),
        error(500),
        Reply({}, delay=1.5),
        Reply({"reward": 1, "choices": []}, torn=True),
        Reply(b'{"data": [{"pro'),
        Reply(reset=True),
        error(503, retry_after_ms="20"),
    ]


@pytest.mark.parametrize("name", slow_after(2, ["judge", "http", "votes", "binary", "vllm", "moderation"]))
def test_through_all_faults_every_row_ends_once_and_is_answered_once(name: str) -> None:
    kind, times, whole = KINDS[name], Counter[int](), Counter[int]()
    lock = threading.Lock()

    def script(asked: Asked) -> Reply:
        number = number_of(asked)
        with lock:
            times[number] += 1
            first = times[number] == 1
        if first and number % 4 == 1:
            return faults()[number // 4 % len(faults())]
        with lock:
            whole[number] += 1
        return Reply(kind.bad[number // 4 % len(kind.bad)][0] if number % 4 == 2 else kind.good(number))

    with serving(script) as server:
        lay(kind, server)
        done = call(*COMMAND)
    assert (done.code, done.out) == (0, ""), done.err
    scored, rejected = read(Path("out.jsonl")), read(Path("out.jsonl.rejected.jsonl"))
    assert [row["id"] for row in scored] == [f"e{number}" for number in range(60) if number % 4 != 2]
    assert {row["where"] for row in rejected} == {f"e{number}" for number in range(60) if number % 4 == 2}
    assert len(scored) + len(rejected) == 60
    assert set(whole.values()) == {1}
    assert len(whole) == 60
    for row in scored:
        number = int(row["id"][1:])
        assert row["rewards"]["a"] == pytest.approx(kind.reward(number), abs=1e-12)
    for row in rejected:
        assert kind.bad[int(row["where"][1:]) // 4 % len(kind.bad)][1] in row["reason"]


def kept() -> int:
    """Return how many replies the file of replies holds."""
    if not Path("replies.sqlite").exists():
        return 0
    with sqlite3.connect("file:replies.sqlite?mode=ro", uri=True) as base:
        try:
            return int(base.execute("SELECT count(*) FROM replies").fetchone()[0])
        except sqlite3.OperationalError:  # it is being made
            return 0


@pytest.mark.parametrize("name", slow_after(1, ["judge", "http", "votes", "binary", "vllm", "moderation"]))
def test_after_a_kill_nobody_is_asked_again_what_was_answered_before(name: str) -> None:
    kind, before, after, lock = KINDS[name], Counter[int](), Counter[int](), threading.Lock()

    def script(asked: Asked) -> Reply:
        number = number_of(asked)
        again = asked.headers["authorization"] == "Bearer second"  # the dead may still be heard
        with lock:
            if again or len(before) < 25:
                (after if again else before)[number] += 1
                return Reply(kind.good(number))
        return Reply(kind.good(number), delay=60)

    with serving(script) as server:
        lay(kind, server, timeout=60, api_key_env="RUN")
        with subprocess.Popen([*IRLHF, *COMMAND], env={**os.environ, "RUN": "first"}) as child:
            wait_until(lambda: kept() >= 25 or child.poll() is not None)
            os.kill(child.pid, signal.SIGKILL)
        assert (child.returncode, len(before)) == (-signal.SIGKILL, 25)
        done = process(*COMMAND, env={**os.environ, "RUN": "second"})
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in read(Path("out.jsonl"))] == [row["id"] for row in ROWS]
    assert not before.keys() & after.keys()
    assert before + after == Counter(range(60))


FINISHED = """
import sys
sys.argv = ["irlhf", *sys.argv[1:]]
from irlhf.cli.app import main
try:
    main()
finally:
    print("openai" in sys.modules, "torch" in sys.modules)
"""


@pytest.mark.parametrize("name", slow_after(0, ["judge", "vllm"]))
def test_a_finished_run_asks_no_server_and_loads_no_client(name: str) -> None:
    kind = KINDS[name]
    with serving(lambda asked: Reply(kind.good(number_of(asked)))) as server:
        lay(kind, server)
        assert process(*COMMAND).returncode == 0
    first = Path("out.jsonl").read_bytes()
    Path("again.py").write_text(FINISHED)
    for output in ("out.jsonl", "more.jsonl"):  # another output finds all that was said
        command = [sys.executable, "again.py", *[output if one == "out.jsonl" else one for one in COMMAND]]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr, done.stdout.split()) == (0, b"", [b"False", b"False"])
        assert Path(output).read_bytes() == first


@pytest.mark.parametrize("name", KINDS)
def test_a_key_stands_nowhere_not_even_where_a_server_repeats_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVERS_KEY", KEY)
    kind, one_answered = KINDS[name], threading.Event()

    def script(asked: Asked) -> Reply:
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        if number_of(asked) >= FIRST:  # more are sent only after a reply
            one_answered.set()
        if number_of(asked) % 5:  # refusals alone would end the run
            one_answered.wait(0.5)
        told = f"your key is {asked.headers['authorization']}"
        ways = [
            Reply(kind.good(number_of(asked))),
            Reply({"error": {"message": told}}, 400),
            Reply(chat(told, place("7", {"7": 1.0}))),
            Reply(chat(None, refusal=told)),
            Reply({"told": told}),
        ]
        return ways[number_of(asked) % len(ways)]

    with serving(script) as server:
        lay(kind, server, api_key_env="MY_SERVERS_KEY")
        done = call(*COMMAND, "--json")
    assert done.code == 0, done.err
    rejected = read(Path("out.jsonl.rejected.jsonl"))
    assert len(rejected) == 48
    assert any("your key is Bearer …" in row["reason"] for row in rejected)
    written = [path.read_bytes() for path in Path.cwd().iterdir() if path.name != "rewards.yaml"]
    assert not [text for text in [done.out.encode(), done.err.encode(), *written] if KEY.encode() in text]
