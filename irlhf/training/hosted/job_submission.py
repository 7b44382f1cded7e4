"""Submit exactly one job per training run, even after lost replies, crashes and restarts.

    job.json is written before a job is requested, and again once its id is known

    no request ──▶ look ──▶ upload ──▶ write `requested_at` ──▶ request ──▶ write `job`
                    ▲ └─ exists: adopted                          │
                    │                                             ├─ refused: no job, `requested_at` is reset
                    └────────── look until it is listed ◀─────────┴─ no reply, a broken one, a crash: unknown

The metadata of a job holds the digest of its JobSpec, which identifies the job. If a provider drops metadata, the
uploaded training file identifies the job. If a provider does not list jobs, the user has to check its web page.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError, DataError
from irlhf.io import files
from irlhf.io.schema import first_problem
from irlhf.openai_api.endpoint import GOES_ON
from irlhf.openai_api.failures import ApiFailure, FailureKind
from irlhf.openai_api.fine_tuning import MARK, FineTuningClient, Job, UploadedFile

JOB_FILE = "job.json"
DEAD = ("failed", "cancelled", "canceled")
CREATES = 4  # requests per run; each follows a check that the previous one created no job
PATIENCE = 60.0  # seconds within which a created job is listed
PAGES = 100
_REFUSED = (FailureKind.REFUSED, FailureKind.INVALID_REPLY)
_UNLISTED = (
    FailureKind.FORBIDDEN,
    FailureKind.MISSING,
    FailureKind.UNSUPPORTED,
    *_REFUSED,
)  # providers without a job list
_UNPROCESSED = ("pending", "running", "notRunning", "processing")  # states of a file that is still processed


@dataclass(frozen=True)
class JobSpec:
    """A job to submit."""

    model: str
    training: Path
    validation: Path | None
    body: Mapping[str, Any]  # of the request, without model, files and mark

    @property
    def paths(self) -> dict[str, Path]:
        """The paths of the files by their field in the request."""
        paths = {"training_file": self.training, "validation_file": self.validation}
        return {role: path for role, path in paths.items() if path}

    @property
    def digest(self) -> str:
        """The digest of the model, the files and the request."""
        shas = {role: files.digest(path) for role, path in self.paths.items()}
        content = json.dumps([self.model, shas, self.body], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class JobRecord:
    """The state of the job for one JobSpec, stored in job.json."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    digest: str
    attempt: int = 1
    files: Mapping[str, str] = field(default_factory=dict)  # ids at the provider, by SHA-256
    requested_at: float = 0.0  # time of a request with unknown outcome; 0 if there is none
    job: str = ""
    over: tuple[str, ...] = ()  # jobs of earlier attempts
    version: Literal[1] = 1  # of the file; irlhf 0.1 wrote none, and `asked` for `requested_at`

    @property
    def mark(self) -> str:
        """The mark in the job's metadata."""
        return self.digest if self.attempt == 1 else f"{self.digest}-{self.attempt}"

    def owns(self, job: Job) -> bool:
        """Return whether a job at the provider belongs to this record."""
        if job.mark:
            return job.mark == self.mark
        return job.training_file in self.files.values() and job.id not in self.over


_RECORD = TypeAdapter(JobRecord)


def read_job_record(folder: Path) -> JobRecord | None:
    """Return the record of a folder, or None if no job was requested. Raises DataError."""
    path = folder / JOB_FILE
    if not path.exists():
        return None
    content = files.read_json(path)
    if "version" not in content and "asked" in content:
        content["requested_at"] = content.pop("asked")
    try:
        return _RECORD.validate_python(content)
    except ValidationError as error:
        remedy = "check the provider's web page for the job, then delete the folder"
        raise DataError(f"{path}: damaged ({first_problem(error)}); {remedy}") from error


def write_job_record(folder: Path, record: JobRecord) -> JobRecord:
    """Write the record to disk and return it."""
    files.write_json(folder / JOB_FILE, asdict(record))
    return record


def begin(spec: JobSpec, folder: Path) -> JobRecord:
    """Return the record for a JobSpec, a new one if there is none. Raises ConfigError if it is for another JobSpec."""
    record = read_job_record(folder) or JobRecord(spec.digest)
    if record.digest != spec.digest:
        raise ConfigError(
            f"{folder / JOB_FILE} belongs to a job with different training rows; choose another output, or delete"
            f" {folder} to submit (and pay for) a new job"
        )
    return record


