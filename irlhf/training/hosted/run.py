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
from irlhf.io.resumable import PARTIAL, RunManifest, beside, resumable_folder
from irlhf.openai_api.fine_tuning import FineTuningClient, patient
from irlhf.openai_api.providers import DPO, USUAL, Provider, find_provider
from irlhf.openai_api.responses import NOBODY, PAGE, ApiError
from irlhf.policy.policy_file import METRICS
from irlhf.policy.remote_model import HOSTED_KEY as HOSTED
from irlhf.policy.remote_model import PREFIX, RemoteModel
from irlhf.training.hosted.job_monitor import DONE, follow_job, metrics_of, model_of
from irlhf.training.hosted.job_submission import (
    DEAD,
    JOB_FILE,
    JobRecord,
    JobSpec,
    adopt,
    again,
    begin,
    find,
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
    def desk(self) -> FineTuningClient:
        """The host."""
        return FineTuningClient(self.host, self.url, self.hosted.api_key_env)

    def sheet(self, lesson: HostedData, folder: Path) -> TrainingFile:
        """Write the files for the host, and say what is left out."""
        context = self.subject.settings.context
        sheet = write_training_file(lesson, folder, context, self.host)
        if sheet.counts[LEFT_OUT]:
            console.warn(f"{sheet.counts[LEFT_OUT]:,} rows {LEFT_OUT} ({context:,} tokens, --context)")
        if sheet.counts[SHARED]:
            console.warn(f"{sheet.counts[SHARED]:,} {SHARED}")
        if sheet.counts[EARLIER] and not self.host.weights:
            told = f"host {self.host.name} learns those as well, for all we know"
            console.warn(f"{sheet.counts[EARLIER]:,} {EARLIER} of the conversation: {told}")
        return sheet


class Left(Exception):
    """The job goes on, and nobody waits for it."""


def finetune(subject: HostedTask, out: Path, model: str, hosted: HostedSettings) -> dict[str, Any]:
    """Fill a folder with all but the weights, which the host keeps; return what was done."""
    plan = _plan(subject, model, hosted)
    if hosted.cancel:
        return _cancel(plan, out)
    if console.PROCESSES > 1:
        raise ConfigError("a host is asked by one process; start irlhf without torchrun")
    if STREAM in subject.card.inputs.values():
        raise ConfigError("a job is found again by its rows, and stdin cannot be read again; name a file")
    if hosted.dry_run:
        return _tried(plan, out)
    work = _untouched if subject.untouched else _trained
    try:
        with resumable_folder(out, _manifest(plan), JOB_FILE) as folder:
            if folder is None:
                return _finished(out / subject.file, hosted.served_name)
            lesson = subject.read()
            done = work(lesson, plan, folder)
    except Left as left:
        return {"output": str(out), "open": True, "job": str(left)}
    return {"output": str(out), "finished": False, **lesson.counts, **done}


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
    epochs = int(settings.epochs) or _EPOCHS
    if subject.method == DPO and not host.dpo:
        raise ConfigError(
            f"--objective ra-dpo: host {host.name} is not known to train by DPO; use --objective likelihood, or"
            " --render-only to write the pairs"
        )
    given = read_hyperparameters(hosted.hyperparameters)
    hyperparameters = {"n_epochs": epochs, **subject.hyperparameters, **given}
    if settings.learning_rate and not host.learning_rate:
        told = "say --hyperparameter learning_rate_multiplier=X, which multiplies the host's own rate"
        raise ConfigError(f"--learning-rate: host {host.name} takes no rate; {told}")
    if settings.learning_rate:
        hyperparameters[host.learning_rate] = settings.learning_rate
    extra = read_json(Path(hosted.extra_body)) if hosted.extra_body else {}
    body = {**host.placed(hyperparameters, subject.method), "seed": settings.seed % _SEEDS, **host.extra_body, **extra}
    return HostedPlan(subject, base, host, url, epochs, body, hosted)


def _manifest(plan: HostedPlan) -> RunManifest:
    card = plan.subject.card
    there = {"host": plan.host.name, "base_url": plan.url, "request": plan.body}
    return RunManifest(card.command, card.inputs, {**card.settings, **there})


def _trained(lesson: HostedData, plan: HostedPlan, folder: Path) -> dict[str, Any]:
    """Fill `folder` with what there is of a model that the host has trained, and return its figures."""
    sheet = plan.sheet(lesson, folder)
    order = JobSpec(plan.base, sheet.training, sheet.validation if plan.host.validation else None, plan.body)
    desk = plan.desk
    if read_job_record(folder) is None and not plan.hosted.job:
        _agree(plan, sheet, _shutdown(desk, plan.base))
    ticket = begin(order, folder)
    if plan.hosted.job:
        ticket = adopt(desk, ticket, folder, plan.hosted.job)
    elif plan.hosted.again:
        ticket = _anew(plan, sheet, ticket)
    ticket = submit(desk, order, ticket, folder)
    if not plan.hosted.wait:
        console.note(f"job {ticket.job} goes on at {plan.url}; without --no-wait the same command waits for it")
        raise Left(ticket.job)
    job = follow_job(desk, ticket.job)
    curve = metrics_of(desk, job)
    if curve:
        with whole_file(folder / METRICS) as temporary:
            temporary.write_bytes(b"".join(map(dumps, curve)))
    told = {"estimated tokens": sheet.tokens * plan.epochs, "trained tokens": job.trained_tokens, "job": job.id}
    figures = {**sheet.counts, **told}
    _remember(plan, folder, lesson, model_of(desk, job), figures)
    return figures


def _untouched(lesson: HostedData, plan: HostedPlan, folder: Path) -> dict[str, Any]:
    """Fill `folder` with the card by which the host's base is asked as it is; nothing is sent."""
    _remember(plan, folder, lesson, plan.base, {"job": ""})
    return {"job": ""}


def _remember(plan: HostedPlan, folder: Path, lesson: HostedData, trained: str, figures: Mapping[str, Any]) -> None:
    """Write the card, and say what is still to be done before the model can be asked."""
    deployed = plan.host.deployment and bool(figures["job"])
    name = plan.hosted.served_name or ("" if deployed else trained)
    there = RemoteModel(name, plan.url, plan.host.name, figures["job"], trained)
    versions = {one: version(one) for one in _VERSIONS}
    card = lesson.card(there, {**figures, "request": plan.body, "versions": versions})
    write_json(folder / plan.subject.file, card)
    if not name:
        what = trained or f"what job {figures['job']} made"
        console.warn(f"{what} must be deployed at {plan.url}; then tell its name with --served-name NAME, same command")


def _finished(card: Path, served_name: str) -> dict[str, Any]:
    """Return what there is to say of a model that is complete, with the name under which it is deployed now."""
    tree = read_json(card)
    if served_name and tree.get(HOSTED, {}).get("model") != served_name:
        write_json(card, {**tree, HOSTED: {**tree[HOSTED], "model": served_name}})
        console.note(f"{card}: the model is asked for as {served_name} from now on")
    return {"output": str(card.parent), "finished": True}


def _agree(plan: HostedPlan, sheet: TrainingFile, doubts: str) -> None:
    """Say what it comes to, and raise ConfigError where that is too much, or unless somebody says yes."""
    cost, most = plan.hosted.price * sheet.tokens * plan.epochs / _MILLION, plan.hosted.max_spend
    if most and cost > most:
        raise ConfigError(f"this comes to about {cost:,.2f}, more than --max-spend leaves ({most:,.2f}); not submitted")
    told = _price(plan, sheet) + doubts
    if plan.hosted.yes:
        console.note(told)
        return
    if not at_a_terminal():
        raise ConfigError(f"this costs money ({told}); --yes submits it, --dry-run does not")
    if not _confirmed(f"{told}\nsubmit it to {plan.url}?"):
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


def _price(plan: HostedPlan, sheet: TrainingFile) -> str:
    tokens = sheet.tokens * plan.epochs
    rows = f"{sheet.counts['training file']:,} rows of about {sheet.tokens:,} tokens (estimated, {_MARGIN})"
    price = plan.hosted.price
    cost = f"about {price * tokens / _MILLION:,.2f}" if price else "unknown here (--price-per-mtok tells)"
    return f"{rows} × {plan.epochs} epochs = {tokens:,} tokens to pay for; price: {cost}"


def _shutdown(desk: FineTuningClient, base: str) -> str:
    """Return a doubt about a base that is shut down soon. Raises ConfigError where it is already."""
    card = patient(lambda: desk.model(base))
    if isinstance(card, ApiError):
        if card.status in (401, PAGE, NOBODY):
            desk.fail(card)
        return ""
    try:
        ends = date.fromisoformat(card.shutdown_date or "")
    except ValueError:
        return ""
    if ends <= date.today():
        raise ConfigError(f"{desk.url} shut {base} down on {ends}; name another base with --model")
    if ends - date.today() > _SOON:
        return ""
    console.warn(f"{base} and what is trained from it will be shut down on {ends}")
    return f"; it can be asked until {ends}"


def _anew(plan: HostedPlan, sheet: TrainingFile, ticket: JobRecord) -> JobRecord:
    renewed = again(plan.desk, ticket)
    if renewed != ticket:
        _agree(plan, sheet, "")
    return renewed


def _tried(plan: HostedPlan, out: Path) -> dict[str, Any]:
    """Do all but ask the host, and leave nothing behind."""
    lesson = plan.subject.read()
    if plan.subject.untouched:
        console.note(f"nothing is trained, so nothing is to be paid for; nothing was sent to {plan.url}")
        return {"output": str(out), "open": True}
    with tempfile.TemporaryDirectory() as folder:
        sheet = plan.sheet(lesson, Path(folder))
    console.note(f"{_price(plan, sheet)}; nothing was sent to {plan.url}")
    return {"output": str(out), "open": True, "tokens": sheet.tokens, "epochs": plan.epochs, **sheet.counts}


def _cancel(plan: HostedPlan, out: Path) -> dict[str, Any]:
    """Cancel the job of an output."""
    folder = beside(out, PARTIAL)
    ticket = read_job_record(folder) if folder.is_dir() else None
    if ticket is None:
        raise ConfigError(f"{out}: no job of it is under way, so there is nothing to cancel")
    desk = plan.desk
    job = find(desk, ticket)
    if job is None:
        raise ConfigError(f"{out}: the host has no job of it, so there is nothing to cancel")
    if job.status in DEAD or job.status == DONE:
        raise ConfigError(f"job {job.id} is over: {job.status}")
    found = patient(lambda: desk.cancel(job.id))
    if isinstance(found, ApiError):
        desk.fail(found, f"job {job.id} was not cancelled: ")
    console.note(f"job {job.id} is {found.status}; --again submits it anew, and pays for it")
    return {"output": str(out), "open": True, "job": job.id}
