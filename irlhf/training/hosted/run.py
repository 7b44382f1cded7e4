"""Train at a host that speaks OpenAI's fine-tuning protocol: the same rows as here, one job, one price."""

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.example import dumps
from irlhf.io.files import STREAM, read_json, whole_file, write_json
from irlhf.io.resumable import RunManifest, resumable_folder
from irlhf.openai_api.failures import ApiFailure, FailureKind
from irlhf.openai_api.fine_tuning import FineTuningClient
from irlhf.openai_api.providers import DPO, USUAL, Provider, find_provider
from irlhf.policy.policy_file import METRICS
from irlhf.policy.remote_model import HOSTED_KEY as HOSTED
from irlhf.policy.remote_model import PREFIX, RemoteModel
from irlhf.training.hosted.job_monitor import follow_job, metrics_of, model_of
from irlhf.training.hosted.job_submission import (
    JOB_FILE,
    JobRecord,
    JobSpec,
    adopt,
    again,
    begin,
    read_job_record,
    submit,
)
from irlhf.training.hosted.settings import HostedSettings, read_hyperparameters
from irlhf.training.hosted.task import HostedData, HostedTask
from irlhf.training.hosted.training_file import EARLIER, LEFT_OUT, SHARED, TrainingFile, estimate, write_training_file
from irlhf.training.preference_file import training_preferences
from irlhf.training.settings import RA_DPO, FinetuneSettings
from irlhf.training.training_set import TrainingSet

_EPOCHS = 2
_SEEDS = 2**31
_MARGIN = "give or take a third"
_SOON = timedelta(days=90)
_MILLION = 1e6
_WHERE = "OPENAI_BASE_URL"
_VERSIONS = ("irlhf", "openai")


@dataclass(frozen=True)
class HostedPlan:
    """What is asked of which host, and how."""

    subject: HostedTask
    base: str  # without the prefix
    host: Provider
    url: str
    epochs: int
    body: dict[str, Any]  # of the request for a job, without model and files
    hosted: HostedSettings

    @property
    def client(self) -> FineTuningClient:
        """The host."""
        return FineTuningClient(self.host, self.url, self.hosted.api_key_env)

    def write_files(self, data: HostedData, folder: Path) -> TrainingFile:
        """Write the files for the host, and say what is left out."""
        context = self.subject.settings.context
        training_file = write_training_file(data, folder, context, self.host)
        if training_file.counts[LEFT_OUT]:
            console.warn(f"{training_file.counts[LEFT_OUT]:,} rows {LEFT_OUT} ({context:,} tokens, --context)")
        if training_file.counts[SHARED]:
            console.warn(f"{training_file.counts[SHARED]:,} {SHARED}")
        if training_file.counts[EARLIER] and not self.host.weights:
            problem = f"host {self.host.name} learns those as well, for all we know"
            console.warn(f"{training_file.counts[EARLIER]:,} {EARLIER} of the conversation: {problem}")
        return training_file


class Left(Exception):
    """The job goes on, and nobody waits for it."""


def finetune(subject: HostedTask, out: Path, model: str, hosted: HostedSettings) -> dict[str, Any]:
    """Fill a folder with all but the weights, which the host keeps; return what was done."""
    return train(_plan(subject, model, hosted), out)


def train(plan: HostedPlan, out: Path) -> dict[str, Any]:
    """Fill a folder as planned; return what was done."""
    subject, hosted = plan.subject, plan.hosted
    if console.PROCESSES > 1:
        raise ConfigError("a host is asked by one process; start irlhf without torchrun")
    if STREAM in subject.manifest.inputs.values():
        raise ConfigError("a job is found again by its rows, and stdin cannot be read again; name a file")
    if hosted.dry_run:
        return _tried(plan, out)
    work = _untouched if subject.untouched else _trained
    try:
        with resumable_folder(out, _manifest(plan), JOB_FILE) as folder:
            if folder is None:
                return _finished(out / subject.file, hosted.served_name)
            data = subject.read()
            done = work(data, plan, folder)
    except Left as left:
        return {"output": str(out), "open": True, "job": str(left)}
    return {"output": str(out), "finished": False, **data.counts, **done}


