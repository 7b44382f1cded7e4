"""reward-model at a host: from pairs to a scorer, with one job and one charge, and what is refused."""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers import CANARY, Forks, Outcome, Row, call, names, read, write
from openai_routes import Body, Said
from openai_server import BASE, OpenAIServer, hosting
from test_hosted_jobs import BACKEND, KILLED, LOST, TORN, Case, arm, assert_one_sentence, case, kill

from irlhf.training.settings import RewardModelSettings
from irlhf.training.train_reward_model import render_verdicts

pytestmark = pytest.mark.timeout(60)

RULE = "please"  # the word that makes people choose
FILLING = ["open", "the", "door", "and", "bring", "a", "cup", "of", "tea", "for", "them", "now"]


def judging(content: bytes) -> Any:
    """Return a model that has learnt the rule, and tells of nothing but its first token."""

    def judge(messages: Sequence[Body], seed: int, most: int, how: Mapping[str, float]) -> list[Said]:
        reply = json.loads(messages[-1]["content"])["reply"]
        likely, other = ("1", "0") if RULE in reply else ("0", "1")
        return [Said(likely, -0.1, ((likely, -0.105), (other, -2.303))), Said("", 0.0, end=True)]

    return judge


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with hosting(judging) as server:
        yield server


@pytest.fixture
def host(running: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    quicken(monkeypatch)
    running.begin()
    return running


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds * 0.001))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def dialogues(count: int) -> Path:
    """Raw pairs as Anthropic's files have them, in which the chosen reply holds the rule's word."""
    rng = random.Random(0)
    rows = []
    for i in range(count):
        begin = f"\n\nHuman: {' '.join(rng.choices(FILLING, k=3))} {i}?\n\nAssistant:"
        said = {"chosen": rng.choices(FILLING, k=5), "rejected": rng.choices(FILLING, k=6)}
        said["chosen"].insert(rng.randrange(6), RULE)
        rows.append({label: f"{begin} {' '.join(words)}." for label, words in said.items()})
    return write(Path("raw.jsonl"), rows)


def prepared(count: int = 60) -> list[Row]:
    outcome = call("prepare", dialogues(count), "-o", "pairs.jsonl")
    assert outcome.code == 0, outcome.err
    return read(Path("pairs.jsonl"))


def command(host: OpenAIServer, *more: object) -> list[str]:
    begin = ("reward-model", "pairs.jsonl", "--model", f"openai:{BASE}")
    return [*begin, "--base-url", host.url, *map(str, more)]


def train(host: OpenAIServer, *more: object) -> Outcome:
    return call(*command(host, *more))


def card(folder: str = "reward-model") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "reward.json").read_text())
    return found


def scored(scorer: str, **keys: str) -> Outcome:
    Path("rewards.yaml").write_text(json.dumps({"rewards": {"helpful": {"scorer": scorer, **keys}}}))
    return call("score", "pairs.jsonl", "-r", "rewards.yaml")


def agreement(rows: Sequence[Row]) -> float:
    """Return how often the chosen completion of a group has the higher reward."""
    by_label = {(row["group"], row["label"]): row["rewards"]["helpful"] for row in rows}
    groups = {row["group"] for row in rows}
    return sum(by_label[one, "chosen"] > by_label[one, "rejected"] for one in groups) / len(groups)


@pytest.mark.slow  # a real training at the host
def test_pairs_become_a_scorer_that_was_really_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    from openai_trainer import train as really

    quicken(monkeypatch)
    prepared(80)
    with hosting(lambda content: really(content, steps=40)) as server:
        outcome = train(server, "--yes")
        assert outcome.code == 0, outcome.err
        assert "wrote the reward model to reward-model" in outcome.err
        assert 'with scorer: "./reward-model" in it; irlhf eval on the scored pairs then says' in outcome.err
        said = scored("./reward-model")
        assert said.code == 0, said.err
    held_out = [row for row in read(Path("scored.jsonl")) if row["split"] != "train"]
    assert len(held_out) > 20
    assert agreement(held_out) > 0.9
    found = json.loads(call("eval", "scored.jsonl", "-r", "rewards.yaml", "--resamples", 100, "--json").out)
    assert found["pairs"]["rewards"]["helpful"]["accuracy"]["value"] > 0.9
    assert "calibration" not in found["pairs"]["rewards"]["helpful"]  # its numbers are probabilities already


