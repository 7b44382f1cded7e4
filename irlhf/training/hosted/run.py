"""Fine-tune with a provider that supports OpenAI's fine-tuning API, on the same rows as local training."""

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import typer

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.example import dumps
from irlhf.io.files import STREAM, read_json, whole_file, write_json
from irlhf.io.resumable import RunManifest, outcome, resumable_folder
from irlhf.openai_api.failures import ApiFailure, FailureKind
from irlhf.openai_api.fine_tuning import FineTuningClient
from irlhf.openai_api.providers import DPO, USUAL, Provider, find_provider
from irlhf.openai_api.token_count import TokenCounter, token_counter
from irlhf.policy.policy_file import METRICS
from irlhf.policy.remote_model import HOSTED_KEY as HOSTED
from irlhf.policy.remote_model import RemoteModel
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
from irlhf.training.hosted.settings import PREFIX, HostedSettings, read_hyperparameters
from irlhf.training.hosted.task import HostedData, HostedTask
from irlhf.training.hosted.training_file import EARLIER, LEFT_OUT, SHARED, TrainingFile, estimates, write_training_file
from irlhf.training.preference_file import training_preferences
from irlhf.training.settings import RA_DPO, FinetuneSettings
from irlhf.training.training_set import TrainingSet

_EPOCHS = 2
_SEEDS = 2**31
_SOON = timedelta(days=90)
_MILLION = 1e6
_URL_VARIABLE = "OPENAI_BASE_URL"
_VERSIONS = ("irlhf", "openai")


@dataclass(frozen=True)
class HostedPlan:
    """A hosted training: task, base model, provider and request."""

    subject: HostedTask
    base: str  # without the prefix
    host: Provider
    url: str
    epochs: int
    body: dict[str, Any]  # of the request for a job, without model and files
    hosted: HostedSettings

    @property
    def client(self) -> FineTuningClient:
        """The client of the fine-tuning API."""
        return FineTuningClient(self.host, self.url, self.hosted.api_key_env)

    @cached_property
    def count(self) -> TokenCounter:
        """Counts the tokens of the training file."""
        return token_counter(self.base)

    def write_files(self, data: HostedData, folder: Path) -> TrainingFile:
        """Write the training files, and warn about skipped rows."""
        context = self.subject.settings.context
        training_file = write_training_file(data, folder, context, self.host, self.count)
        if training_file.counts[LEFT_OUT]:
            console.warn(f"{training_file.counts[LEFT_OUT]:,} rows {LEFT_OUT} ({context:,} tokens, --context)")
        if training_file.counts[SHARED]:
            console.warn(f"{training_file.counts[SHARED]:,} {SHARED}")
        if training_file.counts[EARLIER] and not self.host.weights:
            problem = f"host {self.host.name} may train on these as well"
            console.warn(f"{training_file.counts[EARLIER]:,} {EARLIER} in the conversation: {problem}")
        return training_file


class _NotWaiting(Exception):
    """The job continues without waiting for it (--no-wait)."""


def finetune(subject: HostedTask, out: Path, model: str, hosted: HostedSettings) -> dict[str, Any]:
    """Fine-tune with a provider, which keeps the weights, and return a summary."""
    return train(_plan(subject, model, hosted), out)


def train(plan: HostedPlan, out: Path) -> dict[str, Any]:
    """Run a planned training and return a summary."""
    subject, hosted = plan.subject, plan.hosted
    if console.PROCESSES > 1:
        raise ConfigError("hosted training runs in one process; run irlhf without torchrun")
    if STREAM in subject.manifest.inputs.values():
        raise ConfigError("hosted training cannot read rows from stdin, because it must be able to resume; use a file")
    if hosted.dry_run:
        return _dry_run(plan, out)
    work = _describe_base if subject.untouched else _run_job
    try:
        with resumable_folder(out, _manifest(plan), JOB_FILE) as folder:
            if folder is None:
                return _complete(out / subject.file, hosted.served_name)
            data = subject.read()
            done = work(data, plan, folder)
    except _NotWaiting as running:
        return {"output": str(out), "finished": False, "open": True, "job": str(running)}
    return {**outcome(out), **data.counts, **done}


