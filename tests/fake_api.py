"""A server on a real socket that answers as a script says, for tests of whatever asks one."""

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str  # with /v1, where it is below it
    headers: Mapping[str, str]  # names in lower case
    body: Any
    at: float  # of the clock that never goes back


@dataclass(frozen=True)
class Reply:
    """What becomes of a request. Bytes are sent as they are, all else as JSON."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before the first word
    torn: bool = False  # half of the body is sent, and the connection closed
    reset: bool = False  # nothing is sent, and the connection torn down


Script = Sequence[Reply] | Callable[[Asked], Reply]  # of a sequence the last one is for all that come after


class Server(ThreadingHTTPServer):
    """The server of a script, and what it saw of requests that post. `models` are what it tells of at /v1/models."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.models = ["model"]
        self.seen: list[Asked] = []
        self.now = 0
        self.most = 0  # requests that were under way at the same time
        self.lock = threading.Lock()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reply(self, asked: Asked) -> Reply:
        with self.lock:
            self.seen.append(asked)
            place = len(self.seen) - 1
        return self.script(asked) if callable(self.script) else self.script[min(place, len(self.script) - 1)]

    def handle_error(self, *_: object) -> None:
        """Say nothing where a client has left."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet an answer

    def do_GET(self) -> None:
        held = [{"id": name} for name in self.server.models]
        self.say(Reply({"data": held}) if self.path == "/v1/models" else Reply("not found", 404))

    def do_POST(self) -> None:
        with self.server.lock:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = self.server.reply(Asked(self.path, headers, body, time.monotonic()))
            self.server.over.wait(reply.delay)
        finally:
            with self.server.lock:
                self.server.now -= 1
        self.say(reply)

    def say(self, reply: Reply) -> None:
        if reply.reset:
            self.tear()
            return
        packed = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(packed)))
        self.end_headers()
        self.wfile.write(packed[: len(packed) // 2] if reply.torn else packed)
        self.close_connection = self.close_connection or reply.torn

    def tear(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.wfile = self.rfile = open(os.devnull, "r+b", buffering=0)  # noqa: SIM115

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@contextmanager
def serving(script: Script) -> Iterator[Server]:
    """Run a server in a thread: `url` is its address up to and with /v1, `seen` what was asked of it."""
    with Server(script) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


def dead() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def error(status: int, message: str = "not now", code: str = "", **headers: str) -> Reply:
    """Return an error in OpenAI's shape."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": {"message": message, "code": code or None}}, status, named)