def test_the_rows_are_those_that_are_rendered(host: OpenAIServer) -> None:
    rows = prepared()
    assert train(host, "--yes", "--seed", "3").code == 0
    render_verdicts("pairs.jsonl", "rendered.jsonl", RewardModelSettings(seed=3))
    (body,) = host.kinds("jobs.create")
    sent = host.state.files[body["training_file"]]["content"]
    assert sent == Path("rendered.jsonl").read_bytes() == Path("reward-model/train.jsonl").read_bytes()
    held_out = [json.loads(row) for row in host.state.files[body["validation_file"]]["content"].splitlines()]
    replies = {json.loads(row["messages"][1]["content"])["reply"] for row in held_out}
    assert replies == {row["completion"] for row in rows if row["split"] == "validation"}
    assert {row["messages"][-1]["content"] for row in held_out} == {"0", "1"}
    assert body["seed"] == 3


def test_the_folder_says_what_it_is_made_of(host: OpenAIServer) -> None:
    prepared()
    assert train(host, "--yes", "--half", "proxy", "--epochs", "3", "-o", "rm").code == 0
    job, found = host.jobs[0]["job"], card("rm")
    there = {"model": job["fine_tuned_model"], "trained": job["fine_tuned_model"], "job": job["id"]}
    assert found["hosted"] == {**there, "base_url": host.url, "host": "openai"}
    assert (found["base"], found["settings"]["half"]) == (f"openai:{BASE}", "proxy")
    assert found["settings"]["context"] == 8192
    assert found["digests"].keys() == {"pairs"}
    assert found["data"]["pairs"] == len(read(Path("rm/train.jsonl"))) // 2 < 48
    assert found["data"]["validation pairs are from"] == "the validation split"
    assert found["training"]["versions"]["irlhf"] == version("irlhf")
    assert found["training"]["request"]["method"]["supervised"]["hyperparameters"] == {"n_epochs": 3}
    assert names(Path("rm")) == {"reward.json", "train.jsonl", "validation.jsonl", "metrics.jsonl", "job.json"}
    assert CANARY not in "".join(path.read_text() for path in Path("rm").iterdir())
    assert call("plot", "rm", "-o", "figures").code == 0


def test_the_halves_are_two_trainings(host: OpenAIServer) -> None:
    prepared()
    for half in ("proxy", "gold"):
        assert train(host, "--yes", "--half", half, "-o", half).code == 0
    sides = [{row["messages"][1]["content"] for row in read(Path(half, "train.jsonl"))} for half in ("proxy", "gold")]
    assert not sides[0] & sides[1]
    assert (len(host.jobs), host.charges) == (2, 2)


# ── a folder is a scorer ───────────────────────────────────────────────────────────────────────────────────────────


def hosted(folder: str, **there: str) -> None:
    """Write the folder of a reward model as it is after its training."""
    known = {"model": "m", "base_url": "http://127.0.0.1:9/v1", "host": "openai", "job": "ftjob-1", "trained": "m"}
    Path(folder).mkdir(parents=True)
    Path(folder, "reward.json").write_text(json.dumps({"base": "openai:m", "hosted": {**known, **there}}))


def test_a_folder_is_found_beside_the_rewards_yaml(host: OpenAIServer) -> None:
    prepared(20)
    assert train(host, "--yes", "-o", "made").code == 0
    hosted("config/rm", **card("made")["hosted"])
    Path("config/rewards.yaml").write_text("rewards:\n  helpful: {scorer: ./rm, api_key_env: JUDGES_KEY}\n")
    assert "JUDGES_KEY" in call("score", "pairs.jsonl", "-r", "config/rewards.yaml").err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUDGES_KEY", "sk-another")
        outcome = call("score", "pairs.jsonl", "-r", "config/rewards.yaml")
    assert outcome.code == 0, outcome.err
    assert agreement(read(Path("scored.jsonl"))) == 1


@pytest.mark.parametrize(
    ("there", "keys", "told"),
    [
        ({"model": ""}, {}, "helpful: m must be deployed at http://127.0.0.1:9/v1; then record its name"),
        ({"model": "", "trained": ""}, {}, "the model of job ftjob-1 must be deployed"),
        ({}, {"input": "pair"}, "this scorer does not accept `input:` (it accepts base_url,"),
    ],
)
def test_a_folder_that_cannot_be_asked_says_why(there: dict[str, str], keys: dict[str, str], told: str) -> None:
    prepared(20)
    hosted("rm", **there)
    outcome = scored("./rm", **keys)
    assert outcome.code == 2
    assert told in outcome.err