def preview(training: TrainingSet, model: str, count: int, settings: FinetuneSettings) -> str:
    """Return the first rows of the training file; the provider trains on the last message of each."""
    policy = training.policy(model, settings)
    if settings.objective == RA_DPO:
        pairs = islice(training_preferences(training, policy, settings), count)
        return "\n".join(f"── {name}\n{dumps(line).decode()}" for name, line in pairs)
    training.warn_of_cut()
    shown = training.lines(policy, training.learnt(policy, settings)[:count], settings)
    counter = token_counter(model.removeprefix(PREFIX))
    return "\n".join(
        f"── {example.id}: about {sum(estimates(line, counter)):,} tokens\n{dumps(line).decode()}"
        for example, line in shown
    )


def _plan(subject: HostedTask, model: str, hosted: HostedSettings) -> HostedPlan:
    settings, base = subject.settings, model.removeprefix(PREFIX)
    host = find_provider(hosted.host or USUAL)
    environment = "" if hosted.host else os.environ.get(_URL_VARIABLE, "")
    url = (hosted.base_url or environment or host.base_url).rstrip("/")
    if not base:
        raise ConfigError(f"--model {PREFIX}: missing model name; add the provider's base model after the colon")
    if hosted.max_spend and not hosted.price:
        raise ConfigError(f"--max-spend {hosted.max_spend:g} needs the price of tokens; add --price-per-mtok")
    if not url:
        raise ConfigError(f"--host {host.name} has no default URL; add --base-url")
    epochs = epochs_of(subject)
    if subject.method == DPO and not host.dpo:
        raise ConfigError(
            f"--objective ra-dpo: host {host.name} does not support DPO; use --objective likelihood, or"
            " --render-only to write the pairs"
        )
    given = read_hyperparameters(hosted.hyperparameters)
    hyperparameters = {"n_epochs": epochs, **subject.hyperparameters, **given}
    if settings.learning_rate and not host.learning_rate:
        remedy = "use --hyperparameter learning_rate_multiplier=X, a factor of the default rate"
        raise ConfigError(f"--learning-rate: host {host.name} does not accept a rate; {remedy}")
    if settings.learning_rate:
        hyperparameters[host.learning_rate] = settings.learning_rate
    body = {**host.placed(hyperparameters, subject.method), "seed": settings.seed % _SEEDS, **host.extra_body}
    return HostedPlan(subject, base, host, url, epochs, body, hosted)


def epochs_of(subject: HostedTask) -> int:
    """Return the number of passes over the rows."""
    return int(subject.settings.epochs) or _EPOCHS


def _manifest(plan: HostedPlan) -> RunManifest:
    manifest = plan.subject.manifest
    remote = {"host": plan.host.name, "base_url": plan.url, "request": plan.body}
    return RunManifest(manifest.command, manifest.inputs, {**manifest.settings, **remote})


def _run_job(data: HostedData, plan: HostedPlan, folder: Path) -> dict[str, Any]:
    """Submit or resume the job, wait for it, fill `folder` and return the figures."""
    training_file = plan.write_files(data, folder)
    spec = JobSpec(
        plan.base, training_file.training, training_file.validation if plan.host.validation else None, plan.body
    )
    client = plan.client
    if read_job_record(folder) is None and not plan.hosted.job:
        _confirm_price(plan, training_file, _shutdown(client, plan.base))
    record = begin(spec, folder)
    if plan.hosted.job:
        record = adopt(client, record, folder, plan.hosted.job)
    elif plan.hosted.again:
        record = _new_attempt(plan, training_file, record)
    record = submit(client, spec, record, folder)
    if not plan.hosted.wait:
        console.note(f"job {record.job} is running at {plan.url}; repeat the command without --no-wait to wait for it")
        raise _NotWaiting(record.job)
    job = follow_job(client, record.job)
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
    _write_description(plan, folder, data, model_of(client, job), figures)
    return figures


def _describe_base(data: HostedData, plan: HostedPlan, folder: Path) -> dict[str, Any]:
    """Fill `folder` with the description of the untrained base model; sends no request."""
    _write_description(plan, folder, data, plan.base, {"job": ""})
    return {"job": ""}