def adopt(client: FineTuningClient, record: JobRecord, folder: Path, name: str) -> JobRecord:
    """Return the record with the job `name` of the user. Raises ConfigError if it trains on another file."""
    job = client.job(name)
    if isinstance(job, ApiFailure):
        raise client.error(job, f"job {name}")
    if (job.mark and job.mark != record.mark) or (record.files and job.training_file not in record.files.values()):
        raise ConfigError(
            f"job {name} trains on another file ({job.training_file}), so it does not belong to this output"
        )
    return write_job_record(folder, replace(record, job=job.id, requested_at=0.0))


def again(client: FineTuningClient, record: JobRecord) -> JobRecord:
    """Return the record of another attempt, not yet written. Raises ConfigError if a job may still succeed."""
    if record.job:
        job = client.job(record.job)
        if isinstance(job, ApiFailure) and job.kind is not FailureKind.MISSING:
            raise client.error(job, f"job {record.job}")
        if isinstance(job, Job) and job.status not in DEAD:
            raise ConfigError(
                f"job {job.id} is {job.status}, so no new job is needed; repeat the first command to wait for it"
            )
    elif not record.requested_at:
        return record  # the previous attempt did not request a job
    elif client.host.lists and not isinstance(_look(client, record), ApiFailure):
        return record  # the outcome of the request can be looked up
    over = (*record.over, *([record.job] if record.job else []))
    return replace(record, attempt=record.attempt + 1, job="", requested_at=0.0, over=over)


def submit(client: FineTuningClient, spec: JobSpec, record: JobRecord, folder: Path) -> JobRecord:
    """Return the record with its job: an existing one, else a new one. Raises BackendError and ConfigError."""
    reason = ""
    write_job_record(folder, record)
    for attempt in range(1, CREATES + 1):
        record = _settled(client, record, folder)
        if record.job:
            return record
        record = _upload(client, spec, record, folder)
        job = _request_job(client, spec, record, folder)
        if isinstance(job, Job):
            console.note(f"submitted job {job.id}")
            return write_job_record(folder, replace(record, job=job.id, requested_at=0.0))
        reason = job.message
        record = _after_failure(client, job, record, folder)
        if attempt < CREATES and not record.requested_at:
            client.api.rest(job, attempt)
    record = _settled(client, record, folder)
    if not record.job:
        raise BackendError(f"{client.url}: no job was created in {CREATES} attempts ({reason}); later {GOES_ON}")
    return record


def find(client: FineTuningClient, record: JobRecord) -> Job | None:
    """Return the job of a record, or None. Raises BackendError and ConfigError if it cannot be determined."""
    job = client.job(record.job) if record.job else _look(client, record)
    if isinstance(job, ApiFailure):
        raise client.error(job)
    return job


def _settled(client: FineTuningClient, record: JobRecord, folder: Path) -> JobRecord:
    """Return the record with the job at the provider, or without a pending request if there certainly is no job."""
    remaining = PATIENCE - (time.time() - record.requested_at) if record.requested_at else 0.0
    remaining, wait = min(remaining, PATIENCE), 1.0  # even if the clock was set back
    job = _look(client, record)
    while job is None and remaining > 0:
        time.sleep(min(wait, remaining))
        remaining, wait = remaining - wait, wait * 2
        job = _look(client, record)
    if isinstance(job, Job):
        console.note(f"resuming job {job.id}, which already exists for this training")
        return write_job_record(folder, replace(record, job=job.id, requested_at=0.0))
    if isinstance(job, ApiFailure):
        _check_unknown(client, job, record)
        return record
    return write_job_record(folder, replace(record, requested_at=0.0)) if record.requested_at else record


def _check_unknown(client: FineTuningClient, failure: ApiFailure, record: JobRecord) -> None:
    """Raise if a job may exist that cannot be looked up."""
    no_list = failure.kind in _UNLISTED
    if not record.requested_at:
        if not no_list:
            raise client.error(failure)
        return
    problem = (
        f"{client.url}: a job may have been submitted at {time.strftime('%H:%M', time.localtime(record.requested_at))}"
    )
    if no_list:
        raise BackendError(
            f"{problem}, and this provider does not list jobs ({failure.message}); check its web page:"
            " if the job exists, run `irlhf jobs adopt POLICY ID`, else `irlhf jobs resubmit POLICY`"
        )
    raise BackendError(
        f"{problem}, and the job list cannot be read now ({failure.message}); later {GOES_ON}, after checking the list"
    )


