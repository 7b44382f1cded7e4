"""One job for one order, whatever happens on the way: nobody pays twice.

    job.json  is written before a job is asked for, and after the host has said which it is

    nothing open ──▶ look ──▶ upload ──▶ write `asked` ──▶ ask ──▶ write `job`
                      ▲ └─ there already: adopted            │
                      │                                      ├─ refused: nothing was made, `asked` is taken back
                      └────────── look, with patience ◀──────┴─ no answer, a broken one, a kill: who knows

A job carries the digest of its order in its metadata, by which it is found again. A host that forgets metadata is
asked for the job that trains on our very file. Where a host lists no jobs at all, a person has to look.
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
from irlhf.openai_api.fine_tuning import MARK, FineTuningClient, Job, UploadedFile, passing, patient, rest
from irlhf.openai_api.responses import NOBODY, REFUSED, ApiError

JOB_FILE = "job.json"
DEAD = ("failed", "cancelled", "canceled")
CREATES = 4  # requests for one job in one run, each after the one before was seen to have made none
PATIENCE = 60.0  # seconds after which a job that was made is listed
PAGES = 100
_UNLISTED = (403, 404, 405, 501, *REFUSED)  # what hosts say that list no jobs
_GONE = (404, 410)
_RAW = ("pending", "running", "notRunning", "processing")  # a file that the host is not through with


@dataclass(frozen=True)
class JobSpec:
    """What is to be paid for."""

    model: str
    training: Path
    validation: Path | None
    body: Mapping[str, Any]  # of the request, without the model, the files and the mark

    @property
    def paths(self) -> dict[str, Path]:
        """The files, by their names in the request."""
        found = {"training_file": self.training, "validation_file": self.validation}
        return {role: path for role, path in found.items() if path}

    @property
    def digest(self) -> str:
        """The order's own name: equal orders have equal ones."""
        shas = {role: files.digest(path) for role, path in self.paths.items()}
        told = json.dumps([self.model, shas, self.body], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class JobRecord:
    """What is known of the job for one order, as job.json keeps it."""

    digest: str
    attempt: int = 1
    files: Mapping[str, str] = field(default_factory=dict)  # ids at the host, by sha256
    asked: float = 0.0  # when a job was asked for whose answer is not known; 0 where none is open
    job: str = ""
    over: tuple[str, ...] = ()  # jobs of earlier attempts

    @property
    def mark(self) -> str:
        """What the job carries in its metadata."""
        return self.digest if self.attempt == 1 else f"{self.digest}-{self.attempt}"

    def owns(self, job: Job) -> bool:
        """Return whether a job of the host's is the one for this order."""
        if job.mark:
            return job.mark == self.mark
        return job.training_file in self.files.values() and job.id not in self.over


def read_job_record(folder: Path) -> JobRecord | None:
    """Return what is known of an order's job; None where nothing was ever asked. Raises DataError."""
    path = folder / JOB_FILE
    if not path.exists():
        return None
    tree = files.read_json(path)
    try:
        return JobRecord(**{**tree, "over": tuple(tree["over"]), "asked": float(tree["asked"])})
    except (KeyError, TypeError, ValueError) as error:
        told = "look at the host's own page for the job, then delete the folder"
        raise DataError(f"{path}: damaged ({error}); {told}") from error


def write_job_record(folder: Path, ticket: JobRecord) -> JobRecord:
    """Remember, on the disk, before anything else happens."""
    files.write_json(folder / JOB_FILE, asdict(ticket))
    return ticket


def begin(order: JobSpec, folder: Path) -> JobRecord:
    """Return the ticket of an order, a new one where there is none. Raises ConfigError for another order's."""
    ticket = read_job_record(folder) or JobRecord(order.digest)
    if ticket.digest != order.digest:
        raise ConfigError(
            f"{folder / JOB_FILE} is of other training rows than this irlhf makes; name another output, or delete"
            f" {folder} to start afresh, which pays again"
        )
    return ticket


def adopt(desk: FineTuningClient, ticket: JobRecord, folder: Path, name: str) -> JobRecord:
    """Take a job that a user names for the one of this order. Raises ConfigError where it cannot be."""
    job = patient(lambda: desk.job(name))
    if isinstance(job, ApiError):
        desk.fail(job, f"--job {name}: ")
    if (job.mark and job.mark != ticket.mark) or (ticket.files and job.training_file not in ticket.files.values()):
        raise ConfigError(
            f"--job {name}: it trains on another file ({job.training_file}), so it is not the one of this output"
        )
    return write_job_record(folder, replace(ticket, job=job.id, asked=0.0))


def again(desk: FineTuningClient, ticket: JobRecord) -> JobRecord:
    """Return the ticket of another attempt, to be written. Raises ConfigError where a job may still succeed."""
    if ticket.job:
        job = patient(lambda: desk.job(ticket.job))
        if isinstance(job, ApiError) and job.status not in _GONE:
            desk.fail(job, f"job {ticket.job}: ")
        if isinstance(job, Job) and job.status not in DEAD:
            raise ConfigError(
                f"--again: job {job.id} is {job.status}, so there is nothing to pay for again; leave it out"
            )
    elif not ticket.asked:
        return ticket  # the attempt before this one never got so far
    elif desk.host.lists and not isinstance(_look(desk, ticket), ApiError):
        return ticket  # what became of the request can be found out
    over = (*ticket.over, *([ticket.job] if ticket.job else []))
    return replace(ticket, attempt=ticket.attempt + 1, job="", asked=0.0, over=over)


def submit(desk: FineTuningClient, order: JobSpec, ticket: JobRecord, folder: Path) -> JobRecord:
    """Return the ticket with the order's one job: the one that is there, else a new one."""
    told = ""
    write_job_record(folder, ticket)
    for tried in range(1, CREATES + 1):
        ticket = _settled(desk, ticket, folder)
        if ticket.job:
            return ticket
        ticket = _uploaded(desk, order, ticket, folder)
        found = _request_job(desk, order, ticket, folder)
        if isinstance(found, Job):
            console.note(f"job {found.id} is submitted")
            return write_job_record(folder, replace(ticket, job=found.id, asked=0.0))
        told = found.told
        ticket = _heard(desk, found, ticket, folder)
        if tried < CREATES and not ticket.asked:
            rest(found, tried)
    ticket = _settled(desk, ticket, folder)
    if not ticket.job:
        raise BackendError(f"{desk.url}: no job was made in {CREATES} tries ({told}); later {GOES_ON}")
    return ticket


def find(desk: FineTuningClient, ticket: JobRecord) -> Job | None:
    """Return an order's job, if there is one. Raises BackendError and ConfigError where it cannot be told."""
    if ticket.job:
        found: Job | ApiError | None = patient(lambda: desk.job(ticket.job))
    else:
        found = _look(desk, ticket)
    if isinstance(found, ApiError):
        desk.fail(found)
    return found


def _settled(desk: FineTuningClient, ticket: JobRecord, folder: Path) -> JobRecord:
    """Return the ticket with the job that the host has, or without any where it surely has none."""
    owed = PATIENCE - (time.time() - ticket.asked) if ticket.asked else 0.0
    owed, wait = min(owed, PATIENCE), 1.0  # a clock that was set back makes nobody wait longer
    found = _look(desk, ticket)
    while found is None and owed > 0:
        time.sleep(min(wait, owed))
        owed, wait = owed - wait, wait * 2
        found = _look(desk, ticket)
    if isinstance(found, Job):
        console.note(f"job {found.id} of this training is at the host already; it is the one to go on with")
        return write_job_record(folder, replace(ticket, job=found.id, asked=0.0))
    if isinstance(found, ApiError):
        _unsure(desk, found, ticket)
        return ticket
    return write_job_record(folder, replace(ticket, asked=0.0)) if ticket.asked else ticket


def _unsure(desk: FineTuningClient, fault: ApiError, ticket: JobRecord) -> None:
    """Raise where a job may have been made that nobody can see."""
    listless = fault.status in _UNLISTED
    if not ticket.asked:
        if not listless:
            desk.fail(fault)
        return
    told = f"{desk.url}: a job may have been submitted at {time.strftime('%H:%M', time.localtime(ticket.asked))}"
    if listless:
        raise BackendError(
            f"{told}, and this host lists none ({fault.told}); look at its own page: --job ID goes on with the job that"
            " is there, --again submits once more where there is none"
        )
    raise BackendError(
        f"{told}, and the host does not list its jobs now ({fault.told}); later {GOES_ON}, and looks first"
    )


def _look(desk: FineTuningClient, ticket: JobRecord) -> Job | ApiError | None:
    """Return the order's job as the host lists it, or why it cannot be told."""
    if not desk.host.lists:
        return ApiError(501, "as its card says")
    found: Job | ApiError | None = None
    if desk.host.metadata:
        found = _search(desk, ticket, ticket.mark)
    if isinstance(found, Job) or (isinstance(found, ApiError) and found.status not in REFUSED):
        return found
    if found is None and desk.host.metadata and not ticket.asked:
        return None
    # Whether the host forgets what jobs carry shows in the list of all of them.
    return _search(desk, ticket, "")


def _search(desk: FineTuningClient, ticket: JobRecord, mark: str) -> Job | ApiError | None:
    """Go through a list of jobs, whole, though some hosts say for ever that there is more."""
    seen: dict[str, Job] = {}
    after = ""
    for _ in range(PAGES):
        last = after
        page = patient(lambda last=last: desk.jobs(mark, last))  # type: ignore[misc]
        if isinstance(page, ApiError):
            return page
        fresh = [job for job in page.data if job.id not in seen]
        seen |= {job.id: job for job in fresh}
        if not fresh or not page.has_more:
            own = [job for job in seen.values() if ticket.owns(job)]
            return min(own, key=lambda job: (job.status in DEAD, job.created_at or 0.0), default=None)
        after = page.data[-1].id
    return ApiError(501, f"over {len(seen):,} jobs")


def _uploaded(desk: FineTuningClient, order: JobSpec, ticket: JobRecord, folder: Path) -> JobRecord:
    """Return the ticket with every file at the host: what is there is not sent again."""
    for path in order.paths.values():
        sha = files.digest(path)
        known = ticket.files.get(sha, "")
        card = patient(lambda known=known: desk.file(known)) if known else None  # type: ignore[misc]
        if known and isinstance(card, ApiError) and card.status in _GONE:
            console.note(f"{known} is gone at the host, so {path.name} is sent again")
            known = ""
        if not known:
            name = f"{path.stem}-{sha[:12]}{path.suffix}"
            card = patient(lambda path=path, name=name: desk.upload(path, name))  # type: ignore[misc]
            if isinstance(card, ApiError):
                desk.fail(card, f"{path.name}: ")
            known = card.id if card else ""
            ticket = write_job_record(folder, replace(ticket, files={**ticket.files, sha: known}))
        _read(desk, known, card)
    return ticket


def _read(desk: FineTuningClient, name: str, card: UploadedFile | ApiError | None) -> None:
    """Wait until the host has read a file through."""
    tried = 1
    while isinstance(card, UploadedFile) and card.status in _RAW:
        rest(ApiError(NOBODY, ""), min(tried, 5))
        tried += 1
        card = patient(lambda: desk.file(name))
    if isinstance(card, UploadedFile) and card.status == "error":
        raise DataError(f"{desk.url}: the host cannot read {name} ({card.status_details or 'it does not say why'})")


def _request_job(desk: FineTuningClient, order: JobSpec, ticket: JobRecord, folder: Path) -> Job | ApiError:
    """Ask for the job: what costs money."""
    named = {role: ticket.files[files.digest(path)] for role, path in order.paths.items()}
    mark = {"metadata": {MARK: ticket.mark}} if desk.host.metadata else {}
    write_job_record(folder, replace(ticket, asked=time.time()))
    return desk.create({"model": order.model, **named, **order.body, **mark})


def _heard(desk: FineTuningClient, fault: ApiError, ticket: JobRecord, folder: Path) -> JobRecord:
    """Return what is known once a request for a job brought no job. Raises where another would bring none either."""
    if fault.status >= 500 or fault.status in (408, 409):
        console.note(f"the answer was lost ({fault.told}); looking whether the job is there")
        return replace(ticket, asked=time.time())
    ticket = write_job_record(folder, ticket)
    if fault.status == 403:
        mend = desk.host.refused or f"put a key that may fine-tune into {desk.key_env}, or name another host"
        raise ConfigError(f"{desk.url}: {fault.told}: {mend}; what was prepared stays in {folder}")
    if fault.status in (400, *_GONE) and any(name in fault.told for name in ticket.files.values()):
        console.note(f"the host has lost a file ({fault.told}); it is sent again")
        return write_job_record(folder, replace(ticket, files={}))
    if fault.passes and passing(fault):
        return ticket
    if not fault.passes and fault.status not in (401, 402):
        (folder / JOB_FILE).unlink()
        raise ConfigError(f"{desk.url}: {fault.told}; nothing was submitted")
    desk.fail(fault)