def _write_description(
    plan: HostedPlan, folder: Path, data: HostedData, trained: str, figures: Mapping[str, Any]
) -> None:
    """Write policy.json or reward.json, and warn if the model must be deployed first."""
    deployed = plan.host.deployment and bool(figures["job"])
    name = plan.hosted.served_name or ("" if deployed else trained)
    remote = RemoteModel(name, plan.url, plan.host.name, figures["job"], trained)
    versions = {package: version(package) for package in _VERSIONS}
    description = data.description(remote, {**figures, "request": plan.body, "versions": versions})
    write_json(folder / plan.subject.file, description)
    if not name:
        what = trained or f"the model of job {figures['job']}"
        console.warn(
            f"{what} must be deployed at {plan.url} before sampling; then run `irlhf jobs deployed POLICY NAME`"
        )


def _complete(file: Path, served_name: str) -> dict[str, Any]:
    """Return the summary of a complete run, and record a new deployment name."""
    tree = read_json(file)
    if served_name and tree.get(HOSTED, {}).get("model") != served_name:
        write_json(file, {**tree, HOSTED: {**tree[HOSTED], "model": served_name}})
        console.note(f"{file}: the model name for sampling is now {served_name}")
    return outcome(file.parent, already=True)


def _confirm_price(plan: HostedPlan, training_file: TrainingFile, notice: str) -> None:
    """Report the price. Raises ConfigError if it exceeds --max-spend or if the user does not confirm."""
    _check_spend(plan, training_file)
    price = _price(plan, training_file) + notice
    if plan.hosted.yes:
        console.note(price)
        return
    if not at_a_terminal():
        raise ConfigError(f"this costs money ({price}); confirm with --yes, or use --dry-run")
    if not _confirmed(f"{price}\nSubmit to {plan.url}?"):
        raise ConfigError("nothing was submitted")


def _check_spend(plan: HostedPlan, training_file: TrainingFile) -> None:
    """Raise ConfigError if the price exceeds --max-spend."""
    cost, most = plan.hosted.price * training_file.tokens * plan.epochs / _MILLION, plan.hosted.max_spend
    if most and cost > most:
        raise ConfigError(f"the job costs about {cost:,.2f}, more than --max-spend {most:,.2f}; not submitted")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort as stopped:
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stopped
        return False  # stdin has ended


def at_a_terminal() -> bool:
    """Return whether stdin is a terminal."""
    return sys.stdin.isatty()


def _price(plan: HostedPlan, training_file: TrainingFile) -> str:
    tokens = training_file.tokens * plan.epochs
    count = training_file.counts["training file"]
    rows = f"{count:,} rows of about {training_file.tokens:,} tokens ({plan.count.accuracy})"
    price = plan.hosted.price
    cost = f"about {price * tokens / _MILLION:,.2f}" if price else "unknown (set --price-per-mtok)"
    return f"{rows} × {plan.epochs} epochs = {tokens:,} billed tokens; price: {cost}"


def _shutdown(client: FineTuningClient, base: str) -> str:
    """Return a notice about a base that is shut down soon, or "". Raises ConfigError if it is shut down already."""
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
        raise ConfigError(f"{client.url} shut {base} down on {ends}; choose another base with --model")
    if ends - date.today() > _SOON:
        return ""
    console.warn(f"{base} and its fine-tuned models will be shut down on {ends}")
    return f"; available until {ends}"


def _new_attempt(plan: HostedPlan, training_file: TrainingFile, record: JobRecord) -> JobRecord:
    renewed = again(plan.client, record)
    if renewed != record:
        _confirm_price(plan, training_file, "")
    return renewed


def _dry_run(plan: HostedPlan, out: Path) -> dict[str, Any]:
    """Report the price without sending a request or writing a file."""
    data = plan.subject.read()
    if plan.subject.untouched:
        console.note(f"nothing is trained, so there is no cost; nothing was sent to {plan.url}")
        return {"output": str(out), "open": True}
    with tempfile.TemporaryDirectory() as folder:
        training_file = plan.write_files(data, Path(folder))
    console.note(f"{_price(plan, training_file)}; nothing was sent to {plan.url}")
    _check_spend(plan, training_file)
    return {
        "output": str(out),
        "open": True,
        "tokens": training_file.tokens,
        "epochs": plan.epochs,
        **training_file.counts,
    }
