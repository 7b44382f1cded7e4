"""Data sets of the Hub, by the Hub's own client from a hub on a real socket; nothing here asks the one of the world."""

import gzip
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow
import pytest
from fake_api import dead
from helpers import Row, process, read
from huggingface_hub import constants
from pyarrow import parquet

from irlhf.core.errors import BackendError
from irlhf.data.hub import fetch
from irlhf.io.hub_client import set_up_hub_client

MAIN, CONVERTED = "main", "refs/convert/parquet"
REPO = "Org/some-data"


def table(rows: list[Row]) -> bytes:
    made = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), made)
    return made.getvalue()


def pairs(name: str, count: int = 2) -> list[Row]:
    return [
        {
            "chosen": f"\n\nHuman: {name} {i}?\n\nAssistant: Yes.",
            "rejected": f"\n\nHuman: {name} {i}?\n\nAssistant: No.",
        }
        for i in range(count)
    ]


LINES = gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in pairs("line")))
HELD: dict[str, dict[str, bytes]] = {
    MAIN: {"README.md": b"# Data", "helpful/train.jsonl.gz": LINES},
    CONVERTED: {
        "default/test/0000.parquet": table(pairs("test")),
        "default/train/0000.parquet": table(pairs("first")),
        "default/train/0001.parquet": table(pairs("second")),
        "other/partial-train/0000.parquet": table(pairs("large")),
        "README.md": b"",
    },
}


