"""Poll a fine-tuning job until it ends, and fetch its model and metrics. Ctrl-C does not stop the job."""

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
LOST = 5  # polls in a row that return "not found"
EVENT_PAGES = 20
LAST_EVENTS = 3  # shown with a failure
_KNOWN = ("validating_files", "queued", "pending", "running", "pausing", *DEAD, DONE)
_COLUMNS = {"train_loss": "loss", "valid_loss": "validation_loss"}  # names on the host and in metrics.jsonl


class JobMonitor:
    """Reports the status and the events of one job as they change."""

    def __init__(self, client: FineTuningClient, name: str) -> None:
        self.client, self.name = client, name
        self.seen: set[str] = set()  # events
        self.status, self.since, self.due = "", 0.0, 0.0  # in seconds since polling began

    def __call__(self, job: Job, waited: float) -> None:
        """Report a changed status and new events."""
        if job.status != self.status:
            self.status, self.since, self.due = job.status, waited, waited + STATUS_INTERVAL
            unknown = "" if job.status in _KNOWN else " (unknown status; still waiting)"
            ahead = (job.estimated_finish or 0.0) - time.time()
            left = f", about {duration(ahead)} left" if ahead > 0 else ""
            console.note(f"job {self.name}: {job.status}{unknown}{left}")
        elif waited >= self.due:
            self.due = waited + STATUS_INTERVAL
            console.note(f"job {self.name}: {job.status} for {duration(waited - self.since)}")
        for event in self.fresh():
            console.note(f"  {event.message}")

    def fresh(self) -> list[Event]:
        """Return new events, oldest first. Stops at a page without new events, because some providers repeat pages."""
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
        events.reverse()  # sorting is stable, so events of the same second stay in order
        return sorted(events, key=lambda event: event.created_at or 0.0)


def follow_job(client: FineTuningClient, name: str) -> Job:
    """Wait until a job has succeeded and return it. Raises BackendError if it failed. Ctrl-C leaves the job running."""
    monitor = JobMonitor(client, name)
    try:
        return _poll(client, name, monitor)
    except KeyboardInterrupt:
        console.note(
            f"job {name} keeps running at the provider; repeat the command to wait for it, or cancel it with"
            " `irlhf jobs cancel`"
        )
        raise


def _poll(client: FineTuningClient, name: str, monitor: JobMonitor) -> Job:
    waited, interval, failed_polls = 0.0, FIRST_POLL, 0
    while True:
        job = client.poll(name)
        failed_polls = failed_polls + 1 if isinstance(job, ApiFailure) else 0
        if isinstance(job, ApiFailure):
            _check_failures(client, name, job, failed_polls)
        else:
            monitor(job, waited)
            if job.status == DONE:
                return job
            if job.status in DEAD:
                _raise_failed(client, job, monitor)
        pause = max(interval, job.retry_after if isinstance(job, ApiFailure) else 0.0)
        time.sleep(pause)
        waited, interval = waited + pause, min(interval * 1.5, LONGEST_POLL)


def _check_failures(client: FineTuningClient, name: str, failure: ApiFailure, failed_polls: int) -> None:
    """Raise BackendError if polling has failed too often."""
    known = failure.kind is not FailureKind.MISSING or failed_polls < LOST
    if not known:
        raise BackendError(
            f"{client.url}: the provider no longer has job {name} ({failure.message});"
            " submit (and pay for) a new job with `irlhf jobs resubmit`"
        )
    if failed_polls >= OUTAGE or (not client.api.worth_waiting(failure) and failed_polls >= LOST):
        raise BackendError(
            f"{client.url}: cannot read the status of job {name} ({failure.message}); it may still be running;"
            f" later {GOES_ON}"
        )
    if failed_polls == 1:
        console.note(f"cannot read the status of job {name} ({failure.message}); retrying")


def _raise_failed(client: FineTuningClient, job: Job, monitor: JobMonitor) -> NoReturn:
    if job.status != "failed":
        raise BackendError(
            f"{client.url}: job {job.id} was {job.status}; submit (and pay for) a new job with `irlhf jobs resubmit`"
        )
    monitor.seen.clear()
    last = [event.message or "" for event in monitor.fresh()[-LAST_EVENTS:]]
    reason = job.problem or "; ".join(last) or "the provider gives no reason"
    raise BackendError(
        f"{client.url}: job {job.id} failed: {reason.rstrip('.')}; fix the rows and choose another output, or"
        " submit the same job with `irlhf jobs resubmit`"
    )


def model_of(client: FineTuningClient, job: Job) -> str:
    """Return the name of the trained model at the provider, else of its last checkpoint, else ""."""
    if job.fine_tuned_model:
        return job.fine_tuned_model
    checkpoints = client.checkpoints(job.id)
    if not isinstance(checkpoints, Checkpoints) or not checkpoints.data:
        return ""
    last = max(checkpoints.data, key=lambda checkpoint: checkpoint.step_number or 0)
    return last.fine_tuned_model_checkpoint or last.id or ""


def metrics_of(client: FineTuningClient, job: Job) -> list[dict[str, float]]:
    """Return the training curve as rows of metrics.jsonl, or [] if the provider has none."""
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
