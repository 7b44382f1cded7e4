"""Follow a job until it ends, and fetch its model and metrics. Stopping to follow does not stop the job."""

import base64
import binascii
import csv
import io
import math
import time
from collections.abc import Iterator
from typing import NoReturn

from irlhf.core import console
from irlhf.core.errors import BackendError
from irlhf.openai_api.endpoint import GOES_ON
from irlhf.openai_api.failures import ApiFailure, FailureKind
from irlhf.openai_api.fine_tuning import Checkpoints, Event, FineTuningClient, Job
from irlhf.openai_api.retry import duration
from irlhf.training.hosted.job_submission import DEAD

DONE = "succeeded"
FIRST_POLL, LONGEST_POLL = 2.0, 30.0  # seconds
STATUS_INTERVAL = 600.0  # seconds after which an unchanged status is repeated
OUTAGE = 40  # failed polls in a row, about 20 minutes
LOST = 5  # polls in a row of a job that the host does not know
EVENT_PAGES = 20
LAST_EVENTS = 3  # shown with a failure
_KNOWN = ("validating_files", "queued", "pending", "running", "pausing", *DEAD, DONE)
_COLUMNS = {"train_loss": "loss", "valid_loss": "validation_loss"}  # names on the host and in metrics.jsonl


class JobMonitor:
    """Reports the status and the events of one job as they change."""

    def __init__(self, client: FineTuningClient, name: str) -> None:
        self.client, self.name = client, name
        self.seen: set[str] = set()  # events
        self.status, self.since, self.due = "", 0.0, 0.0  # in seconds since following began

    def __call__(self, job: Job, waited: float) -> None:
        """Report what changed."""
        if job.status != self.status:
            self.status, self.since, self.due = job.status, waited, waited + STATUS_INTERVAL
            strange = "" if job.status in _KNOWN else ", which irlhf does not know; it waits"
            ahead = (job.estimated_finish or 0.0) - time.time()
            left = f", about {duration(ahead)} left" if ahead > 0 else ""
            console.note(f"job {self.name}: {job.status}{strange}{left}")
        elif waited >= self.due:
            self.due = waited + STATUS_INTERVAL
            console.note(f"job {self.name}: {job.status} for {duration(waited - self.since)}")
        for event in self.fresh():
            console.note(f"  {event.message}")

    def fresh(self) -> list[Event]:
        """Return new events, oldest first. Stops at a page without new events: some hosts repeat pages forever."""
        events: list[Event] = []
        after = ""
        for _ in range(EVENT_PAGES):
            page = self.client.events(self.name, after)
            if isinstance(page, ApiFailure):
                break
            fresh = [event for event in page.data if event.message and _key(event) not in self.seen]
            self.seen |= {_key(event) for event in fresh}
            events += fresh
            after = (page.data[-1].id or "") if page.data else ""
            if not fresh or not page.has_more or not after:
                break
        events.reverse()  # so that sorting keeps the order of events of one second
        return sorted(events, key=lambda event: event.created_at or 0.0)


def follow_job(client: FineTuningClient, name: str) -> Job:
    """Return a job once it has succeeded. Raises BackendError if it failed. Ctrl-C leaves the job running."""
    watch = JobMonitor(client, name)
    try:
        return _watched(client, name, watch)
    except KeyboardInterrupt:
        console.note(
            f"job {name} goes on at the host; the same command waits for it again, `irlhf jobs cancel` stops it"
        )
        raise


def _watched(client: FineTuningClient, name: str, watch: JobMonitor) -> Job:
    waited, interval, silent = 0.0, FIRST_POLL, 0
    while True:
        job = client.poll(name)
        silent = silent + 1 if isinstance(job, ApiFailure) else 0
        if isinstance(job, ApiFailure):
            _bear(client, name, job, silent)
        else:
            watch(job, waited)
            if job.status == DONE:
                return job
            if job.status in DEAD:
                _failed(client, job, watch)
        pause = max(interval, job.retry_after if isinstance(job, ApiFailure) else 0.0)
        time.sleep(pause)
        waited, interval = waited + pause, min(interval * 1.5, LONGEST_POLL)


def _bear(client: FineTuningClient, name: str, fault: ApiFailure, silent: int) -> None:
    """Raise BackendError if polling has failed too often."""
    known = fault.kind is not FailureKind.MISSING or silent < LOST
    if not known:
        raise BackendError(
            f"{client.url}: the host knows no job {name} any more ({fault.message});"
            " `irlhf jobs resubmit` pays for another"
        )
    if silent >= OUTAGE or (not client.api.worth_waiting(fault) and silent >= LOST):
        raise BackendError(f"{client.url}: no word of job {name} ({fault.message}); it goes on there, and {GOES_ON}")
    if silent == 1:
        console.note(f"no word of job {name} ({fault.message}); it is asked for again")


def _failed(client: FineTuningClient, job: Job, watch: JobMonitor) -> NoReturn:
    if job.status != "failed":
        raise BackendError(
            f"{client.url}: job {job.id} was {job.status}; `irlhf jobs resubmit` submits it anew, and pays for it"
        )
    watch.seen.clear()
    last = [event.message or "" for event in watch.fresh()[-LAST_EVENTS:]]
    reason = job.problem or "; ".join(last) or "the host does not say why"
    raise BackendError(
        f"{client.url}: job {job.id} failed: {reason.rstrip('.')}; fix the rows and name another output, or submit"
        " the same with `irlhf jobs resubmit`"
    )


def model_of(client: FineTuningClient, job: Job) -> str:
    """Return the host's name for the trained model, else for its last checkpoint, else ""."""
    if job.fine_tuned_model:
        return job.fine_tuned_model
    checkpoints = client.checkpoints(job.id)
    if not isinstance(checkpoints, Checkpoints) or not checkpoints.data:
        return ""
    last = max(checkpoints.data, key=lambda checkpoint: checkpoint.step_number or 0)
    return last.fine_tuned_model_checkpoint or last.id or ""


def metrics_of(client: FineTuningClient, job: Job) -> list[dict[str, float]]:
    """Return the training curve as rows of metrics.jsonl, or [] if the host has none."""
    for name in job.result_files or ():
        if rows := list(_curve(client.content(name))):
            return rows
    return []


def _curve(content: bytes) -> Iterator[dict[str, float]]:
    text = content.decode("utf-8-sig", errors="replace")
    if "," not in text:  # OpenAI used to send base64
        try:
            text = base64.b64decode(content, validate=True).decode(errors="replace")
        except binascii.Error:
            return
    for row in csv.DictReader(io.StringIO(text)):
        numbers = {
            ours: number for theirs, ours in _COLUMNS.items() if (number := _number(row.get(theirs))) is not None
        }
        step = _number(row.get("step"))
        if step is not None and numbers:
            yield {"step": int(step), **numbers}


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _key(event: Event) -> str:
    return event.id or f"{event.created_at} {event.message}"