def _look(client: FineTuningClient, record: JobRecord) -> Job | ApiFailure | None:
    """Return the job from the provider's list, None if it is not listed, or the failure to read the list."""
    if not client.host.lists:
        return ApiFailure(FailureKind.UNSUPPORTED, "according to its entry in the table of providers")
    job: Job | ApiFailure | None = None
    if client.host.metadata:
        job = _search(client, record, record.mark)
    if isinstance(job, Job) or (isinstance(job, ApiFailure) and job.kind not in _REFUSED):
        return job
    if job is None and client.host.metadata and not record.requested_at:
        return None
    # If a provider drops metadata, the job is only in the list of all jobs.
    return _search(client, record, "")


def _search(client: FineTuningClient, record: JobRecord, mark: str) -> Job | ApiFailure | None:
    """Search all pages of a list of jobs. Stops at a page without new jobs; some providers always report more."""
    seen: dict[str, Job] = {}
    after = ""
    for _ in range(PAGES):
        page = client.jobs(mark, after)
        if isinstance(page, ApiFailure):
            return page
        new = [job for job in page.data if job.id not in seen]
        seen |= {job.id: job for job in new}
        if not new or not page.has_more:
            own = [job for job in seen.values() if record.owns(job)]
            return min(own, key=lambda job: (job.status in DEAD, job.created_at or 0.0), default=None)
        after = page.data[-1].id
    return ApiFailure(FailureKind.UNSUPPORTED, f"more than {len(seen):,} jobs")


def _upload(client: FineTuningClient, spec: JobSpec, record: JobRecord, folder: Path) -> JobRecord:
    """Return the record after uploading the files; existing files are not uploaded again."""
    for path in spec.paths.values():
        sha = files.digest(path)
        known = record.files.get(sha, "")
        uploaded = client.file(known) if known else None
        if isinstance(uploaded, ApiFailure) and uploaded.kind is FailureKind.MISSING:
            console.note(f"{known} no longer exists at the provider; uploading {path.name} again")
            known = ""
        if not known:
            uploaded = client.upload(path, f"{path.stem}-{sha[:12]}{path.suffix}")
            if isinstance(uploaded, ApiFailure):
                raise client.error(uploaded, path.name)
            known = uploaded.id
            record = write_job_record(folder, replace(record, files={**record.files, sha: known}))
        _wait_for_file(client, known, uploaded)
    return record


def _wait_for_file(client: FineTuningClient, name: str, uploaded: UploadedFile | ApiFailure | None) -> None:
    """Wait until the provider has processed a file. Raises DataError if it cannot."""
    attempt = 1
    while isinstance(uploaded, UploadedFile) and uploaded.status in _UNPROCESSED:
        time.sleep(2 ** min(attempt - 1, 4))
        attempt += 1
        uploaded = client.file(name)
    if isinstance(uploaded, UploadedFile) and uploaded.status == "error":
        raise DataError(
            f"{client.url}: the provider cannot read {name} ({uploaded.status_details or 'no reason given'})"
        )


def _request_job(client: FineTuningClient, spec: JobSpec, record: JobRecord, folder: Path) -> Job | ApiFailure:
    """Request the job, which costs money."""
    file_ids = {role: record.files[files.digest(path)] for role, path in spec.paths.items()}
    mark = {"metadata": {MARK: record.mark}} if client.host.metadata else {}
    write_job_record(folder, replace(record, requested_at=time.time()))
    return client.create({"model": spec.model, **file_ids, **spec.body, **mark})


def _after_failure(client: FineTuningClient, failure: ApiFailure, record: JobRecord, folder: Path) -> JobRecord:
    """Return the record after a failed request. Raises if another request would fail as well."""
    if failure.outcome_unknown:
        console.note(f"the reply was lost ({failure.message}); checking whether the job was created")
        return replace(record, requested_at=time.time())
    record = write_job_record(folder, record)
    if failure.kind is FailureKind.FORBIDDEN:
        fix = (
            client.host.refused
            or f"put a key with fine-tuning permission into {client.key_env}, or choose another host"
        )
        raise ConfigError(f"{client.url}: {failure.message}: {fix}; the prepared files stay in {folder}")
    if failure.kind in (FailureKind.REFUSED, FailureKind.MISSING) and any(
        name in failure.message for name in record.files.values()
    ):
        console.note(f"the provider has lost a file ({failure.message}); uploading again")
        return write_job_record(folder, replace(record, files={}))
    if client.api.worth_waiting(failure):
        return record
    if not failure.transient and failure.kind not in (FailureKind.UNAUTHORIZED, FailureKind.NO_CREDIT):
        (folder / JOB_FILE).unlink()
        raise ConfigError(f"{client.url}: {failure.message}; nothing was submitted")
    raise client.error(failure)
