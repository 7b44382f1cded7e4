"""What a host of fine-tuning does, and what it remembers: the deeds behind openai_server.py.

Every request is held against the SDK's own types, and unknown keys are refused.
"""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.fine_tuning.job_create_params import JobCreateParams
from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

if TYPE_CHECKING:
    from openai_server import OpenAIServer

STATUSES = ("validating_files", "running", "succeeded")  # one a look
SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")
LEAST = 10  # rows that can be trained on

Body = dict[str, Any]


class Chatter(Protocol):
    """A model that was trained: answers with tokens, their logprobs and the likeliest others at each place."""

    def __call__(self, messages: Sequence[Body], seed: int, most: int, how: Mapping[str, float]) -> list["Said"]: ...


@dataclass(frozen=True)
class Said:
    """One token as it was drawn."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    end: bool = False  # of the turn; it has no text


def parrot(messages: Sequence[Body], seed: int, most: int, how: Mapping[str, float]) -> list[Said]:
    """Answer with some of the words that were said."""
    words = str(messages[-1]["content"]).split()[: 2 + seed % 5]
    top = tuple((f" w{i}", -1.0 - i) for i in range(20))
    return [Said(f" {word}", -0.5, top) for word in words][:most] + [Said("", -0.1, top, end=True)] * (
        len(words) < most
    )


@dataclass
class Quirks:
    """How a host differs from OpenAI's."""

    lists: bool = True  # whether jobs can be listed
    filters: bool = True  # by metadata
    remembers: bool = True  # metadata at all
    late: int = 0  # lists that a new job is missing from
    endless: bool = False  # has_more, always
    takes: tuple[str, ...] = ()  # keys of a job that the SDK does not know
    statuses: tuple[str, ...] = STATUSES  # one a look; the last one stays
    error: Any = None  # of a job that is well
    failure: Any = None  # of a job that is not
    name: str = "ft:{model}:org::{job}"  # of a model that was trained; empty is null
    checkpoints: int = 0
    results: str = "step,train_loss,valid_loss\n1,2.5,2.6\n2,1.5,\n"
    plural: bool = True  # n is heeded
    logprobs: bool = True
    censored: bool = False  # every logprob is -9999


@dataclass
class State:
    """All that a host remembers."""

    files: dict[str, Body] = field(default_factory=dict)
    jobs: dict[str, Body] = field(default_factory=dict)
    models: dict[str, Body] = field(default_factory=dict)
    trained: dict[str, Chatter] = field(default_factory=dict)
    seen: list[tuple[str, Any]] = field(default_factory=list)  # kinds of requests, and bodies
    charged: Counter[str] = field(default_factory=Counter)  # of each job, when it has been trained
    unlisted: Counter[str] = field(default_factory=Counter)
    prompts: list[str] = field(default_factory=list)  # for the cache