class Hub(ThreadingHTTPServer):
    """A hub that holds one data set: files by revision. `broken` answers all with that status."""

    daemon_threads = True

    def __init__(self, held: Mapping[str, Mapping[str, bytes]] = HELD, broken: int = 0, code: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.held, self.broken, self.code = held, broken, code
        self.asked: list[str] = []

    def prepare(self, *arguments: object, **more: str) -> Any:
        """Run prepare as a process that knows this hub alone."""
        address = f"http://127.0.0.1:{self.server_address[1]}"
        return prepare(address, *arguments, **more)


def prepare(address: str, *arguments: object, **more: str) -> Any:
    own = {"HF_ENDPOINT": address, "HF_HOME": str(Path("cache").resolve()), "HF_HUB_OFFLINE": "0", **more}
    return process("prepare", *arguments, env={**os.environ, **own})


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        if self.server.broken or f"/{REPO}/" not in path:
            self.say(b"", self.server.broken or 404, code=self.server.code or "RepoNotFound")
            return
        revision = next((one for one in self.server.held if f"/{one}" in path), "")
        files = self.server.held.get(revision, {})
        name = path.partition(f"/resolve/{revision}/")[2]
        if not revision:
            self.say(b"", 404, code="RevisionNotFound")
        elif path.startswith("/api/"):
            tree = [{"type": "file", "path": one, "size": len(files[one]), "oid": "0" * 40} for one in files]
            folders = [{"type": "directory", "path": "default", "oid": "0" * 40}]
            self.say(json.dumps(folders + tree).encode())
        elif name in files:
            self.say(files[name])
        else:
            self.say(b"", 404, code="EntryNotFound")

    def say(self, body: bytes, status: int = 200, code: str = "") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/json")
        self.send_header("etag", f'"{sha256(body).hexdigest()}"')
        self.send_header("x-repo-commit", "c" * 40)
        if code:
            self.send_header("x-error-code", code)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as one:
        yield started(one)
        one.shutdown()


def started(hub: Hub) -> Hub:
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    return hub


def refusal(done: Any) -> tuple[int, str]:
    """The exit code and the one line that says why; what was asked for stands above it."""
    told = [line for line in done.stderr.decode().splitlines() if not line.endswith(": looking up files on the Hub")]
    assert len(told) == 1, told
    assert not list(Path.cwd().glob("out.jsonl*"))
    return done.returncode, told[0].removeprefix("irlhf: ")


def test_a_split_is_read_from_all_its_files_in_order(hub: Hub) -> None:
    done = hub.prepare(f"hub:{REPO}:default#train", "-o", "out.jsonl")
    assert done.returncode == 0, done.stderr
    rows = read(Path("out.jsonl"))
    assert [row["id"] for row in rows][::2] == [
        f"some-data-train-{n}a" for n in ("0000-0", "0000-1", "0001-0", "0001-1")
    ]
    assert [row["prompt"][0]["content"] for row in rows][::2] == ["first 0?", "first 1?", "second 0?", "second 1?"]
    card = json.loads(Path("out.jsonl.run.json").read_text())["inputs"]
    digests = [sha256(HELD[CONVERTED][f"default/train/000{n}.parquet"]).hexdigest() for n in (0, 1)]
    assert [one["sha256"] for one in card.values()] == digests
    assert b"reading default/train/0000.parquet, default/train/0001.parquet\n" in done.stderr


@pytest.mark.slow
def test_the_only_split_of_a_name_needs_no_more(hub: Hub) -> None:
    done = hub.prepare(f"hub:{REPO}#test", "-o", "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in read(Path("out.jsonl"))] == [f"some-data-test-{n}" for n in ("0a", "0b", "1a", "1b")]


def test_a_file_of_the_authors_is_read_and_asked_for_once(hub: Hub) -> None:
    source = f"hub:{REPO}/helpful/train.jsonl.gz"
    assert hub.prepare(source, "-o", "out.jsonl").returncode == 0
    assert read(Path("out.jsonl"))[0]["id"] == "some-data-helpful-train-0a"
    offline = hub.prepare(source, "-o", "again.jsonl", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert Path("again.jsonl").read_bytes() == Path("out.jsonl").read_bytes()


@pytest.mark.slow
def test_a_local_file_and_a_data_set_make_one_output(hub: Hub) -> None:
    Path("own.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    assert hub.prepare("own.jsonl", f"hub:{REPO}#test", "-o", "out.jsonl").returncode == 0
    assert [row["source"] for row in read(Path("out.jsonl"))] == ["own", *["some-data-test"] * 4]


@pytest.mark.slow
def test_a_split_that_the_hub_has_cut_is_told(hub: Hub) -> None:
    done = hub.prepare(f"hub:{REPO}:other", "-o", "out.jsonl")
    assert done.returncode == 0
    assert b"warning: hub:Org/some-data:other: the Hub converts only the beginning of this large split" in done.stderr


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            f"hub:{REPO}",
            "several splits; choose one of hub:Org/some-data:default#test, hub:Org/some-data:default#train, hub",
        ),
        (f"hub:{REPO}#tset", "no such split; choose one of hub:Org/some-data:default#test,"),
        (
            f"hub:{REPO}/helpful/test.jsonl",
            "no such file in the data set; choose one of README.md, helpful/train.jsonl.gz",
        ),
        (f"hub:{REPO}/README.md@v9", "no such revision"),
        ("hub:Org/else", "no such data set on the Hub, or a private one (set HF_TOKEN)"),
        ("hub:Org/..", "invalid data set name ("),
        ("hub:alone", "expected hub:ORG/NAME:CONFIG#SPLIT or hub:ORG/NAME/FILE@REVISION"),
        (f"hub:{REPO}@main#train", "expected hub:ORG/NAME:CONFIG#SPLIT"),
    ],
)
def test_what_is_not_there_is_named_in_one_line(hub: Hub, source: str, told: str) -> None:
    code, line = refusal(hub.prepare(source, "-o", "out.jsonl"))
    assert (code, line.startswith(f"{source}: {told}")) == (2, True), line


@pytest.mark.slow
def test_terms_that_were_not_agreed_to_are_named() -> None:
    with Hub(broken=403, code="GatedRepo") as hub:
        code, line = refusal(started(hub).prepare(f"hub:{REPO}#test", "-o", "out.jsonl"))
        hub.shutdown()
    assert (code, "accept its terms at https://huggingface.co/datasets/Org/some-data" in line) == (2, True), line


@pytest.mark.slow
def test_a_hub_that_answers_wrongly_may_be_tried_again() -> None:
    with Hub(broken=400, code="Other") as hub:
        code, line = refusal(started(hub).prepare(f"hub:{REPO}#test", "-o", "out.jsonl"))
        hub.shutdown()
    assert (code, "cannot reach the Hub (" in line) == (3, True), line


@pytest.mark.parametrize("source", [f"hub:{REPO}#test", f"hub:{REPO}/helpful/train.jsonl.gz"])
def test_without_a_hub_one_line_says_what_to_do(source: str) -> None:
    code, line = refusal(prepare(dead().removesuffix("/v1"), source, "-o", "out.jsonl", HF_HUB_OFFLINE="1"))
    assert (code, line.startswith(f"{source}: cannot reach the Hub (")) == (3, True), line
    assert line.endswith("; try again, or use a local file")


def test_a_real_file_gives_the_rows_that_it_gives_from_the_disk(shared: Path) -> None:
    real = shared / "hh-rlhf" / "helpful-base.test.jsonl.gz"
    with Hub({MAIN: {"helpful-base/test.jsonl.gz": real.read_bytes()}}) as hub:
        done = started(hub).prepare(f"hub:{REPO}/helpful-base/test.jsonl.gz@main", "-o", "out.jsonl")
        assert done.returncode == 0, done.stderr
        hub.prepare(real, "-o", "disk.jsonl")
        hub.shutdown()
    own = ("id", "source", "group", "pair")
    told = [
        [{k: v for k, v in row.items() if k not in own} for row in read(Path(f))] for f in ("out.jsonl", "disk.jsonl")
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 4704


def test_without_a_network_the_client_is_offline_and_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    set_up_hub_client.cache_clear()
    with pytest.raises(BackendError, match=r"hub:nobody/none: cannot reach the Hub \(offline\)"):
        fetch(Path("hub:nobody/none"))
    set_up_hub_client.cache_clear()
