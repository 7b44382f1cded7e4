"""List, inspect, cancel, resubmit and adopt the fine-tuning jobs of output folders.

<output>.partial/job.json   a job in progress
<output>.run.json           the command that started it: inputs, settings, host and request
<output>/policy.json        or reward.json: a hosted model, and its job
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.io.files import read_json, write_json
from irlhf.io.manifest import Manifest, manifest_path, read_manifest
from irlhf.io.resumable import PARTIAL, beside
from irlhf.openai_api.failures import ApiFailure
from irlhf.openai_api.fine_tuning import FineTuningClient, Job
from irlhf.openai_api.providers import find_provider
from irlhf.policy.policy_file import FILE
from irlhf.policy.remote_model import HOSTED_KEY, REWARD_FILE, RemoteModel, read_remote_model
from irlhf.training.hosted.job_monitor import DONE, JobMonitor, model_of
from irlhf.training.hosted.job_submission import DEAD, JOB_FILE, JobRecord, find, read_job_record
from irlhf.training.hosted.run import HostedPlan, epochs_of, train
from irlhf.training.hosted.settings import PREFIX, HostedSettings
from irlhf.training.hosted.task import HostedTask, policy, reward_model
from irlhf.training.settings import FinetuneSettings, RewardModelSettings

OPEN, COMPLETE, UNKNOWN = "open", "complete", "not known"
_DEPTHS = ("", "*/", "*/*/")  # such as online/round-1/policy
_EVENTS = 3  # shown with a status


def recorded_jobs(folder: Path) -> list[dict[str, Any]]:
    """Return the jobs recorded in the files of a folder; sends no request."""
    rows = []
    for depth in _DEPTHS:
        for path in sorted(folder.glob(f"{depth}*{PARTIAL}/{JOB_FILE}")):
            output = path.parent.with_name(path.parent.name.removesuffix(PARTIAL))
            record = read_job_record(path.parent)
            row = {"output": str(output), "job": record.job if record else "", "state": OPEN}
            rows.append({**row, "base_url": str(_manifest(output).settings["base_url"])})
        for name in (FILE, REWARD_FILE):
            for path in sorted(folder.glob(f"{depth}*/{name}")):
                remote = _remote_model(path)
                if remote and remote.job and not path.parent.is_symlink():
                    row = {"output": str(path.parent), "job": remote.job, "state": COMPLETE}
                    rows.append({**row, "base_url": remote.base_url})
    return rows


def job_status(output: Path, hosted: HostedSettings) -> dict[str, Any]:
    """Return the status of the job of an output from its provider. Raises ConfigError and BackendError."""
    client, job = _job(output, hosted)
    if job is None:
        return {"output": str(output), "job": "", "status": UNKNOWN, "base_url": client.url}
    status = {"output": str(output), "job": job.id, "status": job.status, "base_url": client.url}
    events = [event.message for event in JobMonitor(client, job.id).fresh()[-_EVENTS:]]
    model = model_of(client, job) if job.status == DONE else ""
    return {**status, "model": model, "problem": job.problem, "events": events}


def cancel_job(output: Path, hosted: HostedSettings) -> dict[str, Any]:
    """Cancel the job of an output. Raises ConfigError if no job can be cancelled."""
    _in_progress(output)
    client, job = _job(output, hosted)
    if job is None:
        raise ConfigError(f"{output}: the provider has no job for this output; nothing to cancel")
    if job.status in DEAD or job.status == DONE:
        raise ConfigError(f"job {job.id} has already ended ({job.status}); nothing to cancel")
    cancelled = client.cancel(job.id)
    if isinstance(cancelled, ApiFailure):
        raise client.error(cancelled, f"job {job.id} was not cancelled")
    console.note(
        f"job {job.id} is {cancelled.status}; submit (and pay for) a new job with `irlhf jobs resubmit {output}`"
    )
    return {"output": str(output), "open": True, "job": job.id}


def resubmit_job(output: Path, hosted: HostedSettings) -> dict[str, Any]:
    """Submit a new job for an output whose job failed or was cancelled, and wait for it. This costs money.

    Raises ConfigError if an earlier job may still succeed.
    """
    _in_progress(output)
    return train(_plan(output, replace(hosted, again=True)), output)


def adopt_job(output: Path, job: str, hosted: HostedSettings) -> dict[str, Any]:
    """Continue with a job that exists at the provider. Raises ConfigError if it trains on another file."""
    _in_progress(output)
    return train(_plan(output, replace(hosted, job=job)), output)


def record_deployment(output: Path, name: str) -> dict[str, Any]:
    """Record the name under which a trained model is deployed at its host. Raises ConfigError."""
    path = next((output / file for file in (FILE, REWARD_FILE) if (output / file).is_file()), None)
    tree = read_json(path) if path else {}
    if path is None or not tree.get(HOSTED_KEY):
        raise ConfigError(f"{output}: this folder holds no hosted model")
    write_json(path, {**tree, HOSTED_KEY: {**tree[HOSTED_KEY], "model": name}})
    console.note(f"{path}: the model name for sampling is now {name}")
    return {"output": str(output), "open": True, "model": name}


def _job(output: Path, hosted: HostedSettings) -> tuple[FineTuningClient, Job | None]:
    """Return the client of an output, and its job or None."""
    remote = next(filter(None, map(_remote_model, _descriptions(output))), None)
    if remote is None:
        _, record = _in_progress(output)
        settings = _manifest(output).settings
        client = _client(str(settings["host"]), str(settings["base_url"]), hosted)
        return client, find(client, record)
    client = _client(remote.host, remote.base_url, hosted)
    job = client.job(remote.job)
    if isinstance(job, ApiFailure):
        raise client.error(job, f"job {remote.job}")
    return client, job


def _client(host: str, url: str, hosted: HostedSettings) -> FineTuningClient:
    return FineTuningClient(find_provider(hosted.host or host), url, hosted.api_key_env)


def _in_progress(output: Path) -> tuple[Path, JobRecord]:
    """Return the folder of a job in progress, and its record. Raises ConfigError if there is none."""
    folder = beside(output, PARTIAL)
    record = read_job_record(folder) if folder.is_dir() else None
    if record is None:
        raise ConfigError(f"{output}: no job in progress; `irlhf jobs list` shows the outputs with a job")
    return folder, record


def _plan(output: Path, hosted: HostedSettings) -> HostedPlan:
    """Return the plan recorded in the manifest of an output."""
    settings = _manifest(output).settings
    task = _task(output)
    base = str(settings["model"]).removeprefix(PREFIX)
    host = find_provider(hosted.host or str(settings["host"]))
    return HostedPlan(task, base, host, str(settings["base_url"]), epochs_of(task), settings["request"], hosted)


def _task(output: Path) -> HostedTask:
    manifest = _manifest(output)
    settings, inputs, model = manifest.settings, manifest.inputs, str(manifest.settings["model"])
    if "pairs" in inputs:
        return reward_model(
            Path(inputs["pairs"].path), model, RewardModelSettings(**_own(RewardModelSettings, settings))
        )
    return policy(Path(inputs["examples"].path), model, FinetuneSettings(**_own(FinetuneSettings, settings)))


def _own(kind: type[FinetuneSettings | RewardModelSettings], settings: dict[str, Any]) -> dict[str, Any]:
    names = {setting.name for setting in fields(kind)}
    return {name: value for name, value in settings.items() if name in names}


def _manifest(output: Path) -> Manifest:
    manifest = read_manifest(output)
    if "request" not in manifest.settings:
        raise DataError(f"{manifest_path(output)}: this run is not hosted")
    return manifest


def _descriptions(output: Path) -> Iterator[Path]:
    yield from (output / name for name in (FILE, REWARD_FILE) if (output / name).is_file())


def _remote_model(path: Path) -> RemoteModel | None:
    try:
        return read_remote_model(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); fine-tune again") from error