class Refused(Exception):
    """A request that the host does not take."""

    def __init__(self, message: str, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def error(status: int, message: str = "not now", code: str | None = None) -> Body:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def forbid_unknown_keys() -> None:
    """Make pydantic refuse what the SDK's types do not name."""
    for name, module in list(sys.modules.items()):
        for one in vars(module).values() if name.startswith("openai.types") else ():
            if is_typeddict(one):
                one.__pydantic_config__ = ConfigDict(extra="forbid")


forbid_unknown_keys()
JOB = TypeAdapter(JobCreateParams)
CHAT = TypeAdapter(CompletionCreateParamsNonStreaming)


def checked(shape: TypeAdapter[Any], body: Body) -> Body:
    try:
        shape.validate_python(body)
        for message in body.get("messages", ()):
            if message.get("role") not in ("developer", "system", "user", "assistant", "tool"):
                raise Refused(f"'{message.get('role')}' is no role")
    except ValidationError as problem:
        first = problem.errors()[0]
        raise Refused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from problem
    return body


def add_file(host: "OpenAIServer", content: bytes, filename: str, purpose: str) -> Body:
    made = {"bytes": len(content), "created_at": int(time.time()), "filename": filename, "object": "file"}
    card = {"id": host.new("file-", len(host.state.files)), "purpose": purpose, "status": "processed", **made}
    host.state.files[card["id"]] = {"card": card, "content": content}
    return card


def create_file(host: "OpenAIServer", body: Body) -> Body:
    if set(body) - {"file", "filename", "purpose"} or body["purpose"] != b"fine-tune":
        raise Refused(f"unknown parts or purpose ({', '.join(body)})")
    if not body["filename"].endswith(".jsonl"):
        raise Refused("only .jsonl is trained on")
    return add_file(host, body["file"], body["filename"], "fine-tune")


def find_file(host: "OpenAIServer", name: str, body: Body) -> Body:
    if name not in host.state.files:
        raise Refused(f"No such File object: {name}", 404)
    card: Body = host.state.files[name]["card"]
    return card


def file_content(host: "OpenAIServer", name: str, body: Body) -> bytes:
    find_file(host, name, body)
    content: bytes = host.state.files[name]["content"]
    return content


def delete_file(host: "OpenAIServer", name: str, body: Body) -> Body:
    find_file(host, name, body)
    del host.state.files[name]
    return {"id": name, "object": "file", "deleted": True}


def list_files(host: "OpenAIServer", query: Body) -> Body:
    return paged([one["card"] for one in host.state.files.values()], query)


def paged(rows: Sequence[Body], query: Body, endless: bool = False) -> Body:
    """Return the page behind `after`. An endless list begins anew at its end."""
    names = [row["id"] for row in rows]
    first = names.index(query["after"]) + 1 if query.get("after") in names else 0
    page = list(rows[first : first + int(query.get("limit") or 20)])
    if endless and not page:
        page = list(rows[:1])
    return {"object": "list", "data": page, "has_more": endless or first + len(page) < len(rows)}


def create_job(host: "OpenAIServer", body: Body) -> Body:
    known = {name: value for name, value in body.items() if name not in host.quirks.takes}
    if "hyperparameters" in host.quirks.takes and "hyperparameters" in body:
        known.pop("hyperparameters", None)
    checked(JOB, known)
    if body["model"] not in host.state.models:
        raise Refused(f"Model {body['model']} is not available for fine-tuning", 400, "model_not_available")
    for role in ("training_file", "validation_file"):
        if body.get(role):
            find_file(host, body[role], {})
    name = host.new("ftjob-", len(host.state.jobs))
    method = body.get("method", {"type": "supervised"})
    given = body.get("hyperparameters") or method.get(method["type"], {}).get("hyperparameters", {})
    job = {
        "id": name,
        "object": "fine_tuning.job",
        "created_at": int(time.time()),
        "error": host.quirks.error,
        "fine_tuned_model": None,
        "finished_at": None,
        "hyperparameters": {key: given.get(key, "auto") for key in ("n_epochs", "batch_size")},
        "model": body["model"],
        "organization_id": "org-1",
        "result_files": [],
        "seed": body.get("seed") or 0,
        "status": host.quirks.statuses[0],
        "trained_tokens": None,
        "training_file": body["training_file"],
        "validation_file": body.get("validation_file"),
        "metadata": body.get("metadata") if host.quirks.remembers else None,
        "method": method,
    }
    host.state.jobs[name] = {"job": job, "looks": 0, "events": [], "checkpoints": []}
    host.state.unlisted[name] = host.quirks.late
    tell(host, name, "Created fine-tuning job")
    return job


def tell(host: "OpenAIServer", name: str, message: str, level: str = "info") -> None:
    events = host.state.jobs[name]["events"]
    made = {"id": f"{name}-event-{len(events)}", "created_at": int(time.time()), "object": "fine_tuning.job.event"}
    events.append({**made, "level": level, "message": message, "type": "message", "data": None})


def found(host: "OpenAIServer", name: str) -> Body:
    if name not in host.state.jobs:
        raise Refused(f"Could not find fine tune: {name}", 404, "fine_tune_not_found")
    record: Body = host.state.jobs[name]
    return record


def list_jobs(host: "OpenAIServer", query: Body) -> Body:
    if not host.quirks.lists:
        raise Refused("Not found", 404)
    wanted = {key[9:-1]: value for key, value in query.items() if key.startswith("metadata[")}
    rows = []
    for name, record in reversed(host.state.jobs.items()):
        held = record["job"]["metadata"] or {}
        hidden = host.state.unlisted[name] > 0
        host.state.unlisted[name] -= 1
        matches = not host.quirks.filters or all(held.get(key) == value for key, value in wanted.items())
        if matches and not hidden:
            rows.append(record["job"])
    return paged(rows, query, host.quirks.endless)


def look(host: "OpenAIServer", name: str, body: Body) -> Body:
    """Return a job, which goes on by one status a look."""
    record = found(host, name)
    job: Body = record["job"]
    if job["status"] in ("succeeded", "failed", "cancelled"):
        return job
    record["looks"] += 1
    status = host.quirks.statuses[min(record["looks"], len(host.quirks.statuses) - 1)]
    content = host.state.files.get(job["training_file"], {}).get("content", b"")
    problem = wrong(content, job["method"]["type"])
    if problem and status in ("running", "succeeded"):
        host.quirks.failure, status = {"code": "invalid_training_file", "message": problem, "param": None}, "failed"
    if status != job["status"]:
        tell(host, name, f"The job is now {status}")
    job["status"] = status
    if status == "succeeded":
        succeed(host, record)
    if status == "failed":
        job["error"] = host.quirks.failure or {"code": "server_error", "message": "it broke", "param": None}
        tell(host, name, f"Failed: {job['error'].get('message')}", "error")
    return job


def wrong(content: bytes, method: str) -> str:
    """Return what OpenAI would say against a training file."""
    rows = content.decode().splitlines()
    if len(rows) < LEAST:
        return f"Training file has {len(rows)} example(s), but must have at least {LEAST} examples"
    for number, row in enumerate(rows, 1):
        line = json.loads(row)
        keys = {"input", "preferred_output", "non_preferred_output"} if method == "dpo" else {"messages"}
        if set(line) != keys:
            return f"Example {number}: {sorted(line)} is not the format of {method}"
        learnt = [line["preferred_output"], line["non_preferred_output"]] if method == "dpo" else [line["messages"]]
        if any(not messages or messages[-1].get("role") != "assistant" for messages in learnt):
            return f"Example {number}: last message must be from the assistant"
        if method == "dpo" and (line["input"]["messages"] or [{}])[-1].get("role") != "user":
            return f"Example {number}: the input must end with a message of the user"
        if token := SPECIAL.search(row):
            return f"Example {number} message contains an invalid token: {token[0]}"
    return ""


def succeed(host: "OpenAIServer", record: Body) -> None:
    job, quirks = record["job"], host.quirks
    host.state.charged[job["id"]] += 1
    content = host.state.files[job["training_file"]]["content"]
    trained = host.trainer(content)
    names = []
    if quirks.name:
        job["fine_tuned_model"] = quirks.name.format(model=job["model"], job=job["id"])
        names.append(job["fine_tuned_model"])
    for step in range(1, quirks.checkpoints + 1):
        made = {"id": f"ftckpt-{step}", "created_at": int(time.time()), "object": "fine_tuning.job.checkpoint"}
        names.append(f"ft:{job['model']}:org::{job['id']}:ckpt-step-{step}")
        placed = {"fine_tuned_model_checkpoint": names[-1], "fine_tuning_job_id": job["id"], "step_number": step}
        record["checkpoints"].append({**made, **placed, "metrics": {"step": step, "train_loss": 1.0}})
    for name in names:
        host.add_model(name)
        host.state.trained[name] = trained
    if quirks.results:
        card = add_file(host, quirks.results.encode(), "step_metrics.csv", "fine-tune-results")
        job["result_files"] = [card["id"]]
    job["finished_at"], job["trained_tokens"] = int(time.time()), len(content) // 4


def cancel(host: "OpenAIServer", name: str, body: Body) -> Body:
    job: Body = found(host, name)["job"]
    if job["status"] in ("succeeded", "failed", "cancelled"):
        raise Refused(f"Job has already completed: {job['status']}")
    job["status"] = "cancelled"
    tell(host, name, "Cancelled")
    return job


def events(host: "OpenAIServer", name: str, query: Body) -> Body:
    return paged(found(host, name)["events"][::-1], query, host.quirks.endless)


def checkpoints(host: "OpenAIServer", name: str, query: Body) -> Body:
    return paged(found(host, name)["checkpoints"][::-1], query, host.quirks.endless)


def list_models(host: "OpenAIServer", query: Body) -> Body:
    return {"object": "list", "data": list(host.state.models.values())}


def find_model(host: "OpenAIServer", name: str, query: Body) -> Body:
    if name not in host.state.models:
        raise Refused(f"The model '{name}' does not exist", 404, "model_not_found")
    return host.state.models[name]


def chat(host: "OpenAIServer", body: Body) -> Body:
    checked(CHAT, {"stream": False, **body})
    find_model(host, body["model"], {})
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise Refused("top_logprobs needs logprobs")
    speak = host.state.trained.get(body["model"], parrot)
    most = body.get("max_completion_tokens") or body.get("max_tokens") or 64
    how = {name: body.get(name, 1.0) for name in ("temperature", "top_p")}
    count = (body.get("n") or 1) if host.quirks.plural else 1
    seed = body.get("seed") or 0
    drawn = [speak(body["messages"], seed * 1000 + k, most, how) for k in range(count)]
    prompt = json.dumps(body["messages"])
    cached = max((shared(prompt, one) for one in host.state.prompts), default=0) // 4
    host.state.prompts.append(prompt)
    tokens = sum(map(len, drawn))
    usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": tokens, "total_tokens": len(prompt) // 4 + tokens}
    return {
        "id": f"chatcmpl-{len(host.state.seen)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [choice(host, body, index, one) for index, one in enumerate(drawn)],
        "usage": {**usage, "prompt_tokens_details": {"cached_tokens": cached}},
    }


def shared(one: str, other: str) -> int:
    """Return how many characters both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def choice(host: "OpenAIServer", body: Body, index: int, drawn: Sequence[Said]) -> Body:
    text, finish, kept = "", "length", []
    stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
    for one in drawn:
        if one.end or any(stop in text + one.text for stop in stops):
            finish = "stop"
            break
        text += one.text
        kept.append(one)
    asked = body.get("logprobs") and host.quirks.logprobs
    top = body.get("top_logprobs") or 0
    told = [token(replace(one, logprob=-9999.0) if host.quirks.censored else one, top) for one in kept]
    message = {"role": "assistant", "content": text, "refusal": None}
    logprobs = {"content": told, "refusal": None} if asked else None
    return {"index": index, "finish_reason": finish, "message": message, "logprobs": logprobs}


def token(one: Said, top: int) -> Body:
    """Return a token as the SDK has it."""
    likeliest = [{"token": text, "logprob": number, "bytes": list(text.encode())} for text, number in one.top[:top]]
    return {"token": one.text, "logprob": one.logprob, "bytes": list(one.text.encode()), "top_logprobs": likeliest}


def state(host: "OpenAIServer", query: Body) -> Body:
    return {"jobs": [one["job"] for one in host.jobs], "charged": host.charges, "files": len(host.state.files)}


ACTS: Mapping[str, Callable[..., Any]] = {
    "files.create": create_file,
    "files.list": list_files,
    "files.content": file_content,
    "files.retrieve": find_file,
    "files.delete": delete_file,
    "jobs.create": create_job,
    "jobs.list": list_jobs,
    "jobs.retrieve": look,
    "jobs.cancel": cancel,
    "jobs.events": events,
    "jobs.checkpoints": checkpoints,
    "models.list": list_models,
    "models.retrieve": find_model,
    "chat": chat,
    "state": state,
}
