"""finetune at a host: what it is sent, what it costs, what is refused before, and what the policy's folder says."""

import base64
import json
import os
import pty
import shutil
import signal
import subprocess
from contextlib import suppress
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from helpers import IRLHF, Outcome, Row, call, example, names, read, wait_until, write
from openai_server import BASE, OpenAIServer

from irlhf.openai_api.token_count import TokenCounter
from irlhf.policy.policy_file import read_policy
from irlhf.training.finetune import render
from irlhf.training.hosted.training_file import estimates
from irlhf.training.settings import FinetuneSettings

pytestmark = pytest.mark.timeout(60)


def rows(count: int = 40, **fields: Any) -> list[Row]:
    splits = {1: "validation", 2: "test"}
    made = [example(i, rewards={"short": i, "loud": (i * 7) % 40}, split=splits.get(i % 10, "")) for i in range(count)]
    return [{**row, **fields} for row in made]


def train(host: OpenAIServer, *more: object, given: list[Row] | None = None) -> Outcome:
    write(Path("scored.jsonl"), given or rows())
    return call("finetune", "scored.jsonl", "--model", f"openai:{BASE}", "--base-url", host.url, *more)


def asked(host: OpenAIServer) -> dict[str, Any]:
    """Return the one request for a job."""
    (body,) = host.kinds("jobs.create")
    return dict(body)


def test_the_rows_are_those_of_a_training_here(host: OpenAIServer) -> None:
    assert train(host, "--yes").code == 0
    render("scored.jsonl", "rendered.jsonl", FinetuneSettings())
    sent = host.state.files[asked(host)["training_file"]]
    assert sent["content"] == Path("rendered.jsonl").read_bytes() == Path("policy/train.jsonl").read_bytes()
    assert sent["card"]["filename"].startswith("train-")
    held_out = host.state.files[asked(host)["validation_file"]]["content"].decode().splitlines()
    assert [json.loads(row)["messages"][-1]["content"] for row in held_out] == [f"Answer {i}." for i in (1, 11, 21, 31)]


def test_earlier_answers_of_a_conversation_are_not_learnt(host: OpenAIServer) -> None:
    talk = [("user", "Hello?"), ("assistant", "Yes?"), ("user", "How are you?")]
    given = rows()
    given[3]["prompt"] = [{"role": role, "content": content} for role, content in talk]
    assert train(host, "--yes", given=given).code == 0
    sent = [row["messages"] for row in read(Path("policy/train.jsonl"))]
    (weighed,) = [row for row in sent if len(row) == 4]
    assert [one.get("weight") for one in weighed] == [None, 0, None, None]
    host.begin()
    host.quirks.takes = ("trainingType",)
    outcome = train(host, "--yes", "--host", "azure", "-o", "other", given=given)
    assert "1 rows with earlier answers in the conversation: host azure may train on these as well" in outcome.err
    assert "weight" not in Path("other/train.jsonl").read_text()


def test_the_folder_says_how_the_policy_is_asked(host: OpenAIServer) -> None:
    outcome = train(host, "--yes", "--context", "512")
    job = host.jobs[0]["job"]
    policy = read_policy(Path("policy"))
    assert policy.hosted is not None
    there = {"model": job["fine_tuned_model"], "trained": job["fine_tuned_model"], "job": job["id"]}
    assert policy.hosted.to_json() == {**there, "base_url": host.url, "host": "openai"}
    assert (policy.base, policy.names, policy.context) == (f"openai:{BASE}", ("short", "loud"), 512)
    assert len(policy.reservoir) == len(read(Path("policy/train.jsonl"))) == 32
    assert read(Path("policy/metrics.jsonl")) == [
        {"step": 1, "loss": 2.5, "validation_loss": 2.6},
        {"step": 2, "loss": 1.5},
    ]
    assert "wrote the policy to policy" in outcome.err
    assert "Created fine-tuning job" in outcome.err
    assert outcome.err.count("The job is now running") == 1
    sampled = call("sample", "policy", "scored.jsonl", "-t", "short=0.9", "--limit", "2", "--split", "all")
    assert sampled.code == 0, sampled.err
    assert {body["model"] for body in host.kinds("chat")} == {job["fine_tuned_model"]}