def preview(training: TrainingSet, model: str, count: int, settings: FinetuneSettings) -> str:
    """Return the first rows as the host gets them: it learns the last message of each."""
    policy = training.policy(model, settings)
    if settings.objective == RA_DPO:
        pairs = islice(training_preferences(training, policy, settings), count)
        return "\n".join(f"── {name}\n{dumps(line).decode()}" for name, line in pairs)
    shown = training.messages(policy, training.learnt(policy, settings)[:count], settings)
    return "\n".join(
        f"── {example.id}: about {estimate(messages):,} tokens\n{dumps({'messages': messages}).decode()}"
        for example, messages in shown
    )


def _plan(subject: HostedTask, model: str, hosted: HostedSettings) -> HostedPlan:
    settings, base = subject.settings, model.removeprefix(PREFIX)
    host = find_provider(hosted.host or USUAL)
    environment = "" if hosted.host else os.environ.get(_WHERE, "")
    url = (hosted.base_url or environment or host.base_url).rstrip("/")
    if not base:
        raise ConfigError(f"--model {PREFIX}: which? name the host's base model behind the colon")
    if hosted.max_spend and not hosted.price:
        raise ConfigError(f"--max-spend {hosted.max_spend:g}: say what tokens cost, with --price-per-mtok")
    if not url:
        raise ConfigError(f"--host {host.name} has no address of its own; name yours with --base-url")
    epochs = epochs_of(subject)
    if subject.method == DPO and not host.dpo:
        raise ConfigError(
            f"--objective ra-dpo: host {host.name} is not known to train by DPO; use --objective likelihood, or"
            " --render-only to write the pairs"
        )
    given = read_hyperparameters(hosted.hyperparameters)
    hyperparameters = {"n_epochs": epochs, **subject.hyperparameters, **given}
    if settings.learning_rate and not host.learning_rate:
        remedy = "say --hyperparameter learning_rate_multiplier=X, which multiplies the host's own rate"
        raise ConfigError(f"--learning-rate: host {host.name} takes no rate; {remedy}")
    if settings.learning_rate:
        hyperparameters[host.learning_rate] = settings.learning_rate
    body = {**host.placed(hyperparameters, subject.method), "seed": settings.seed % _SEEDS, **host.extra_body}
    return HostedPlan(subject, base, host, url, epochs, body, hosted)


def epochs_of(subject: HostedTask) -> int:
    """Return the passes over the rows that are asked for."""
    return int(subject.settings.epochs) or _EPOCHS


def _manifest(plan: HostedPlan) -> RunManifest:
    manifest = plan.subject.manifest
    there = {"host": plan.host.name, "base_url": plan.url, "request": plan.body}
    return RunManifest(manifest.command, manifest.inputs, {**manifest.settings, **there})


def _trained(data: HostedData, plan: HostedPlan, folder: Path) -> dict[str, Any]:
    """Fill `folder` with what there is of a model that the host has trained, and return its figures."""
    training_file = plan.write_files(data, folder)
    order = JobSpec(
        plan.base, training_file.training, training_file.validation if plan.host.validation else None, plan.body
    )
    client = plan.client
    if read_job_record(folder) is None and not plan.hosted.job:
        _agree(plan, training_file, _shutdown(client, plan.base))
    ticket = begin(order, folder)
    if plan.hosted.job:
        ticket = adopt(client, ticket, folder, plan.hosted.job)
    elif plan.hosted.again:
        ticket = _anew(plan, training_file, ticket)
    ticket = submit(client, order, ticket, folder)
    if not plan.hosted.wait:
        console.note(f"job {ticket.job} goes on at {plan.url}; without --no-wait the same command waits for it")
        raise Left(ticket.job)
    job = follow_job(client, ticket.job)
    curve = metrics_of(client, job)
    if curve:
        with whole_file(folder / METRICS) as temporary:
            temporary.write_bytes(b"".join(map(dumps, curve)))
    usage = {
        "estimated tokens": training_file.tokens * plan.epochs,
        "trained tokens": job.trained_tokens,
        "job": job.id,
    }
    figures = {**training_file.counts, **usage}
    _remember(plan, folder, data, model_of(client, job), figures)
    return figures


def _untouched(data: HostedData, plan: HostedPlan, folder: Path) -> dict[str, Any]:
    """Fill `folder` with the card by which the host's base is asked as it is; nothing is sent."""
    _remember(plan, folder, data, plan.base, {"job": ""})
    return {"job": ""}


