"""Submit exactly one job per training run, through lost replies, crashes and restarts: nothing is paid for twice.

    job.json is written before a job is requested, and again once its id is known

    nothing open ──▶ look ──▶ upload ──▶ write `asked` ──▶ request ──▶ write `job`
                      ▲ └─ exists: adopted                   │
                      │                                      ├─ refused: no job was created, `asked` is reset
                      └────── look until it is listed ◀──────┴─ no reply, a broken one, a crash: outcome unknown

A job carries the digest of its JobSpec in its metadata, by which it is found again. On a host that drops metadata, it
is the job that trains on the uploaded file. On a host that does not list jobs, the user has to look.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError, DataError
from irlhf.io import files
from irlhf.openai_api.endpoint import GOES_ON
from irlhf.openai_api.failures import ApiFailure, FailureKind
from irlhf.openai_api.fine_tuning import MARK, FineTuningClient, Job, UploadedFile

JOB_FILE = "job.json"
DEAD = ("failed", "cancelled", "canceled")
CREATES = 4  # requests in one run, each after the previous one was seen to have created no job
PATIENCE = 60.0  # seconds after which a created job is listed
PAGES = 100
_REFUSED = (FailureKind.REFUSED, FailureKind.INVALID_REPLY)
_UNLISTED = (FailureKind.FORBIDDEN, FailureKind.MISSING, FailureKind.UNSUPPORTED, *_REFUSED)  # hosts without a list
_RAW = ("pending", "running", "notRunning", "processing")  # states of a file that the host is still processing


@dataclass(frozen=True)
class JobSpec:
    """A job to submit."""

    model: str
    training: Path
    validation: Path | None
    body: Mapping[str, Any]  # of the request, without model, files and mark

    @property
    def paths(self) -> dict[str, Path]:
        """The files by their field in the request."""
        paths = {"training_file": self.training, "validation_file": self.validation}
        return {role: path for role, path in paths.items() if path}

    @property
    def digest(self) -> str:
        """A digest of the model, the files and the request."""
        shas = {role: files.digest(path) for role, path in self.paths.items()}
        content = json.dumps([self.model, shas, self.body], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class JobRecord:
    """The state of the job for one JobSpec, stored in job.json."""

    digest: str
    attempt: int = 1
    files: Mapping[str, str] = field(default_factory=dict)  # ids at the host, by sha256
    requested_at: float = 0.0  # time of a request with unknown outcome; 0 if there is none
    job: str = ""
    over: tuple[str, ...] = ()  # jobs of earlier attempts

    @property
    def mark(self) -> str:
        """The mark in the job's metadata."""
        return self.digest if self.attempt == 1 else f"{self.digest}-{self.attempt}"

    def owns(self, job: Job) -> bool:
        """Return whether a job on the host belongs to this record."""
        if job.mark:
            return job.mark == self.mark
        return job.training_file in self.files.values() and job.id not in self.over


def read_job_record(folder: Path) -> JobRecord | None:
    """Return the record of a folder, or None if no job was requested. Raises DataError."""
    path = folder / JOB_FILE
    if not path.exists():
        return None
    tree = files.read_json(path)
    try:
        given = {name: value for name, value in tree.items() if name != "asked"}
        return JobRecord(**{**given, "over": tuple(tree["over"]), "requested_at": float(tree["asked"])})
    except (KeyError, TypeError, ValueError) as error:
        remedy = "look at the host's own page for the job, then delete the folder"
        raise DataError(f"{path}: damaged ({error}); {remedy}") from error


def write_job_record(folder: Path, record: JobRecord) -> JobRecord:
    """Write the record to disk and return it."""
    tree = {"asked" if name == "requested_at" else name: value for name, value in asdict(record).items()}
    files.write_json(folder / JOB_FILE, tree)
    return record


def begin(spec: JobSpec, folder: Path) -> JobRecord:
    """Return the record for a JobSpec, a new one if there is none. Raises ConfigError if it is for another JobSpec."""
    record = read_job_record(folder) or JobRecord(spec.digest)
    if record.digest != spec.digest:
        raise ConfigError(
            f"{folder / JOB_FILE} is of other training rows than this irlhf makes; name another output, or delete"
            f" {folder} to start afresh, which pays again"
        )
    return record


