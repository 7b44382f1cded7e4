"""Rounds at a host: one job a round, each on from the one before, whatever is killed; and no more than was allowed."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any, SupportsIndex

import pytest
from helpers import CANARY, Forks, Outcome, examples, names, read, slow_after, write
from openai_server import BASE, Fault, OpenAIServer

from irlhf.policy.policy_file import read_policy

pytestmark = pytest.mark.timeout(120)

DATA, CONFIG, KILLED = 1, 2, -signal.SIGKILL
REWARDS = """
rewards:
  short: {scorer: length, direction: lower, weight: 2}
  varied: {scorer: "regex: [aeiou]"}
gold:
  short: {scorer: length, direction: lower}
"""
LINE = ("--rounds", 2, "--prompts", 8, "--samples", 4, "--eval-prompts", 4, "--max-tokens", 8)


@pytest.fixture
def host(running: OpenAIServer, forks: Forks) -> OpenAIServer:
    """A host that has trained one policy, `hosted`; scored rows lie beside it."""
    running.begin()
    Path("rewards.yaml").write_text(REWARDS)
    write(Path("examples.jsonl"), examples(60))
    there = ("--model", f"openai:{BASE}", "--base-url", running.url, "--yes")
    for line in (
        ("score", "examples.jsonl", "-r", "rewards.yaml", "-o", "scored.jsonl"),
        ("finetune", "scored.jsonl", "-r", "rewards.yaml", *there, "-o", "hosted"),
    ):
        done = forks(*line)
        assert done.code == 0, done.err
    running.state.seen.clear()
    return running


def rounds(forks: Forks, *more: object, yes: bool = True, **crash: Any) -> Outcome:
    agreed = ("--yes",) if yes else ()
    line = ("rounds", "scored.jsonl", "-r", "rewards.yaml", "--model", "hosted", *LINE, *agreed, "-o", "out")
    return forks(*line, *more, **crash)


def assert_one_line(done: Outcome, code: int, said: str) -> None:
    told = [one for one in done.err.splitlines() if not one.startswith("warning")]
    assert (done.code, len(told)) == (code, 1), done.err
    assert said in told[0]
    assert CANARY not in done.err


def assert_one_job_a_round(host: OpenAIServer) -> None:
    """Three jobs, that of the first policy with them, each on from the model of the one before, each paid for once."""
    jobs = [one["job"] for one in host.jobs]
    assert [job["status"] for job in jobs] == ["succeeded"] * 3
    assert [job["model"] for job in jobs] == [BASE, *(job["fine_tuned_model"] for job in jobs[:2])]
    assert set(host.state.charged.values()) == {1}
    policies = [read_policy(Path("out") / f"round-{number}/policy").hosted for number in (1, 2)]
    assert [one and one.job for one in policies] == [job["id"] for job in jobs[1:]]
    left = [
        str(path) for path in Path("out").rglob("*") if path.suffix in (".lock", ".partial") or "irlhf." in str(path)
    ]
    assert left == []
    assert read_policy(Path("out/policy")).digest == read_policy(Path("out/round-2/policy")).digest


def test_every_round_is_one_job_on_from_the_model_of_the_round_before(host: OpenAIServer, forks: Forks) -> None:
    done = rounds(forks, "--price-per-mtok", 1000)
    assert done.code == 0, done.err
    assert "spent on jobs" in done.err
    assert_one_job_a_round(host)
    asked = Counter(body["model"] for body in host.kinds("chat"))
    assert set(asked) == {one["job"]["fine_tuned_model"] for one in host.jobs}
    rows = json.loads(Path("out/rounds.json").read_text())["rounds"]
    assert {row["kl"] for row in rows} == {row["entropy"] for row in rows} == {"not available"}
    seen = len(host.state.seen)
    again = rounds(forks)
    assert "out is complete already: nothing to do" in again.err
    assert len(host.state.seen) == seen


# A round writes some thirty JSON files; each run dies a few further on than where it took up the work.
@pytest.mark.slow
@pytest.mark.parametrize(("step", "after"), [(7, False), (11, True)])
def test_a_loop_killed_write_after_write_pays_for_one_job_a_round(
    step: int, after: bool, host: OpenAIServer, forks: Forks
) -> None:
    codes = [KILLED]
    while codes[-1] == KILLED:
        done = rounds(forks, at=step + len(codes) - 1, after=after)
        codes.append(done.code)
    assert codes[-1] == 0, done.err
    assert len(codes) > 5
    assert_one_job_a_round(host)


class Blows(list[Fault | None]):
    """Strikes at the first request of its kind in every round, and lets all others be."""

    def __init__(self, blow: Fault) -> None:
        super().__init__([blow])
        self.struck: set[int] = set()

    def pop(self, place: SupportsIndex = 0) -> Fault | None:
        number = len(list(Path("out").glob("round-*/prompts.jsonl")))
        if number in self.struck:
            return None
        self.struck.add(number)
        return self[place]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", slow_after(1, ["jobs.create", "files.create", "jobs.retrieve", "chat"]))
def test_a_loop_killed_at_a_request_of_each_round_pays_for_one_job_a_round(
    kind: str, after: bool, host: OpenAIServer, forks: Forks
) -> None:
    host.faults[kind] = Blows(Fault(after=after, reset=True, run=lambda: forks.send(signal.SIGKILL)))
    codes = [rounds(forks).code for _ in range(4)]
    assert codes.count(KILLED) == (3 if kind == "chat" else 2)
    assert codes[-1] == 0
    assert_one_job_a_round(host)


def test_what_is_allowed_is_not_exceeded_and_more_goes_on(host: OpenAIServer, forks: Forks) -> None:
    priced = ("--price-per-mtok", 1000)
    assert_one_line(rounds(forks, "-q", *priced, "--max-spend", 0.01), CONFIG, "more than --max-spend 0.01; not")
    assert len(host.jobs) == 1
    # Enough for one round: the samples of the next are not paid for where nothing is left.
    done = rounds(forks, "-q", *priced, "--max-spend", spent_by_one(forks, host))
    assert_one_line(done, CONFIG, "which exhausts --max-spend")
    assert len(host.jobs) == 2
    assert not Path("out/round-2/samples.jsonl").exists()
    assert rounds(forks, *priced, "--max-spend", 100).code == 0
    assert_one_job_a_round(host)


def spent_by_one(forks: Forks, host: OpenAIServer) -> float:
    """Return what the job of the first round comes to, as `--dry-run` tells it."""
    line = (
        "finetune",
        "out/round-1/train.jsonl",
        "--keep-scales-of",
        "hosted",
        "-r",
        "rewards.yaml",
        "--epochs",
        1,
        "--seed",
        1,
    )
    there = ("--model", "openai:" + host.jobs[0]["job"]["fine_tuned_model"], "--base-url", host.url, "--json")
    done = forks(*line, *there, "--dry-run", "-o", "tried")
    assert done.code == 0, done.err
    return float(json.loads(done.out)["tokens"]) / 1000


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "every round pays http://127.0.0.1"),
        (("--yes", "--keep", "distinct,entropy=1"), "--keep entropy=1: hosted policies return neither the entropy nor"),
        (("--yes", "--keep", "kl=1"), "--keep kl=1: hosted policies return neither"),
        (("--yes", "--batch", 4), "--batch has no effect in hosted training"),
        (("--yes", "--epochs", 1.5), "hosted training needs a whole number of epochs"),
        (("--yes", "--learning-rate", 0.1), "--learning-rate: host openai does not accept a rate"),
        (("--yes", "--max-spend", 3), "--max-spend 3 needs the price of tokens; add --price-per-mtok"),
        (("--yes", "--hyperparameter", "x"), "--hyperparameter x: expected KEY=VALUE"),
    ],
)
def test_what_a_host_cannot_do_is_refused_before_anything_is_sent(
    more: tuple[object, ...], said: str, host: OpenAIServer, forks: Forks
) -> None:
    assert_one_line(rounds(forks, "-q", *more, yes=False), CONFIG, said)
    assert host.state.seen == []
    assert "out" not in names(Path.cwd())


def test_a_job_that_failed_is_paid_for_again_where_that_is_said(host: OpenAIServer, forks: Forks) -> None:
    host.quirks.statuses = ("running", "failed")
    assert rounds(forks).code == 3
    host.quirks.statuses = ("running", "succeeded")
    assert rounds(forks).code == 3
    assert len(host.jobs) == 2
    assert forks("jobs", "resubmit", "out/round-1/policy", "--yes").code == 0
    assert rounds(forks).code == 0
    assert (len(host.jobs), host.charges) == (4, 3)


@pytest.mark.slow
def test_what_a_host_trained_is_deployed_between_rounds(host: OpenAIServer, forks: Forks) -> None:
    host.quirks.name = ""
    asks = rounds(forks)
    assert asks.code == CONFIG
    assert "is not deployed yet; deploy it, then pass its name with --served-name" in asks.err
    for number, code in ((1, CONFIG), (2, 0)):
        host.add_model(f"mine-{number}")
        assert forks("jobs", "deployed", f"out/round-{number}/policy", f"mine-{number}").code == 0
        done = rounds(forks)
        assert done.code == code, done.err
        hosted = read_policy(Path(f"out/round-{number}/policy")).hosted
        assert hosted is not None
        assert hosted.model == f"mine-{number}"
    assert (len(host.jobs), host.charges) == (3, 3)
    assert {row["policy"] for row in read(Path("out/round-2/samples.jsonl"))} == {
        read_policy(Path("out/round-1/policy")).digest
    }
