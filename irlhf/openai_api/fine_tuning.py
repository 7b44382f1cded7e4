"""A host's desk, where files and jobs are handed in: one call, one try, and what came of it.

The client is OpenAI's, but it never tries again by itself: it would send a paid request three times over.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import openai
from openai import OpenAI, omit
from pydantic import BaseModel, Field

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError
from irlhf.openai_api import responses
from irlhf.openai_api.api_client import CONNECT, LONGEST_WAIT, NOTED_WAIT, SPENT, span
from irlhf.openai_api.endpoint import GOES_ON, KEY, NO_KEY, is_address, key_of
from irlhf.openai_api.providers import Provider
from irlhf.openai_api.responses import BROKEN, PAGE, ApiError, Shape

TRIES = 6  # of what costs nothing
WAIT = 1.0  # seconds before the second, and twice as many before each next one
TIMEOUT = 120.0  # seconds until the first word of an answer, or the next
PAGE_ROWS = 100
MARK = "irlhf"  # the key of a job's metadata that says whose it is


class UploadedFile(BaseModel):
    """A file as a host has it."""

    id: str
    status: str | None = None
    status_details: str | None = None


class Job(BaseModel):
    """A job as a host tells of it; hosts leave out what they like."""

    id: str = Field(min_length=1)
    status: str
    model: str | None = None
    training_file: str | None = None
    fine_tuned_model: str | None = None
    created_at: float | None = None
    estimated_finish: float | None = None
    trained_tokens: int | None = None
    result_files: list[str] | None = None
    error: Any = None  # {} at some hosts where all is well
    metadata: Any = None

    @property
    def mark(self) -> str:
        """Whose job it is, where the host remembers."""
        return str(self.metadata.get(MARK) or "") if isinstance(self.metadata, dict) else ""

    @property
    def problem(self) -> str:
        """What went wrong, in the host's words."""
        message = self.error.get("message") or self.error.get("code") if isinstance(self.error, dict) else self.error
        return str(message or "")


class Jobs(BaseModel):
    """A page of jobs."""

    data: list[Job]
    has_more: bool | None = None


class Event(BaseModel):
    """Something that happened to a job."""

    id: str | None = None
    created_at: float | None = None
    level: str | None = None
    message: str | None = None


class Events(BaseModel):
    """A page of events, newest first."""

    data: list[Event]
    has_more: bool | None = None


class Checkpoint(BaseModel):
    """A model as it was on the way."""

    id: str | None = None
    fine_tuned_model_checkpoint: str | None = None
    step_number: int | None = None


class Checkpoints(BaseModel):
    """A page of checkpoints."""

    data: list[Checkpoint]


class ModelInfo(BaseModel):
    """A model as a host has it."""

    id: str
    shutdown_date: str | None = None


