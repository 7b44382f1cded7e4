"""A host of fine-tuning on a real socket that remembers: files, jobs, events, models, and what each job was charged.

    python openai_server.py ADDRESS.txt      writes its address there, and serves until it is killed

It speaks OpenAI's protocol as the SDK has it: every request is held against the SDK's own types, unknown keys
refused, and every answer reads under `_strict_response_validation`, but where a fault or a quirk says otherwise.
Faults are scripted by kind of request (`jobs.create`), and met in order; quirks are what a host always does.
"""

import email
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from openai_routes import ACTS, Body, Chatter, Quirks, Refused, State, error, parrot

BASE = "gpt-4.1-mini"


@dataclass(frozen=True)
class Fault:
    """What becomes of one request instead of an answer. With `after` it is done all the same, and the answer lost."""

    status: int = 0  # 0 is no fault, but a wait or something to `run`
    body: Any = None  # bytes are sent as they are; a function is called for it
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False
    reset: bool = False  # the connection is torn down
    delay: float = 0.0  # seconds
    run: Callable[[], None] | None = None


class OpenAIServer(ThreadingHTTPServer):
    """The host. `trainer` makes a model of the bytes of a training file."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, trainer: Callable[[bytes], Chatter] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.trainer = trainer or (lambda rows: parrot)
        self.lock = threading.RLock()
        self.over = threading.Event()
        self.begin()

    def begin(self) -> None:
        """Forget everything."""
        self.state, self.quirks = State(), Quirks()
        self.faults: dict[str, list[Fault | None]] = defaultdict(list)
        self.add_model(BASE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def jobs(self) -> list[Body]:
        return list(self.state.jobs.values())

    @property
    def charges(self) -> int:
        return sum(self.state.charged.values())

    def kinds(self, kind: str) -> list[Any]:
        """Return the bodies of all requests of one kind."""
        return [body for one, body in self.state.seen if one == kind]

    def add_model(self, name: str, shutdown_date: str | None = None) -> None:
        now = int(time.time())
        card = {"id": name, "object": "model", "created": now, "owned_by": "system", "shutdown_date": shutdown_date}
        self.state.models[name] = card

    def new(self, prefix: str, place: int) -> str:
        return f"{prefix}{place:04d}{os.urandom(3).hex()}"

    def handle_error(self, *_: object) -> None:
        """Say nothing where a client has left."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: OpenAIServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def do_DELETE(self) -> None:
        self.answer("DELETE")

    def answer(self, method: str) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        where = urlsplit(self.path)
        kind, names = route(method, where.path)
        body = raw if kind == "files.create" else json.loads(raw) if raw else dict(parse_qsl(where.query, True))
        faults = self.server.faults[kind]
        with self.server.lock:
            self.server.state.seen.append((kind, body))
            fault = (faults.pop(0) if faults else None) or Fault()
        if fault.after or not (fault.status or fault.reset):
            status, said = self.act(kind, names, body)
        if fault.run:
            fault.run()
        self.server.over.wait(fault.delay)
        if fault.reset:
            self.tear()
        elif fault.status:
            body = fault.body() if callable(fault.body) else fault.body
            self.say(fault.status, error(fault.status) if body is None else body, fault.headers)
        else:
            self.say(status, said)

    def act(self, kind: str, names: Sequence[str], body: Any) -> tuple[int, Any]:
        if kind not in ACTS:
            return 404, error(404, f"Invalid URL ({self.command} {self.path})")
        if kind == "files.create":
            body = multipart(self.headers, body)
        with self.server.lock:
            try:
                return 200, ACTS[kind](self.server, *names, body)
            except Refused as refused:
                return refused.status, error(refused.status, str(refused), refused.code)

    def say(self, status: int, body: Any, headers: Mapping[str, str] = {}) -> None:
        packed = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(packed)))
        self.end_headers()
        self.wfile.write(packed)

    def tear(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.wfile = self.rfile = open(os.devnull, "r+b", buffering=0)  # noqa: SIM115

    def log_message(self, *_: object) -> None:
        """Be quiet."""


ROUTES = (
    ("files.create", "POST", r"/v1/files"),
    ("files.list", "GET", r"/v1/files"),
    ("files.content", "GET", r"/v1/files/([^/]+)/content"),
    ("files.retrieve", "GET", r"/v1/files/([^/]+)"),
    ("files.delete", "DELETE", r"/v1/files/([^/]+)"),
    ("jobs.create", "POST", r"/v1/fine_tuning/jobs"),
    ("jobs.list", "GET", r"/v1/fine_tuning/jobs"),
    ("jobs.cancel", "POST", r"/v1/fine_tuning/jobs/([^/]+)/cancel"),
    ("jobs.events", "GET", r"/v1/fine_tuning/jobs/([^/]+)/events"),
    ("jobs.checkpoints", "GET", r"/v1/fine_tuning/jobs/([^/]+)/checkpoints"),
    ("jobs.retrieve", "GET", r"/v1/fine_tuning/jobs/([^/]+)"),
    ("models.list", "GET", r"/v1/models"),
    ("models.retrieve", "GET", r"/v1/models/([^/]+)"),
    ("chat", "POST", r"/v1/chat/completions"),
    ("state", "GET", r"/state"),
)


def route(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    for kind, verb, pattern in ROUTES:
        if verb == method and (found := re.fullmatch(pattern, path)):
            return kind, found.groups()
    return "unknown", ()


def multipart(headers: Message, raw: bytes) -> Body:
    parsed = email.message_from_bytes(f"content-type: {headers['content-type']}\r\n\r\n".encode() + raw)
    parts: Body = {}
    for part in parsed.get_payload():  # type: ignore[union-attr]
        name = part.get_param("name", header="content-disposition")  # type: ignore[union-attr]
        parts[str(name)] = part.get_payload(decode=True)  # type: ignore[union-attr]
        if filename := part.get_filename():  # type: ignore[union-attr]
            parts["filename"] = filename
    return parts


@contextmanager
def hosting(trainer: Callable[[bytes], Chatter] | None = None) -> Iterator[OpenAIServer]:
    """Run a host in a thread; `url` is its address up to and with /v1."""
    with OpenAIServer(trainer) as host:
        threading.Thread(target=host.serve_forever, args=(0.01,), daemon=True).start()
        yield host
        host.over.set()
        host.shutdown()


def main() -> None:
    with hosting() as host:
        address = Path(sys.argv[1])
        address.with_suffix(".new").write_text(host.url)
        address.with_suffix(".new").rename(address)
        threading.Event().wait()


if __name__ == "__main__":
    main()