def test_a_finished_training_asks_nobody(host: OpenAIServer) -> None:
    assert train(host, "--yes").code == 0
    before = len(host.state.seen)
    assert "complete already" in train(host, "--yes").err
    assert len(host.state.seen) == before


def test_a_training_that_is_there_is_never_paid_for_again(host: OpenAIServer) -> None:
    assert train(host, "--yes").code == 0
    for path in (Path("policy"), Path("policy.run.json")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    outcome = train(host, "--yes")
    assert "which already exists for this training" in outcome.err
    assert (outcome.code, len(host.jobs), host.charges) == (0, 1, 1)
    assert train(host, "--yes", "-o", "other", "--seed", "1").code == 0
    assert (len(host.jobs), host.charges) == (2, 2)


def test_what_costs_money_is_said_and_agreed_to_first(host: OpenAIServer) -> None:
    outcome = train(host, "--price-per-mtok", "1000", "--epochs", "3")
    tokens = sum(sum(estimates(one, TokenCounter())) for one in rendered())
    assert outcome.code == 2
    assert f"32 rows of about {tokens:,} tokens" in outcome.err
    assert f"{3 * tokens:,} billed tokens; price: about {3 * tokens / 1000:.2f}" in outcome.err
    assert "--yes" in outcome.err
    assert names(Path.cwd()) == {"scored.jsonl", "rendered.jsonl", "rendered.jsonl.run.json", "rendered.meta.json"}
    assert not host.kinds("files.create")


def rendered() -> list[Row]:
    render("scored.jsonl", "rendered.jsonl", FinetuneSettings())
    return read(Path("rendered.jsonl"))


def test_a_dry_run_asks_nobody_and_leaves_nothing(host: OpenAIServer) -> None:
    outcome = train(host, "--dry-run", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["training file"] == 32
    assert names(Path.cwd()) == {"scored.jsonl"}
    assert not host.state.seen


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("", 2), ("what\nyes\n", 0)])
def test_a_person_at_a_terminal_is_asked(host: OpenAIServer, answer: str, code: int) -> None:
    from typer.testing import CliRunner

    from irlhf.cli.app import app

    write(Path("scored.jsonl"), rows())
    arguments = ["finetune", "scored.jsonl", "--model", f"openai:{BASE}", "--base-url", host.url]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("irlhf.training.hosted.run"), "at_a_terminal", lambda: True)
        result = CliRunner().invoke(app, arguments, input=answer)
    assert "[y/N]" in result.stderr
    assert (result.exit_code, len(host.jobs)) == (code, int(not code))


def test_ctrl_c_at_the_question_submits_nothing(host: OpenAIServer) -> None:
    write(Path("scored.jsonl"), rows())
    terminal, inside = pty.openpty()
    command = [*IRLHF, "finetune", "scored.jsonl", "--model", f"openai:{BASE}", "--base-url", host.url]
    with Path("err.txt").open("wb") as err:
        begun = subprocess.Popen(command, stdin=inside, stderr=err)
    wait_until(lambda: "[y/N]" in Path("err.txt").read_text(), 60)
    # Python misses a signal that comes just before it waits for a key: as a user would, press it again.
    with suppress(subprocess.TimeoutExpired):
        begun.send_signal(signal.SIGINT)
        begun.wait(5)
    begun.send_signal(signal.SIGINT)
    assert begun.wait(20) == 130
    os.close(terminal)
    os.close(inside)
    assert not host.jobs