def _remember(plan: HostedPlan, folder: Path, data: HostedData, trained: str, figures: Mapping[str, Any]) -> None:
    """Write the card, and say what is still to be done before the model can be asked."""
    deployed = plan.host.deployment and bool(figures["job"])
    name = plan.hosted.served_name or ("" if deployed else trained)
    there = RemoteModel(name, plan.url, plan.host.name, figures["job"], trained)
    versions = {package: version(package) for package in _VERSIONS}
    description = data.description(there, {**figures, "request": plan.body, "versions": versions})
    write_json(folder / plan.subject.file, description)
    if not name:
        what = trained or f"what job {figures['job']} made"
        console.warn(f"{what} must be deployed at {plan.url}; then run `irlhf jobs deployed POLICY NAME`")


def _finished(file: Path, served_name: str) -> dict[str, Any]:
    """Return what there is to say of a model that is complete, with the name under which it is deployed now."""
    tree = read_json(file)
    if served_name and tree.get(HOSTED, {}).get("model") != served_name:
        write_json(file, {**tree, HOSTED: {**tree[HOSTED], "model": served_name}})
        console.note(f"{file}: the model is asked for as {served_name} from now on")
    return {"output": str(file.parent), "finished": True}


def _agree(plan: HostedPlan, training_file: TrainingFile, doubts: str) -> None:
    """Say what it comes to, and raise ConfigError where that is too much, or unless somebody says yes."""
    cost, most = plan.hosted.price * training_file.tokens * plan.epochs / _MILLION, plan.hosted.max_spend
    if most and cost > most:
        raise ConfigError(f"this comes to about {cost:,.2f}, more than --max-spend leaves ({most:,.2f}); not submitted")
    price = _price(plan, training_file) + doubts
    if plan.hosted.yes:
        console.note(price)
        return
    if not at_a_terminal():
        raise ConfigError(f"this costs money ({price}); --yes submits it, --dry-run does not")
    if not _confirmed(f"{price}\nsubmit it to {plan.url}?"):
        raise ConfigError("nothing was submitted")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort as stopped:
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stopped
        return False  # stdin has ended


def at_a_terminal() -> bool:
    """Return whether somebody can be asked."""
    return sys.stdin.isatty()


def _price(plan: HostedPlan, training_file: TrainingFile) -> str:
    tokens = training_file.tokens * plan.epochs
    count = training_file.counts["training file"]
    rows = f"{count:,} rows of about {training_file.tokens:,} tokens (estimated, {_MARGIN})"
    price = plan.hosted.price
    cost = f"about {price * tokens / _MILLION:,.2f}" if price else "unknown here (--price-per-mtok tells)"
    return f"{rows} × {plan.epochs} epochs = {tokens:,} tokens to pay for; price: {cost}"


def _shutdown(client: FineTuningClient, base: str) -> str:
    """Return a doubt about a base that is shut down soon. Raises ConfigError where it is already."""
    model = client.model(base)
    if isinstance(model, ApiFailure):
        if model.kind in (FailureKind.UNAUTHORIZED, FailureKind.HTML_PAGE, FailureKind.UNREACHABLE):
            raise client.error(model)
        return ""
    try:
        ends = date.fromisoformat(model.shutdown_date or "")
    except ValueError:
        return ""
    if ends <= date.today():
        raise ConfigError(f"{client.url} shut {base} down on {ends}; name another base with --model")
    if ends - date.today() > _SOON:
        return ""
    console.warn(f"{base} and what is trained from it will be shut down on {ends}")
    return f"; it can be asked until {ends}"


def _anew(plan: HostedPlan, training_file: TrainingFile, ticket: JobRecord) -> JobRecord:
    renewed = again(plan.client, ticket)
    if renewed != ticket:
        _agree(plan, training_file, "")
    return renewed


def _tried(plan: HostedPlan, out: Path) -> dict[str, Any]:
    """Do all but ask the host, and leave nothing behind."""
    data = plan.subject.read()
    if plan.subject.untouched:
        console.note(f"nothing is trained, so nothing is to be paid for; nothing was sent to {plan.url}")
        return {"output": str(out), "open": True}
    with tempfile.TemporaryDirectory() as folder:
        training_file = plan.write_files(data, Path(folder))
    console.note(f"{_price(plan, training_file)}; nothing was sent to {plan.url}")
    return {
        "output": str(out),
        "open": True,
        "tokens": training_file.tokens,
        "epochs": plan.epochs,
        **training_file.counts,
    }
