"""finetune at a host: one job and one charge for one training, whatever the host, the network or kill -9 does.

Every run is a process of its own (see fork_server.py) against a host on a real socket (see openai_server.py). A case
is a table row: what goes wrong, what is run, what each run ends with, and what the host has counted in the end.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from helpers import CANARY, Forks, Outcome, example, names, process, wait_until, write
from openai_routes import error
from openai_server import BASE, Fault, OpenAIServer

from irlhf.core.errors import DataError
from irlhf.policy.policy_file import read_policy
from irlhf.training.hosted.job_submission import JobRecord, read_job_record, write_job_record

pytestmark = pytest.mark.timeout(60)

DATA, CONFIG, BACKEND, OUTPUT, STOPPED, ENDED, KILLED = 1, 2, 3, 4, 130, 143, -signal.SIGKILL


@pytest.fixture
def host(running: OpenAIServer) -> OpenAIServer:
    running.begin()
    return running


def scored(count: int = 40) -> Path:
    splits = {1: "validation", 2: "test"}
    rows = [example(i, rewards={"short": i, "loud": (i * 7) % 40}, split=splits.get(i % 10, "")) for i in range(count)]
    return write(Path("scored.jsonl"), rows)


def command(host: OpenAIServer, *more: str) -> list[str]:
    """Return the command that trains at this host, everything agreed to."""
    if more[:1] == ("jobs",):
        return list(more)
    return ["finetune", "scored.jsonl", "--model", f"openai:{BASE}", "--base-url", host.url, "--yes", *more]


# ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Case:
    """What goes wrong, and what it comes to."""

    name: str
    faults: Mapping[str, Sequence[Fault | None]] = field(default_factory=dict)
    codes: Sequence[int] = (0,)  # of the same command again and again
    said: str = ""  # on stderr, by the first run
    more: Sequence[str] = ()  # of each run; {job} is the first job that the host has
    quirks: Mapping[str, Any] = field(default_factory=dict)
    then: Mapping[str, Any] = field(default_factory=dict)  # quirks from the last run on
    crash: tuple[int, bool] = (0, False)  # of the first run
    counts: tuple[int, int] = (1, 1)  # jobs made, jobs charged


def kill(after: bool = False, number: int = signal.SIGKILL) -> Fault:
    """Return a fault that kills whoever asks, before the host does anything or after."""
    return Fault(after=after, reset=True, headers={"kill": str(int(number))})


def told(status: int, message: str = "not now", code: str | None = None, wait: str = "") -> Fault:
    return Fault(status, error(status, message, code), {"retry-after": wait} if wait else {})


HTML = Fault(200, b"<html>please log in</html>", {"content-type": "text/html"})
DETAIL = Fault(200, {"detail": "who knows"})
LATE = Fault(delay=1.0)
LOST, TORN = Fault(502, after=True), Fault(reset=True, after=True)
BAD, RESET = Fault(500), Fault(reset=True)
UNMADE = (0, 0)


def case(name: str, kind: str, *faults: Fault | None, **more: Any) -> Case:
    return Case(name, {kind: faults}, **more)


CREATES = (
    case("the reply is lost", "jobs.create", LOST, said="checking whether the job was created"),
    case("the reply is lost twice over", "jobs.create", BAD, LOST),
    case("the connection breaks once the job is there", "jobs.create", TORN),
    case("the reply comes too late", "jobs.create", replace(LATE, after=True)),
    case("the reply is a login page, the job made", "jobs.create", replace(HTML, after=True)),
    case("the reply is a detail, the job made", "jobs.create", replace(DETAIL, after=True)),
    case("the reply is empty, the job made", "jobs.create", Fault(200, b"", after=True)),
    case("the reply has no id, the job made", "jobs.create", Fault(200, {"status": "queued"}, after=True)),
    case("a 408, the job made", "jobs.create", replace(told(408), after=True)),
    case("a 409, the job made", "jobs.create", replace(told(409), after=True)),
    case("a gateway says 504, the job made", "jobs.create", Fault(504, b"<html>", after=True)),
    case("an error in a 200, the job made", "jobs.create", Fault(200, error(500), after=True)),
    case("a 500 that made nothing", "jobs.create", BAD),
    case("three 500s that made nothing", "jobs.create", BAD, BAD, BAD),
    case("500s without end", "jobs.create", *[BAD] * 4, codes=(BACKEND, 0), said="in 4 attempts"),
    case("a connection that breaks before", "jobs.create", RESET),
    case("busy for 2 s", "jobs.create", told(429, wait="2")),
    case("busy for 5 min", "jobs.create", told(429, wait="300"), said="asks for a pause of 5 min"),
    case("busy for hours", "jobs.create", told(429, wait="7200"), codes=(BACKEND, 0), said="come back in 2 h"),
    case("a 503 with a wait", "jobs.create", told(503, wait="3")),
    case(
        "the daily limit",
        "jobs.create",
        told(429, "3 jobs a day", "daily_rate_limit_exceeded"),
        codes=(BACKEND, 0),
        said="3 jobs a day",
    ),
    case("no credit", "jobs.create", told(429, code="insufficient_quota"), codes=(BACKEND, 0), said="credit"),
    case("payment required", "jobs.create", told(402), codes=(BACKEND, 0), said="credit"),
    case("no permission", "jobs.create", told(403), codes=(CONFIG,), said="OpenAI closed its own", counts=UNMADE),
    case("no permission at first", "jobs.create", told(403), told(403), codes=(CONFIG, CONFIG, 0)),
    case("a wrong key", "jobs.create", told(401), codes=(CONFIG, 0), said="OPENAI_API_KEY"),
    case(
        "a bad request", "jobs.create", told(400, "no such base"), codes=(CONFIG,), said="no such base", counts=UNMADE
    ),
    case("a detail", "jobs.create", Fault(422, {"detail": "bad epochs"}), codes=(CONFIG, 0), said="bad epochs"),
)
LISTS = (
    Case("lost, and listed late", {"jobs.create": [LOST]}, quirks={"late": 4}),
    Case("lost, and the filter ignored", {"jobs.create": [LOST]}, quirks={"filters": False}),
    Case("lost, and metadata forgotten", {"jobs.create": [LOST]}, quirks={"remembers": False}),
    Case("lost, both", {"jobs.create": [LOST]}, quirks={"remembers": False, "filters": False}),
    Case("lost, both, and listed late", {"jobs.create": [TORN]}, quirks={"remembers": False, "late": 5}),
    Case("lost, and a list without an end", {"jobs.create": [LOST]}, quirks={"endless": True}),
    Case("not made, and a list without an end", {"jobs.create": [BAD]}, quirks={"endless": True}),
    Case(
        "lost, and no list: a person names the job",
        {"jobs.create": [LOST]},
        codes=(BACKEND, BACKEND, 0),
        more=("", "", "jobs adopt policy {job}"),
        said="run `irlhf jobs adopt POLICY ID`",
        quirks={"lists": False},
    ),
    Case(
        "not made, and no list: a person says so",
        {"jobs.create": [BAD]},
        codes=(BACKEND, BACKEND, 0),
        more=("", "", "jobs resubmit policy --yes"),
        said="may have been submitted",
        quirks={"lists": False},
    ),
    Case(
        "lost, and the list down",
        {"jobs.create": [LOST], "jobs.list": [None, *[BAD] * 6]},
        codes=(BACKEND, 0),
        said="after checking the list",
    ),
    Case(
        "lost, and resubmitted: the list shows it",
        {"jobs.create": [kill(after=True)]},
        (KILLED, 0),
        more=("", "jobs resubmit policy --yes"),
    ),
    Case("no list", quirks={"lists": False}),
    case("a list that may not be seen", "jobs.list", told(403)),
    case("a list in other words", "jobs.list", Fault(404, {"detail": "Not Found"})),
    case("a filter that is refused", "jobs.list", told(400, "unknown parameter")),
    case("a list that is down for a moment", "jobs.list", BAD, RESET, told(429, wait="4")),
    case("a list that is down", "jobs.list", *[BAD] * 6, codes=(BACKEND, 0), said="is the server up?"),
    case("a login page", "jobs.list", HTML, codes=(CONFIG,), said="up to and including /v1", counts=UNMADE),
)
FILES = (
    case("an upload that fails", "files.create", BAD, RESET),
    case("an upload whose reply is lost", "files.create", TORN, LOST),
    case("an upload that takes too long", "files.create", LATE),
    case("an upload that must wait", "files.create", told(429, wait="9")),
    case(
        "an upload that is refused",
        "files.create",
        told(413, "too big"),
        codes=(CONFIG,),
        said="too big",
        counts=UNMADE,
    ),
    case("an upload without permission", "files.create", told(403), codes=(CONFIG, 0), said="put a key"),
    Case("a file that expired", {"jobs.create": [kill()], "files.retrieve": [told(404)]}, (KILLED, 0)),
    Case("files that cannot be looked at", {"jobs.create": [kill()], "files.retrieve": [BAD] * 20}, (KILLED, 0)),
    case("a file that goes while it is used", "jobs.create", Fault(404, {"detail": "{file}"})),
)
FOLLOWING = (
    case("an outage", "jobs.retrieve", BAD, RESET, BAD, told(503, wait="60")),
    case("a long outage", "jobs.retrieve", *[BAD] * 50, codes=(BACKEND, 0), said="it may still be running"),
    case("a slow answer", "jobs.retrieve", LATE),
    case("a login page for a moment", "jobs.retrieve", HTML, HTML),
    case("a key that expired", "jobs.retrieve", *[told(401)] * 5, codes=(BACKEND, 0), said="it may still be running"),
    case("a job that is not known yet", "jobs.retrieve", told(404), told(404)),
    case("a job that is not known", "jobs.retrieve", *[told(404)] * 5, codes=(BACKEND, 0), said="no longer has job"),
    case("a detail for a job", "jobs.retrieve", DETAIL, Fault(500, {"detail": "no"})),
    Case("a job that is paused", quirks={"statuses": ("queued", "paused", "paused", "running", "succeeded")}),
    Case("a status nobody knows", said="unknown status", quirks={"statuses": ("dreaming", "dreaming", "succeeded")}),
    Case("an error that is none", quirks={"error": {}}),
    Case("an error of nothing", quirks={"error": {"code": None, "message": None, "param": None}}),
    Case(
        "a job that fails",
        codes=(BACKEND, BACKEND),
        said="failed: the text is unsafe; fix the rows",
        quirks={"statuses": ("running", "failed"), "failure": {"code": "x", "message": "the text is unsafe."}},
        counts=(1, 0),
    ),
    Case(
        "a job that fails, paid for again",
        codes=(BACKEND, 0),
        more=("", "jobs resubmit policy --yes"),
        quirks={"statuses": ("running", "failed")},
        then={"statuses": ("running", "succeeded")},
        counts=(2, 1),
    ),
    Case(
        "again, killed, and again",
        {"jobs.create": [None, kill(after=True)]},
        codes=(BACKEND, KILLED, 0),
        more=("", "jobs resubmit policy --yes", "jobs resubmit policy --yes"),
        quirks={"statuses": ("running", "failed")},
        then={"statuses": ("running", "succeeded")},
        counts=(2, 1),
    ),
    Case(
        "again, of a job that runs",
        codes=(0, CONFIG, 0),
        more=("--no-wait", "jobs resubmit policy --yes", ""),
        quirks={"statuses": ("queued",)},
        then={"statuses": ("queued", "succeeded")},
    ),
    Case(
        "a job that is cancelled here",
        codes=(0, 0, BACKEND),
        more=("--no-wait", "jobs cancel policy", ""),
        quirks={"statuses": ("queued",)},
        counts=(1, 0),
    ),
    Case("nobody waits", codes=(0, 0, 0, 0), more=("--no-wait", "--no-wait", "", "")),
    case("events without an end", "none", quirks={"endless": True}),
    case("events that are down", "jobs.events", *[BAD] * 9),
    case("events in other words", "jobs.events", HTML, DETAIL, told(404)),
    Case("a model without a name, with checkpoints", quirks={"name": "", "checkpoints": 3}),
    Case("a model without a name", said="must be deployed", quirks={"name": ""}),
    Case("a file of results that is gone", {"files.content": [told(404)]}),
    Case("no results", quirks={"results": ""}),
)
KILLS = (
    *(
        Case(f"kill -9 {'after' if after else 'before'} the write {at}", codes=(KILLED, 0), crash=(at, after))
        for at in range(1, 8)
        for after in (False, True)
    ),
    *(
        case(f"kill -9 {'after' if after else 'before'} {kind}", kind, kill(after), codes=(KILLED, 0))
        for kind in ("models.retrieve", "jobs.list", "files.create", "jobs.create", "jobs.retrieve", "jobs.events")
        for after in (False, True)
    ),
    case("kill -9 over and over", "jobs.create", kill(), kill(), kill(True), codes=(KILLED, KILLED, KILLED, 0)),
    Case("kill -9, and listed late", {"jobs.create": [kill(True)]}, (KILLED, 0), quirks={"late": 3}),
    Case("kill -9, and metadata forgotten", {"jobs.create": [kill(True)]}, (KILLED, 0), quirks={"remembers": False}),
    Case(
        "kill -9, and no list",
        {"jobs.create": [kill(True)]},
        (KILLED, BACKEND, 0),
        more=("", "", "jobs adopt policy {job}"),
        quirks={"lists": False},
    ),
    Case("kill -9 while watching twice", {"jobs.retrieve": [kill(), kill(True)]}, (KILLED, KILLED, 0)),
    case("Ctrl-C while watching", "jobs.retrieve", kill(number=signal.SIGINT), codes=(STOPPED, 0), said="resumes"),
    case("SIGTERM while watching", "jobs.retrieve", kill(number=signal.SIGTERM), codes=(ENDED, 0), said="resumes"),
    case("Ctrl-C while it is submitted", "jobs.create", kill(True, signal.SIGINT), codes=(STOPPED, 0)),
)
TABLE = (*CREATES, *LISTS, *FILES, *FOLLOWING, *KILLS)


def test_the_table_has_no_two_rows_of_one_name() -> None:
    assert len({one.name for one in TABLE}) == len(TABLE) > 50


# Each is a process or several: `make test` runs every third.
@pytest.mark.parametrize(
    "case",
    [pytest.param(one, id=one.name, marks=[pytest.mark.slow] if n % 3 else []) for n, one in enumerate(TABLE)],
)
def test_one_job_and_one_charge(case: Case, host: OpenAIServer, forks: Forks) -> None:
    arm(case, host, forks)
    scored()
    for run, code in enumerate(case.codes):
        last = run == len(case.codes) - 1
        for quirk, value in (case.then if last else {}).items():
            setattr(host.quirks, quirk, value)
        more = case.more[run].format(job=next(iter(host.state.jobs), "")).split() if case.more else []
        at, after = case.crash if not run else (0, False)
        outcome = forks(*command(host, *more), at=at, after=after)
        assert outcome.code == code, f"run {run + 1}:\n{outcome.err}"
        assert_one_sentence(outcome)
        if not run:
            assert case.said in outcome.err
    assert (len(host.jobs), host.charges) == case.counts
    if code == 0:
        assert_policy(host)


def arm(case: Case, host: OpenAIServer, forks: Forks) -> None:
    for quirk, value in case.quirks.items():
        setattr(host.quirks, quirk, value)
    for kind, faults in case.faults.items():
        host.faults[kind] = [one and armed(one, host, forks) for one in faults]


def armed(fault: Fault, host: OpenAIServer, forks: Forks) -> Fault:
    if "kill" in fault.headers:
        number = int(fault.headers["kill"])
        return replace(fault, headers={}, run=lambda: forks.send(number))
    if fault.body == {"detail": "{file}"}:
        return replace(fault, body=lambda: {"detail": f"No such File object: {next(iter(host.state.files))}"})
    return fault


def assert_one_sentence(outcome: Outcome) -> None:
    """Hold stderr to what a user should see: one line that says what happened and what to do, and no secret."""
    assert "Traceback" not in outcome.err
    assert CANARY not in outcome.err + outcome.out
    errors = [line for line in outcome.err.splitlines() if line.startswith("irlhf:")]
    assert len(errors) == (outcome.code > 0)
    assert all(len(line) < 500 for line in errors)


def assert_policy(host: OpenAIServer) -> None:
    policy = read_policy(Path("policy"))
    assert policy.hosted is not None
    job = next(one["job"] for one in host.jobs if one["job"]["id"] == policy.hosted.job)
    assert job["status"] == "succeeded"
    assert policy.hosted.model in ("", job["fine_tuned_model"], f"ft:{BASE}:org::{job['id']}:ckpt-step-3")
    assert policy.names == ("short", "loud")
    assert CANARY not in "".join(path.read_text() for path in Path("policy").iterdir())
    assert names(Path.cwd()) == {"scored.jsonl", "policy", "policy.run.json", "out.txt", "err.txt"}


@pytest.mark.parametrize("moment", ["jobs.list", "files.create", "jobs.create", "jobs.retrieve"])
def test_two_processes_on_one_output_make_one_job(moment: str, host: OpenAIServer, forks: Forks) -> None:
    """The second comes while the first waits for an answer of the host's, and is refused."""
    scored()
    seen: list[subprocess.CompletedProcess[bytes]] = []
    asked: list[int] = []  # requests, before and after

    def intrude() -> None:
        asked.append(len(host.state.seen))
        seen.append(process(*command(host), env={**os.environ, "OPENAI_API_KEY": CANARY}))
        asked.append(len(host.state.seen))

    host.faults[moment] = [Fault(run=intrude)]
    outcome = forks(*command(host), patience=30.0)
    assert outcome.code == 0, outcome.err
    (second,) = seen
    assert second.returncode == OUTPUT
    assert asked[0] == asked[1]
    assert b"policy: another irlhf process is writing it" in second.stderr
    assert (len(host.jobs), host.charges) == (1, 1)
    assert_policy(host)