def test_a_damaged_card_is_named() -> None:
    prepared(20)
    hosted("rm")
    Path("rm/reward.json").write_text('{"hosted": {"model": "m"}}')
    outcome = scored("./rm")
    assert outcome.code == 1
    assert "rm/reward.json: damaged" in outcome.err


def test_what_is_deployed_later_is_asked_by_its_name(host: OpenAIServer) -> None:
    prepared(20)
    host.quirks.takes = ("trainingType",)
    outcome = train(host, "--yes", "--host", "azure")
    assert outcome.code == 0
    assert "must be deployed" in outcome.err
    named = call("jobs", "deployed", "reward-model", "mine")
    assert "the model name for sampling is now mine" in named.err
    assert card()["hosted"]["model"] == "mine"
    host.add_model("mine")
    host.state.trained["mine"] = judging(b"")
    assert scored("./reward-model").code == 0


# ── what is said, refused and left ─────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_counts_and_asks_nobody(host: OpenAIServer) -> None:
    prepared()
    before = names(Path.cwd())
    outcome = train(host, "--dry-run", "--json", "--limit", "60")
    assert outcome.code == 0
    assert 0 < json.loads(outcome.out)["training file"] <= 60
    assert names(Path.cwd()) == before
    assert not host.state.seen


def test_a_job_is_left_alone_cancelled_and_paid_for_again(host: OpenAIServer) -> None:
    prepared()
    host.quirks.statuses = ("queued",)
    assert "confirm with --yes" in train(host).err
    assert train(host, "--yes", "--no-wait").code == 0
    assert call("jobs", "cancel", "reward-model").code == 0
    assert train(host, "--yes").code == BACKEND
    host.quirks.statuses = ("queued", "succeeded")
    assert call("jobs", "resubmit", "reward-model", "--yes").code == 0
    assert (len(host.jobs), host.charges) == (2, 1)
    assert card()["hosted"]["job"] == host.jobs[1]["job"]["id"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--batch", "8"), "--batch has no effect in hosted training: use --hyperparameter batch_size=N"),
        (("--report-to", "wandb"), "--report-to has no effect in hosted training"),
        (("--epochs", "1.5"), "whole number of epochs"),
        (("--half", "prox"), "did you mean 'proxy'"),
        (("--render-only",), "--base-url needs hosted training"),
        (("--model", "tiny"), "--base-url needs hosted training"),
    ],
)
def test_what_a_host_does_not_take_is_refused_by_name(host: OpenAIServer, options: tuple[str, ...], told: str) -> None:
    prepared(20)
    before = names(Path.cwd())
    outcome = train(host, "--yes", *options)
    assert outcome.code == 2
    assert told in outcome.err
    assert names(Path.cwd()) == before
    assert not host.jobs


# ── one job and one charge, as for a policy ────────────────────────────────────────────────────────────────────────

TABLE = (
    case("the reply is lost", "jobs.create", LOST, said="checking whether the job was created"),
    Case("the connection breaks, and metadata is forgotten", {"jobs.create": [TORN]}, quirks={"remembers": False}),
    case("kill -9 after the job is asked for", "jobs.create", kill(after=True), codes=(KILLED, 0)),
    case("kill -9 over and over", "jobs.create", kill(), kill(), kill(after=True), codes=(KILLED, KILLED, KILLED, 0)),
    case("kill -9 while watching", "jobs.retrieve", kill(), codes=(KILLED, 0)),
    *(Case(f"kill -9 before the write {at}", codes=(KILLED, 0), crash=(at, False)) for at in (2, 4, 6)),
    Case(
        "lost, and no list: a person names the job",
        {"jobs.create": [LOST]},
        codes=(BACKEND, 0),
        more=("", "jobs adopt reward-model {job}"),
        quirks={"lists": False},
    ),
)


@pytest.mark.parametrize("case", TABLE, ids=[one.name for one in TABLE])
def test_one_job_and_one_charge(case: Case, host: OpenAIServer, forks: Forks) -> None:
    arm(case, host, forks)
    prepared(20)
    for run, code in enumerate(case.codes):
        more = case.more[run].format(job=next(iter(host.state.jobs), "")).split() if case.more else []
        at, after = case.crash if not run else (0, False)
        line = more if more[:1] == ["jobs"] else command(host, "--yes", *more)
        outcome = forks(*line, at=at, after=after)
        assert outcome.code == code, f"run {run + 1}:\n{outcome.err}"
        assert_one_sentence(outcome)
    assert (len(host.jobs), host.charges) == case.counts
    assert card()["hosted"]["job"] == host.jobs[0]["job"]["id"]