def adopt(client: FineTuningClient, record: JobRecord, folder: Path, name: str) -> JobRecord:
    """Return the record with the job that a user names. Raises ConfigError if it trains on another file."""
    job = client.job(name)
    if isinstance(job, ApiFailure):
        raise client.error(job, f"job {name}")
    if (job.mark and job.mark != record.mark) or (record.files and job.training_file not in record.files.values()):
        raise ConfigError(
            f"job {name} trains on another file ({job.training_file}), so it is not the one of this output"
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
                f"job {job.id} is {job.status}, so there is nothing to pay for again; the first command waits for it"
            )
    elif not record.requested_at:
        return record  # the previous attempt did not request a job
    elif client.host.lists and not isinstance(_look(client, record), ApiFailure):
        return record  # the outcome of the request can be looked up
    over = (*record.over, *([record.job] if record.job else []))
    return replace(record, attempt=record.attempt + 1, job="", requested_at=0.0, over=over)


def submit(client: FineTuningClient, spec: JobSpec, record: JobRecord, folder: Path) -> JobRecord:
    """Return the record with its only job: an existing one, else a new one."""
    reason = ""
    write_job_record(folder, record)
    for tried in range(1, CREATES + 1):
        record = _settled(client, record, folder)
        if record.job:
            return record
        record = _uploaded(client, spec, record, folder)
        job = _request_job(client, spec, record, folder)
        if isinstance(job, Job):
            console.note(f"job {job.id} is submitted")
            return write_job_record(folder, replace(record, job=job.id, requested_at=0.0))
        reason = job.message
        record = _heard(client, job, record, folder)
        if tried < CREATES and not record.requested_at:
            client.api.rest(job, tried)
    record = _settled(client, record, folder)
    if not record.job:
        raise BackendError(f"{client.url}: no job was made in {CREATES} tries ({reason}); later {GOES_ON}")
    return record


def find(client: FineTuningClient, record: JobRecord) -> Job | None:
    """Return the job of a record, or None. Raises BackendError and ConfigError if it cannot be determined."""
    job = client.job(record.job) if record.job else _look(client, record)
    if isinstance(job, ApiFailure):
        raise client.error(job)
    return job


def _settled(client: FineTuningClient, record: JobRecord, folder: Path) -> JobRecord:
    """Return the record with the job on the host, or without a pending request if there is certainly none."""
    owed = PATIENCE - (time.time() - record.requested_at) if record.requested_at else 0.0
    owed, wait = min(owed, PATIENCE), 1.0  # even if the clock was set back
    job = _look(client, record)
    while job is None and owed > 0:
        time.sleep(min(wait, owed))
        owed, wait = owed - wait, wait * 2
        job = _look(client, record)
    if isinstance(job, Job):
        console.note(f"job {job.id} of this training is at the host already; it is the one to go on with")
        return write_job_record(folder, replace(record, job=job.id, requested_at=0.0))
    if isinstance(job, ApiFailure):
        _unsure(client, job, record)
        return record
    return write_job_record(folder, replace(record, requested_at=0.0)) if record.requested_at else record


def _unsure(client: FineTuningClient, fault: ApiFailure, record: JobRecord) -> None:
    """Raise if a job may exist that cannot be looked up."""
    listless = fault.kind in _UNLISTED
    if not record.requested_at:
        if not listless:
            raise client.error(fault)
        return
    doubt = (
        f"{client.url}: a job may have been submitted at {time.strftime('%H:%M', time.localtime(record.requested_at))}"
    )
    if listless:
        raise BackendError(
            f"{doubt}, and this host lists none ({fault.message}); look at its own page: if the job is there,"
            " run `irlhf jobs adopt POLICY ID`, else `irlhf jobs resubmit POLICY`"
        )
    raise BackendError(
        f"{doubt}, and the host does not list its jobs now ({fault.message}); later {GOES_ON}, and looks first"
    )


def _look(client: FineTuningClient, record: JobRecord) -> Job | ApiFailure | None:
    """Return the record's job from the host's list, None if it is not there, or why the list cannot be read."""
    if not client.host.lists:
        return ApiFailure(FailureKind.UNSUPPORTED, "as its entry in the table of hosts says")
    job: Job | ApiFailure | None = None
    if client.host.metadata:
        job = _search(client, record, record.mark)
    if isinstance(job, Job) or (isinstance(job, ApiFailure) and job.kind not in _REFUSED):
        return job
    if job is None and client.host.metadata and not record.requested_at:
        return None
    # A host that drops metadata shows it in the list of all jobs.
    return _search(client, record, "")