# ── what is refused before anything is sent ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"completion": ""}, "is empty"),
        ({"completion": "so <|im_end|> it is"}, "<|im_end|>"),
        ({"prompt": "what is <|endoftext|>?"}, "<|endoftext|>"),
        ({"completion": [{"role": "user", "content": "no"}]}, "ends with a message of user"),
    ],
)
def test_a_row_that_would_fail_the_job_is_named(host: OpenAIServer, change: Row, told: str) -> None:
    given = rows()
    given[5] |= change
    given[8] |= change
    outcome = train(host, "--yes", given=given)
    assert outcome.code == 1
    assert "scored.jsonl:6: row 'e5' and 1 more" in outcome.err
    assert told in outcome.err
    assert names(Path.cwd()) == {"scored.jsonl"}
    assert not host.kinds("files.create")


def test_too_few_rows_are_refused(host: OpenAIServer) -> None:
    outcome = train(host, "--yes", given=rows(9))
    assert (outcome.code, len(host.jobs)) == (1, 0)
    assert "at least 10" in outcome.err


def test_long_rows_are_left_out_and_counted(host: OpenAIServer) -> None:
    given = rows()
    given[5]["prompt"] = "so very long " * 400
    outcome = train(host, "--yes", "--context", "500", given=given)
    assert "1 rows left out: longer than the context (500 tokens, --context)" in outcome.err
    assert len(read(Path("policy/train.jsonl"))) == 31


def test_a_row_that_is_trained_on_validates_nothing(host: OpenAIServer) -> None:
    given = rows()
    twin = {key: given[3][key] for key in ("prompt", "completion", "rewards")}
    given[11] |= twin
    outcome = train(host, "--yes", "--drop", "0", given=given)
    assert "1 validation rows left out: trained on as well" in outcome.err
    assert len(read(Path("policy/validation.jsonl"))) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--lora", "8"), "--lora has no effect in hosted training"),
        (("--accumulate", "2"), "--accumulate has no effect"),
        (("--no-merge",), "--no-merge has no effect"),
        (("--report-to", "wandb"), "--report-to has no effect"),
        (("--batch", "8"), "batch_size=N"),
        (("--epochs", "1.5"), "whole number of epochs"),
        (("--learning-rate", "0.1"), "learning_rate_multiplier"),
        (("--hyperparameter", "batch_size"), "KEY=VALUE"),
        (("--hyperparameter", "n_epochs=3"), "--epochs"),
        (("--host", "openal"), "did you mean 'openai'"),
        (("--host", "nowhere.yaml"), "nowhere.yaml"),
        (("--api-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY"),
    ],
)
def test_what_a_host_does_not_take_is_refused_by_name(host: OpenAIServer, options: tuple[str, ...], told: str) -> None:
    outcome = train(host, "--yes", *options)
    assert outcome.code == 2
    assert told in outcome.err
    assert not host.jobs
    assert names(Path.cwd()) == {"scored.jsonl"}


@pytest.mark.parametrize(
    "options",
    [
        ("--yes",),
        ("--base-url", "http://x/v1"),
        ("--host", "azure"),
        ("--no-wait",),
        ("--price-per-mtok", "1"),
        ("--hyperparameter", "a=1"),
    ],
)
def test_what_only_a_host_takes_is_refused_here(options: tuple[str, ...]) -> None:
    write(Path("scored.jsonl"), rows())
    outcome = call("finetune", "scored.jsonl", "--model", "tiny", *options)
    assert outcome.code == 2
    assert f"{options[0]} needs hosted training" in outcome.err


@pytest.mark.parametrize(("address", "told"), [("ftp://x", "address"), ("http://user:pass@x/v1", "address")])
def test_an_address_is_one(address: str, told: str) -> None:
    write(Path("scored.jsonl"), rows())
    outcome = call("finetune", "scored.jsonl", "--model", "openai:x", "--base-url", address, "--yes")
    assert outcome.code == 2
    assert told in outcome.err
    assert "pass@" not in outcome.err


def test_a_base_that_is_shut_down_is_not_paid_for(host: OpenAIServer) -> None:
    host.add_model(BASE, str(date.today() - timedelta(days=1)))
    outcome = train(host, "--yes")
    assert (outcome.code, len(host.jobs)) == (2, 0)
    assert "shut gpt-4.1-mini down" in outcome.err