class FineTuningClient:
    """One host, asked one thing at a time."""

    def __init__(self, host: Provider, url: str, key_env: str = "") -> None:
        if not is_address(url):
            raise ConfigError(
                "--base-url is an address like https://api.example.com/v1 (keys come from the environment)"
            )
        self.host, self.url = host, url.rstrip("/")
        self.key_env = key_env or KEY
        self.key = key_of(key_env, "--api-key-env")
        timeout = openai.Timeout(TIMEOUT, connect=CONNECT)
        self.client = OpenAI(base_url=url, api_key=self.key or NO_KEY, max_retries=0, timeout=timeout)
        self.jobs_at = self.client.fine_tuning.jobs

    def create(self, body: Mapping[str, Any]) -> Job | ApiError:
        """Ask for a job, which costs money. Whatever is not a plain refusal may have made one."""
        more = {key: value for key, value in body.items() if key not in ("model", "training_file")}
        raw: list[Any] = []

        def ask() -> Any:
            raw.append(
                self.jobs_at.with_raw_response.create(
                    model=body["model"], training_file=body["training_file"], extra_body=more
                )
            )
            return raw[0]

        job = self._call(ask, Job)
        if isinstance(job, ApiError) and raw and job.status != PAGE:
            return replace(job, status=BROKEN)  # it was called a success, so something may have been done
        return job

    def job(self, name: str) -> Job | ApiError:
        """Return a job as it stands."""
        return self._call(lambda: self.jobs_at.with_raw_response.retrieve(name), Job)

    def jobs(self, mark: str, after: str) -> Jobs | ApiError:
        """Return a page of jobs, of those that carry a mark, if one is given."""
        wanted = {MARK: mark} if mark else omit
        ask = self.jobs_at.with_raw_response.list
        return self._call(lambda: ask(after=after or omit, limit=PAGE_ROWS, metadata=wanted), Jobs)

    def cancel(self, name: str) -> Job | ApiError:
        """Stop a job for good."""
        return self._call(lambda: self.jobs_at.with_raw_response.cancel(name), Job)

    def events(self, name: str, after: str) -> Events | ApiError:
        """Return a page of what happened to a job."""
        ask = self.jobs_at.with_raw_response.list_events
        return self._call(lambda: ask(name, after=after or omit, limit=PAGE_ROWS), Events)

    def checkpoints(self, name: str) -> Checkpoints | ApiError:
        """Return the last checkpoints of a job."""
        ask = self.jobs_at.checkpoints.with_raw_response.list
        return self._call(lambda: ask(name, limit=PAGE_ROWS), Checkpoints)

    def upload(self, path: Path, name: str) -> UploadedFile | ApiError:
        """Hand in a file."""
        content = path.read_bytes()
        ask = self.client.files.with_raw_response.create
        return self._call(lambda: ask(file=(name, content, "application/jsonl"), purpose="fine-tune"), UploadedFile)

    def file(self, name: str) -> UploadedFile | ApiError:
        """Return a file's card."""
        return self._call(lambda: self.client.files.with_raw_response.retrieve(name), UploadedFile)

    def model(self, name: str) -> ModelInfo | ApiError:
        """Return a model's card."""
        return self._call(lambda: self.client.models.with_raw_response.retrieve(name), ModelInfo)

    def content(self, name: str) -> bytes:
        """Return what is in a file; nothing where the host does not give it."""
        try:
            return self.client.files.with_raw_response.content(name).content
        except openai.APIError:
            return b""

    def _call(self, ask: Callable[[], Any], shape: type[Shape]) -> Shape | ApiError:
        try:
            return responses.read(ask().content, shape, self.key)
        except openai.APIStatusError as error:
            return responses.refused(error.response, self.key)
        except openai.APIConnectionError as error:
            return responses.silence(error, self.key)

    def fail(self, fault: ApiError, what: str = "") -> NoReturn:
        """Raise what a fault comes to, as one line that says what to do."""
        text = f"{self.url}: {what}{fault.message}"
        if fault.status == 402 or fault.codes & SPENT:
            raise BackendError(f"{text}; once there is credit, or the day is over, {GOES_ON}")
        if fault.status in (401, 403):
            raise ConfigError(f"{text}; put a key of this host's into {self.key_env}")
        if fault.status == PAGE:
            raise ConfigError(f"{text}; is it the host's address, up to and with /v1?")
        if fault.wait > LONGEST_WAIT:
            raise BackendError(f"{text}; come back in {span(fault.wait)}: {GOES_ON}")
        if fault.passes:
            raise BackendError(f"{text}; is the host up? Once it is, {GOES_ON}")
        raise ConfigError(f"{text}; is the address right, up to and with /v1?")


def passing(fault: ApiError) -> bool:
    """Return whether it is worth waiting for an answer."""
    return fault.passes and fault.status != PAGE and not fault.codes & SPENT and fault.wait <= LONGEST_WAIT


def patient(ask: Callable[[], Shape | ApiError], tries: int = TRIES) -> Shape | ApiError:
    """Ask what costs nothing until there is an answer, or no hope of one."""
    for tried in range(1, tries):
        answer = ask()
        if not isinstance(answer, ApiError) or not passing(answer):
            return answer
        rest(answer, tried)
    return ask()


def rest(fault: ApiError, tried: int) -> None:
    """Wait as long as the host asks, else longer each time."""
    if fault.wait >= NOTED_WAIT:
        console.note(f"the host asks for a pause of {span(fault.wait)}")
    time.sleep(fault.wait or WAIT * 2 ** (tried - 1))