@pytest.mark.slow
def test_the_program_trains_at_a_host_in_another_process() -> None:
    """Nothing here is shortened, forked or patched: two programs and a socket."""
    scored()
    script = Path(__file__).with_name("openai_server.py")
    with subprocess.Popen([sys.executable, script, "address.txt"]) as server:
        try:
            wait_until(lambda: Path("address.txt").exists() and Path("address.txt").read_text())
            url = Path("address.txt").read_text()
            command = ("finetune", "scored.jsonl", "--model", f"openai:{BASE}", "--base-url", url, "--yes")
            for _ in range(2):
                done = process(*command, env={**os.environ, "OPENAI_API_KEY": CANARY})
                assert done.returncode == 0, done.stderr
            state = json.loads(urlopen(url.removesuffix("v1") + "state").read())
        finally:
            server.kill()
    assert (len(state["jobs"]), state["charged"]) == (1, 1)
    policy = read_policy(Path("policy"))
    assert policy.hosted is not None
    assert policy.hosted.model == state["jobs"][0]["fine_tuned_model"]


def test_a_job_record_of_version_0_1_is_converted() -> None:
    old = {"digest": "d", "attempt": 2, "files": {"sha": "file-1"}, "asked": 5.5, "job": "ftjob-1", "over": ["ftjob-0"]}
    Path("job.json").write_text(json.dumps(old))
    record = JobRecord("d", 2, {"sha": "file-1"}, 5.5, "ftjob-1", ("ftjob-0",))
    assert read_job_record(Path()) == record
    write_job_record(Path(), record)
    written = json.loads(Path("job.json").read_text())
    assert (written["version"], written["requested_at"], "asked" in written) == (1, 5.5, False)
    assert read_job_record(Path()) == record


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"version": 1}, "digest: "),
        ({"digest": "d", "version": 2}, "version: "),
        ({"digest": "d", "files": 5}, "files: "),
        ({"digest": "d", "unknown": 1}, "unknown: "),
    ],
)
def test_a_damaged_job_record_is_refused(content: dict[str, Any], problem: str) -> None:
    Path("job.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"job\.json: damaged \({problem}.*check the provider's web page"):
        read_job_record(Path())