def _search(client: FineTuningClient, record: JobRecord, mark: str) -> Job | ApiFailure | None:
    """Read all pages of a list of jobs. Stops at a page without new jobs: some hosts always report more."""
    seen: dict[str, Job] = {}
    after = ""
    for _ in range(PAGES):
        page = client.jobs(mark, after)
        if isinstance(page, ApiFailure):
            return page
        fresh = [job for job in page.data if job.id not in seen]
        seen |= {job.id: job for job in fresh}
        if not fresh or not page.has_more:
            own = [job for job in seen.values() if record.owns(job)]
            return min(own, key=lambda job: (job.status in DEAD, job.created_at or 0.0), default=None)
        after = page.data[-1].id
    return ApiFailure(FailureKind.UNSUPPORTED, f"more than {len(seen):,} jobs")


def _uploaded(client: FineTuningClient, spec: JobSpec, record: JobRecord, folder: Path) -> JobRecord:
    """Return the record with every file on the host; existing files are not uploaded again."""
    for path in spec.paths.values():
        sha = files.digest(path)
        known = record.files.get(sha, "")
        uploaded = client.file(known) if known else None
        if isinstance(uploaded, ApiFailure) and uploaded.kind is FailureKind.MISSING:
            console.note(f"{known} is gone at the host, so {path.name} is sent again")
            known = ""
        if not known:
            uploaded = client.upload(path, f"{path.stem}-{sha[:12]}{path.suffix}")
            if isinstance(uploaded, ApiFailure):
                raise client.error(uploaded, path.name)
            known = uploaded.id
            record = write_job_record(folder, replace(record, files={**record.files, sha: known}))
        _read(client, known, uploaded)
    return record


def _read(client: FineTuningClient, name: str, uploaded: UploadedFile | ApiFailure | None) -> None:
    """Wait until the host has processed a file."""
    tried = 1
    while isinstance(uploaded, UploadedFile) and uploaded.status in _RAW:
        time.sleep(2 ** min(tried - 1, 4))
        tried += 1
        uploaded = client.file(name)
    if isinstance(uploaded, UploadedFile) and uploaded.status == "error":
        raise DataError(
            f"{client.url}: the host cannot read {name} ({uploaded.status_details or 'it does not say why'})"
        )


def _request_job(client: FineTuningClient, spec: JobSpec, record: JobRecord, folder: Path) -> Job | ApiFailure:
    """Request the job, which costs money."""
    named = {role: record.files[files.digest(path)] for role, path in spec.paths.items()}
    mark = {"metadata": {MARK: record.mark}} if client.host.metadata else {}
    write_job_record(folder, replace(record, requested_at=time.time()))
    return client.create({"model": spec.model, **named, **spec.body, **mark})


def _heard(client: FineTuningClient, fault: ApiFailure, record: JobRecord, folder: Path) -> JobRecord:
    """Return the record after a failed request. Raises if another request would fail as well."""
    if fault.outcome_unknown:
        console.note(f"the answer was lost ({fault.message}); looking whether the job is there")
        return replace(record, requested_at=time.time())
    record = write_job_record(folder, record)
    if fault.kind is FailureKind.FORBIDDEN:
        mend = client.host.refused or f"put a key that may fine-tune into {client.key_env}, or name another host"
        raise ConfigError(f"{client.url}: {fault.message}: {mend}; what was prepared stays in {folder}")
    if fault.kind in (FailureKind.REFUSED, FailureKind.MISSING) and any(
        name in fault.message for name in record.files.values()
    ):
        console.note(f"the host has lost a file ({fault.message}); it is sent again")
        return write_job_record(folder, replace(record, files={}))
    if client.api.worth_waiting(fault):
        return record
    if not fault.transient and fault.kind not in (FailureKind.UNAUTHORIZED, FailureKind.NO_CREDIT):
        (folder / JOB_FILE).unlink()
        raise ConfigError(f"{client.url}: {fault.message}; nothing was submitted")
    raise client.error(fault)
