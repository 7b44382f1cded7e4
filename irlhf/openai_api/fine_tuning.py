"""Files and jobs of OpenAI's fine-tuning protocol: reading them is retried, creating a job is not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from irlhf.core.errors import IrlhfError
from irlhf.openai_api.api_client import ApiClient
from irlhf.openai_api.endpoint import KEY
from irlhf.openai_api.failures import ApiFailure, Shape
from irlhf.openai_api.providers import Provider
from irlhf.openai_api.retry import RetryPolicy

if TYPE_CHECKING:
    from openai import OpenAI

TIMEOUT = 120.0  # seconds until the next bytes of a reply
PAGE_ROWS = 100
MARK = "irlhf"  # the key of a job's metadata that says which run it belongs to


class UploadedFile(BaseModel):
    """A file on a host."""

    id: str
    status: str | None = None
    status_details: str | None = None


class Job(BaseModel):
    """A job on a host; hosts leave fields out."""

    id: str = Field(min_length=1)
    status: str
    model: str | None = None
    training_file: str | None = None
    fine_tuned_model: str | None = None
    created_at: float | None = None
    estimated_finish: float | None = None
    trained_tokens: int | None = None
    result_files: list[str] | None = None
    error: Any = None  # {} on some hosts if there is none
    metadata: Any = None

    @property
    def mark(self) -> str:
        """Which run the job belongs to, if the host keeps metadata."""
        return str(self.metadata.get(MARK) or "") if isinstance(self.metadata, dict) else ""

    @property
    def problem(self) -> str:
        """The host's own message about a failed job."""
        message = self.error.get("message") or self.error.get("code") if isinstance(self.error, dict) else self.error
        return str(message or "")


class Jobs(BaseModel):
    """A page of jobs."""

    data: list[Job]
    has_more: bool | None = None


class Event(BaseModel):
    """One entry of a job's log."""

    id: str | None = None
    created_at: float | None = None
    level: str | None = None
    message: str | None = None


class Events(BaseModel):
    """A page of events, newest first."""

    data: list[Event]
    has_more: bool | None = None


class Checkpoint(BaseModel):
    """A model saved during training."""

    id: str | None = None
    fine_tuned_model_checkpoint: str | None = None
    step_number: int | None = None


class Checkpoints(BaseModel):
    """A page of checkpoints."""

    data: list[Checkpoint]


class ModelInfo(BaseModel):
    """A model on a host."""

    id: str
    shutdown_date: str | None = None


class FineTuningClient:
    """One host. Every method returns the host's reply, or why there is none."""

    def __init__(self, host: Provider, url: str, key_env: str = "") -> None:
        self.host, self.url = host, url.rstrip("/")
        self.key_env = key_env or KEY
        self.api = ApiClient(self.url, key_env, TIMEOUT, retries=RetryPolicy(wait=1.0))

    def create(self, body: Mapping[str, Any]) -> Job | ApiFailure:
        """Request a job, once: it costs money. Unless the request was refused, a job may exist."""
        more = {key: value for key, value in body.items() if key not in ("model", "training_file")}

        def request(client: "OpenAI") -> Any:
            jobs = client.fine_tuning.jobs.with_raw_response
            return jobs.create(model=body["model"], training_file=body["training_file"], extra_body=more)

        return self.api.call(request, Job)

    def poll(self, name: str) -> Job | ApiFailure:
        """Return a job as it is now, without retries."""
        return self.api.call(lambda client: client.fine_tuning.jobs.with_raw_response.retrieve(name), Job)

    def job(self, name: str) -> Job | ApiFailure:
        """Return a job as it is now."""
        return self._retried(lambda client: client.fine_tuning.jobs.with_raw_response.retrieve(name), Job)

    def jobs(self, mark: str, after: str) -> Jobs | ApiFailure:
        """Return a page of jobs, only those with this mark if it is given."""
        query: Any = _page(after) | ({"metadata": {MARK: mark}} if mark else {})
        return self._retried(lambda client: client.fine_tuning.jobs.with_raw_response.list(**query), Jobs)

    def cancel(self, name: str) -> Job | ApiFailure:
        """Stop a job for good."""
        return self._retried(lambda client: client.fine_tuning.jobs.with_raw_response.cancel(name), Job)

    def events(self, name: str, after: str) -> Events | ApiFailure:
        """Return a page of a job's events, without retries."""
        return self.api.call(
            lambda client: client.fine_tuning.jobs.with_raw_response.list_events(name, **_page(after)), Events
        )

    def checkpoints(self, name: str) -> Checkpoints | ApiFailure:
        """Return the last checkpoints of a job."""
        return self._retried(
            lambda client: client.fine_tuning.jobs.checkpoints.with_raw_response.list(name, limit=PAGE_ROWS),
            Checkpoints,
        )

    def upload(self, path: Path, name: str) -> UploadedFile | ApiFailure:
        """Upload a training file."""
        file = (name, path.read_bytes(), "application/jsonl")
        return self._retried(
            lambda client: client.files.with_raw_response.create(file=file, purpose="fine-tune"), UploadedFile
        )

    def file(self, name: str) -> UploadedFile | ApiFailure:
        """Return the status of a file."""
        return self._retried(lambda client: client.files.with_raw_response.retrieve(name), UploadedFile)

    def model(self, name: str) -> ModelInfo | ApiFailure:
        """Return what the host says about a model."""
        return self._retried(lambda client: client.models.with_raw_response.retrieve(name), ModelInfo)

    def content(self, name: str) -> bytes:
        """Return the content of a file, or nothing if the host does not return it."""
        import openai

        try:
            return self.api.sdk().files.content(name).content
        except openai.APIError:
            return b""

    def error(self, failure: ApiFailure, what: str = "") -> IrlhfError:
        """Return a failure as an error of the run; `what` names what it is about."""
        return self.api.error(failure, f"{self.url}: {what}" if what else "")

    def _retried(self, request: Callable[["OpenAI"], Any], shape: type[Shape]) -> Shape | ApiFailure:
        return self.api.call(request, shape, self.api.retries.tries)


def _page(after: str) -> dict[str, Any]:
    return {"limit": PAGE_ROWS, **({"after": after} if after else {})}