@pytest.mark.parametrize(("days", "warned"), [(30, True), (200, False)])
def test_a_base_that_is_shut_down_soon_is_warned_of(host: OpenAIServer, days: int, warned: bool) -> None:
    host.add_model(BASE, str(date.today() + timedelta(days=days)))
    outcome = train(host, "--yes")
    assert outcome.code == 0
    assert ("will be shut down" in outcome.err) == warned


# ── hosts that are otherwise ───────────────────────────────────────────────────────────────────────────────────────


def test_hyperparameters_stand_where_openai_looks_for_them(host: OpenAIServer) -> None:
    options = ("--epochs", "3", "--hyperparameter", "batch_size=8", "--hyperparameter", "learning_rate_multiplier=auto")
    assert train(host, "--yes", "--seed", "7", *options).code == 0
    inside = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": "auto"}
    assert asked(host)["method"] == {"type": "supervised", "supervised": {"hyperparameters": inside}}
    assert asked(host)["seed"] == 7
    assert set(asked(host)["metadata"]) == {"irlhf"}


def test_nebius_has_them_on_top_and_a_rate_of_its_own(host: OpenAIServer) -> None:
    host.quirks.name, host.quirks.checkpoints, host.quirks.takes = "", 2, ("hyperparameters",)
    options = ("--host", "nebius", "--learning-rate", "2e-5", "--hyperparameter", "lora=true")
    outcome = train(host, "--yes", *options)
    assert outcome.code == 0
    assert asked(host)["hyperparameters"] == {"n_epochs": 2, "lora": True, "learning_rate_multiplier": 2e-5}
    assert "method" not in asked(host)
    assert "must be deployed" in outcome.err
    policy = read_policy(Path("policy"))
    assert policy.hosted is not None
    assert (policy.hosted.model, policy.hosted.trained[-11:]) == ("", "ckpt-step-2")
    assert call("jobs", "deployed", "policy", "mine").code == 0
    again = read_policy(Path("policy")).hosted
    assert again is not None
    assert (again.model, again.job) == ("mine", policy.hosted.job)


def test_azure_wants_to_know_the_kind_of_training(host: OpenAIServer) -> None:
    host.quirks.takes = ("trainingType",)
    outcome = train(host, "--yes", "--host", "azure")
    assert outcome.code == 0
    assert call("jobs", "deployed", "policy", "mine").code == 0
    assert asked(host)["trainingType"] == "GlobalStandard"
    policy = read_policy(Path("policy"))
    assert policy.hosted is not None
    assert policy.hosted.model == "mine"
    assert policy.hosted.trained == host.jobs[0]["job"]["fine_tuned_model"]
    write(Path("scored.jsonl"), rows())
    lost = call("finetune", "scored.jsonl", "--model", "openai:x", "--host", "azure", "--yes", "-o", "other")
    assert "--base-url" in lost.err


def test_a_host_of_ones_own_is_a_file(host: OpenAIServer) -> None:
    host.quirks.takes = ("trainer",)
    card = {"base_url": host.url, "rows": 5, "validation": False, "metadata": False, "extra_body": {"trainer": "b"}}
    Path("mine.yaml").write_text(json.dumps(card))
    write(Path("scored.jsonl"), rows(9))
    command = ("finetune", "scored.jsonl", "--model", f"openai:{BASE}", "--host", "mine.yaml", "--yes")
    assert call(*command).code == 3  # fewer rows than this host can train on
    assert asked(host).keys() == {"model", "training_file", "method", "seed", "trainer"}
    assert asked(host)["trainer"] == "b"
    Path("mine.yaml").write_text("rate: 3")
    assert "mine.yaml: rate" in call(*command).err


def test_a_curve_may_come_in_base64(host: OpenAIServer) -> None:
    host.quirks.results = base64.b64encode(b"step,train_loss\n1,2.5\n2,nan\n").decode()
    assert train(host, "--yes").code == 0
    assert read(Path("policy/metrics.jsonl")) == [{"step": 1, "loss": 2.5}]


def test_an_untouched_base_is_asked_at_the_host_and_nothing_is_sent(host: OpenAIServer) -> None:
    assert train(host, "--baseline", "prompted").code == 0
    policy = read_policy(Path("policy"))
    assert policy.hosted is not None
    assert (policy.hosted.model, policy.hosted.job, policy.baseline) == (BASE, "", "prompted")
    assert "nothing is trained" in train(host, "--baseline", "prompted", "--dry-run").err
    assert not host.state.seen


@pytest.mark.parametrize("baseline", ["plain", "chosen", "top"])
def test_baselines_are_rows_like_others(host: OpenAIServer, baseline: str) -> None:
    assert train(host, "--yes", "--baseline", baseline).code == 0
    sent = read(Path("policy/train.jsonl"))
    assert not any("short:" in row["messages"][0]["content"] for row in sent)
    answers = {row["messages"][-1]["content"] for row in sent}
    assert len(answers) == {"plain": 32, "chosen": 16, "top": 3}[baseline]


def test_other_rows_in_the_same_folder_are_refused(host: OpenAIServer) -> None:
    host.quirks.statuses = ("queued",)
    assert train(host, "--yes", "--no-wait").code == 0
    outcome = train(host, "--yes", given=rows(50))
    assert outcome.code == 2
    assert "belongs to a different run" in outcome.err
    assert len(host.jobs) == 1


def test_a_preview_shows_what_is_sent(host: OpenAIServer) -> None:
    outcome = train(host, "--preview", "2")
    assert outcome.code == 0
    assert outcome.out.count("tokens\n") == 2
    assert '"role":"assistant"' in outcome.out
    assert not host.state.seen


# ── irlhf jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_jobs_are_listed_and_shown_while_they_run_and_after(host: OpenAIServer) -> None:
    host.quirks.statuses = ("queued",)
    assert train(host, "--yes", "--no-wait").code == 0
    job = host.jobs[0]["job"]["id"]
    assert call("jobs", "list").out == f"policy\t{job}\topen\t{host.url}\n"
    assert call("jobs", "status", "policy").out.splitlines()[0] == f"job {job} at {host.url}: queued"
    host.quirks.statuses = ("queued", "succeeded")
    assert train(host, "--yes").code == 0
    assert json.loads(call("jobs", "list", "--json").out) == [
        {"output": "policy", "job": job, "state": "complete", "base_url": host.url}
    ]
    shown = json.loads(call("jobs", "status", "policy", "--json").out)
    assert (shown["status"], shown["model"]) == ("succeeded", host.jobs[0]["job"]["fine_tuned_model"])
    assert len(host.jobs) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["cancel", "policy"], "policy: no job in progress"),
        (["resubmit", "policy", "--yes"], "policy: no job in progress"),
        (["adopt", "policy", "ftjob-1"], "policy: no job in progress"),
        (["status", "policy"], "policy: no job in progress"),
        (["deployed", "policy", "mine"], "policy: this folder holds no hosted model"),
    ],
)
def test_a_folder_without_a_job_is_named_in_one_line(line: list[str], told: str) -> None:
    outcome = call("jobs", *line)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert told in outcome.err


def test_a_resubmitted_job_is_asked_about_before_it_is_paid_for(host: OpenAIServer) -> None:
    host.quirks.statuses = ("running", "failed")
    assert train(host, "--yes").code == 3
    assert "confirm with --yes" in call("jobs", "resubmit", "policy").err
    assert len(host.jobs) == 1
    host.quirks.statuses = ("running", "succeeded")
    assert call("jobs", "resubmit", "policy", "--yes", "--max-spend", "9", "--price-per-mtok", "1").code == 0
    assert "policy is complete already" in train(host, "--yes").err
    assert len(host.jobs) == 2
