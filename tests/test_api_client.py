"""One server asked from many threads: what is tried again, what concerns one request, and what ends the run."""

import contextlib
import pickle
import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest
from fake_api import Asked, Reply, Server, dead, error, serving
from pydantic import BaseModel

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError, IrlhfError
from irlhf.executors.thread_pool import DaemonThreadPool
from irlhf.openai_api.api_client import ApiClient, RequestFailed
from irlhf.openai_api.failures import ApiFailure, FailureKind
from irlhf.openai_api.retry import RetryPolicy

pytestmark = pytest.mark.timeout(60)

KEY = "sk-canary-7f3a9c"


class Number(BaseModel):
    number: int


SHORT = RetryPolicy(wait=0.001, rate_limit_wait=0.002)
GOOD = Reply({"number": 7})
PAGE = Reply(b"<html>Log\nin</html>", headers={"content-type": "text/html"})


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_CUSTOM_HEADERS", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def ask(host: ApiClient, path: str = "score", **body: object) -> int:
    return host.ask(path, body, Number).number


def ask_often(host: ApiClient, times: int, threads: int = 1) -> list[int | Exception]:
    """Return what came of each request."""
    crew = DaemonThreadPool(threads)
    answers: list[Future[int]] = [crew.submit(ask, host) for _ in range(times)]
    return [answer.exception(20) or answer.result() for answer in answers]


def fails(host: ApiClient, path: str = "score", row: int = 0, **body: object) -> Exception:
    with pytest.raises((RequestFailed, IrlhfError)) as caught:
        ask(host, path, **body, **({"row": row} if row else {}))
    return caught.value


def told(failure: object) -> tuple[type, str]:
    return type(failure), str(failure)


@contextlib.contextmanager
def asking(*script: Reply, timeout: float = 60.0, retries: RetryPolicy = SHORT) -> Iterator[tuple[Server, ApiClient]]:
    with serving(script) as server:
        yield server, ApiClient(server.url, timeout=timeout, retries=retries)


def test_an_answer_is_read_into_the_shape_asked_for() -> None:
    with asking(GOOD) as (server, host):
        assert ask(host, "/score", text="ä") == 7
        assert ask(host, f"{server.root}/classify", text="b") == 7
    assert [(one.path, one.body) for one in server.seen] == [("/v1/score", {"text": "ä"}), ("/classify", {"text": "b"})]


@pytest.mark.parametrize(
    "fault",
    [
        error(500),
        error(503),
        error(408),
        error(409),
        error(429),
        Reply({"number": 7}, torn=True),
        Reply(reset=True),
        Reply(b'{"number": '),
        Reply(b""),
        PAGE,
        error(200),
        Reply({"error": {"message": "busy", "code": 429}}),
    ],
)
def test_what_passes_is_tried_again(fault: Reply) -> None:
    with asking(fault, fault, GOOD) as (server, host):
        assert ask(host) == 7
    assert len(server.seen) == 3


def test_what_comes_too_late_is_tried_three_times() -> None:
    slow = Reply({"number": 1}, delay=5)
    with asking(slow, slow, GOOD, slow, timeout=0.1) as (server, host):
        assert ask(host) == 7
        failure = fails(host)
    assert told(failure) == (RequestFailed, "no reply in time (timed out), in 3 tries")
    assert len(server.seen) == 6


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (error(500), "500 (not now), in 6 tries"),
        (
            Reply({"detail": "out of\n\tmemory\x1b[31m"}, 500),
            "500 (out of memory\N{SYMBOL FOR SUBSTITUTE FORM TWO}[31m), in 6 tries",
        ),
        (Reply({"message": "w" * 999}, 502), f"502 ({'w' * 200}), in 6 tries"),
        (Reply(b"", 500), "500 (Internal Server Error), in 6 tries"),
        (Reply(b'{"number": '), 'the reply is not JSON: {"number":, in 6 tries'),
        (Reply(b""), "the reply is not JSON: nothing, in 6 tries"),
        (error(200), "the reply is an error: not now, in 6 tries"),
        (Reply({"number": 7}, torn=True), "the connection broke ("),
        (Reply(reset=True), "the connection broke ("),
        (error(429), "429 (not now), in 6 tries"),
    ],
)
def test_a_request_whose_tries_are_used_up_is_unanswered(fault: Reply, reason: str) -> None:
    with asking(fault) as (server, host):
        failure = fails(host)
    assert isinstance(failure, RequestFailed)
    assert str(failure).startswith(reason)
    assert len(server.seen) == 6


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (error(400, "maximum context length is 4096"), "400 (maximum context length is 4096)"),
        (Reply({"detail": [{"loc": ["text"]}]}, 422), "422 ([{'loc': ['text']}])"),
        (Reply(b"too large", 413), "413 (too large)"),
        (Reply({"numbers": [7]}), "the reply has an unexpected shape (number: field required): {'numbers': [7]}"),
        (Reply({"error": {"message": "filtered", "code": 400}}), "the reply is an error: filtered"),
    ],
)
def test_a_refused_request_is_unanswered_at_once(fault: Reply, reason: str) -> None:
    with asking(fault) as (server, host):
        failure = fails(host)
    assert told(failure) == (RequestFailed, reason)
    assert len(server.seen) == 1


def test_half_a_character_is_not_sent_and_not_replaced() -> None:
    with asking(GOOD) as (server, host):
        assert "half a character" in str(fails(host, text="a\ud800"))
    assert server.seen == []


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        (
            error(429, "no credit", "insufficient_quota"),
            BackendError,
            "429 (no credit); once there is credit, or the limit is reset, the",
        ),
        (error(429, "3 a day", "daily_rate_limit_exceeded"), BackendError, "429 (3 a day); once"),
        (error(402, "pay"), BackendError, "402 (pay); once"),
        (error(429, retry_after="601"), BackendError, "429 (not now); come back in 10 min: the same command resumes"),
        (error(503, retry_after="9000"), BackendError, "503 (not now); come back in 2 h: "),
        (error(429, retry_after="1e999"), BackendError, "come back in inf h"),
        (error(401, "who?"), ConfigError, "401 (who?); put a key for this server into OPENAI_API_KEY"),
        (error(403, "no"), ConfigError, "403 (no); put a key"),
        (
            error(404, "nothing here"),
            ConfigError,
            "404 (nothing here); is the address right, up to and including /v1, and the model's name?",
        ),
        (error(405), ConfigError, "405 (not now); is the address right"),
        (error(400, "no such model", "model_not_found"), ConfigError, "400 (no such model); is the address right"),
    ],
)
def test_what_ends_the_run_ends_it_with_one_request_and_in_every_thread(
    fault: Reply, kind: type[IrlhfError], reason: str
) -> None:
    with asking(fault, GOOD) as (server, host):
        failure = fails(host)
        later = fails(host)
    assert isinstance(failure, kind)
    assert str(failure).startswith(f"{server.url}/score: ")
    assert reason in str(failure)
    assert told(later) == told(failure)
    assert len(server.seen) == 1


def test_a_date_too_far_away_ends_the_run() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)
    with asking(error(429, retry_after=date)) as (_, host):
        assert "come back in 3 h" in str(fails(host))


def test_a_model_that_is_not_there_is_named_beside_those_that_are() -> None:
    with asking(error(404, "no")) as (server, host):
        server.models = ["judge-large"]
        assert told(fails(host, model="judge-lagre")) == (
            ConfigError,
            f"{server.url} has no model 'judge-lagre'; did you mean 'judge-large'?",
        )


def test_a_key_that_was_good_before_is_not_blamed_for_text_that_is_forbidden() -> None:
    with asking(GOOD, error(403, "flagged"), GOOD) as (_, host):
        assert ask(host) == 7
        assert told(fails(host)) == (RequestFailed, "403 (flagged)")
        assert ask(host) == 7


def test_a_login_page_is_not_taken_for_a_server() -> None:
    with asking(PAGE) as (server, host):
        failure = fails(host)
    page = "the reply is not JSON: <html>Log in</html>; is the server's address right, up to and including /v1?"
    assert told(failure) == (ConfigError, f"{server.url}/score: {page}")


def test_nobody_there_ends_the_run_when_the_tries_of_one_request_are_used_up() -> None:
    failure = fails(ApiClient(dead(), retries=SHORT))
    assert isinstance(failure, BackendError)
    assert "/score: no reply in 6 tries (cannot connect (" in str(failure)
    assert "Connection refused" in str(failure)
    assert str(failure).endswith("; is the server up? The same command resumes")


def test_eight_requests_in_a_row_without_an_answer_end_the_run() -> None:
    with asking(error(500)) as (server, host):
        found = ask_often(host, 8)
        assert [type(one) for one in found] == [RequestFailed] * 7 + [BackendError]
        assert "no reply in 6 tries (500 (not now)); is the server up?" in str(found[-1])
        assert isinstance(fails(host), BackendError)
    assert len(server.seen) == 48


def test_an_answer_between_begins_the_row_anew() -> None:
    with asking(*[error(500)] * 42, GOOD, *[error(500)] * 42, GOOD) as (_, host):
        found = ask_often(host, 16)
    assert [type(one) for one in found] == [*[RequestFailed] * 7, int] * 2


def test_a_dead_server_does_not_use_up_the_rows_of_many_threads() -> None:
    with asking(error(500)) as (_, host):
        kinds = [type(one) for one in ask_often(host, 200, threads=32)]
    assert kinds.count(RequestFailed) == 7
    assert kinds.count(BackendError) == 193


def test_eight_refusals_before_any_answer_end_the_run() -> None:
    with asking(error(400, "logprobs: not of this model")) as (server, host):
        found = ask_often(host, 8)
    assert [type(one) for one in found] == [RequestFailed] * 7 + [ConfigError]
    assert str(found[-1]).startswith(f"{server.url}/score: 400 (logprobs: not of this model), and no request was")


def test_long_rows_beside_each_other_do_not_end_the_run() -> None:
    with asking(GOOD, *[error(400)] * 20, GOOD) as (_, host):
        found = ask_often(host, 22)
    assert [type(one) for one in found] == [int, *[RequestFailed] * 20, int]


def test_a_pause_that_the_server_asks_for_is_kept_by_everybody_and_the_limit_is_halved() -> None:
    with asking(error(429, retry_after="0.4"), *[Reply({"number": 7}, delay=0.02)] * 60) as (server, host):
        assert ask_often(host, 16, threads=16) == [7] * 16
    first, *later = [one.at for one in server.seen]
    assert host.limiter.cuts == 1
    assert [at for at in later if 0.1 < at - first < 0.4] == []
    assert len([at for at in later if at - first < 0.1]) <= 7  # which were under way
    assert 4 <= host.limiter.limit < 8


@pytest.mark.parametrize("headers", [{"retry_after_ms": "300"}, {"retry_after": "0.3"}])
def test_a_try_does_not_come_before_its_time(headers: dict[str, str]) -> None:
    with asking(error(500, **headers), GOOD) as (server, host):
        assert ask(host) == 7
    (gap,) = [later.at - one.at for one, later in pairwise(server.seen)]
    assert 0.3 <= gap < 0.6


def test_a_long_pause_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Reply({"error": "busy"}, 429, {"retry-after": "0.3"}, delay=0.05)
    notes: list[str] = []
    monkeypatch.setattr(console, "note", notes.append)
    with asking(*[busy] * 4, GOOD, retries=replace(SHORT, noted_wait=0.1)) as (server, host):
        assert ask_often(host, 4, threads=4) == [7] * 4
    assert notes == [f"{server.url} asks for a pause of 0 s"]


def test_waits_double_and_are_longer_where_it_was_too_much() -> None:
    longest = {FailureKind.SERVER_ERROR: [0.5, 1, 2, 4, 8, 8], FailureKind.RATE_LIMITED: [2, 4, 8, 16, 32, 32]}
    for kind, most in longest.items():
        waits = [RetryPolicy().delay(ApiFailure(kind, ""), tried) for tried in range(1, 7)]
        assert all(3 / 4 * longest <= wait <= longest for wait, longest in zip(waits, most, strict=True))


def test_requests_under_way_never_pass_the_limit_which_grows_while_all_is_well() -> None:
    with asking(Reply({"number": 7}, delay=0.005)) as (server, host):
        host.limiter.most = 12
        ask_often(host, 8, threads=64)
        assert server.most <= 8
        assert ask_often(host, 300, threads=64) == [7] * 300
        assert 8 < server.most <= host.limiter.limit == 12


def test_too_much_for_a_server_is_found_out_and_no_row_is_lost() -> None:
    def script(asked: Asked) -> Reply:
        return error(429) if server.now > 3 else Reply({"number": 7}, delay=0.01)

    with serving(script) as server:
        host = ApiClient(server.url, retries=SHORT)
        assert ask_often(host, 100, threads=32) == [7] * 100
        assert host.limiter.limit <= 8


def test_a_request_that_is_too_much_each_time_is_unanswered_in_the_end() -> None:
    def script(asked: Asked) -> Reply:
        return error(429, "too large") if asked.body else GOOD

    with serving(script) as server:
        host, crew = ApiClient(server.url, retries=SHORT), DaemonThreadPool(1)
        large = crew.submit(fails, host, "score", 1)
        while not large.done():
            ask(host)
    assert told(large.result()) == (RequestFailed, "429 (too large), in 24 tries")


def keys(server: Server) -> list[str | None]:
    return [one.headers.get("authorization") for one in server.seen]


def test_a_key_goes_only_to_whom_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("MINE", "my-key")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: secret")
    with serving([GOOD]) as server, serving([GOOD]) as other:
        for host in (ApiClient(server.url), ApiClient(server.url, "MINE")):
            for path in ("score", f"{server.root}/classify", f"{other.root}/score", f"{other.root.upper()}/score"):
                assert ask(host, path) == 7
    assert keys(server) == [f"Bearer {KEY}", None, "Bearer my-key", "Bearer my-key"]
    assert keys(other) == [None] * 4
    private = [{"openai-organization", "x-gateway"} & set(one.headers) for one in (*server.seen, *other.seen)]
    assert [len(one) for one in private] == [2, 0, 2, 2, 0, 0, 0, 0]


def test_where_no_key_is_a_placeholder_is_sent() -> None:
    with asking(GOOD) as (server, host):
        ask(host)
    assert keys(server) == ["Bearer none"]


def test_a_server_that_wants_a_key_at_a_whole_address_has_it_named() -> None:
    with asking(error(401)) as (server, host):
        failure = fails(host, f"{server.root}/classify?version=1")
    assert str(failure).startswith(f"{server.root}/classify: 401 (not now); name the environment variable that holds")


def test_a_key_that_is_named_and_not_there_ends_the_run() -> None:
    with serving([GOOD]) as server:
        failure = fails(ApiClient(server.url, "NOBODYS_KEY"))
    reason = f"{server.url}: environment variable NOBODYS_KEY for its key is not set; set it, or name another variable"
    assert told(failure) == (ConfigError, reason)
    assert server.seen == []


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 200])
def test_the_key_stands_nowhere(status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    code = "insufficient_quota" if status == 429 else ""
    with asking(error(status, f"wrong key: {KEY}", code)) as (server, host):
        failure = fails(host)
    assert keys(server)[0] == f"Bearer {KEY}"
    assert "wrong key: …" in str(failure)
    shown = [*traceback.format_exception(failure), caplog.text, repr(host), repr(pickle.dumps(host))]
    assert not [text for text in shown if KEY in text]
    assert (failure.__cause__, failure.__context__) == (None, None)


def test_another_address_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving([GOOD]) as server, serving([GOOD]) as other:
        monkeypatch.setenv("OPENAI_BASE_URL", other.url)
        assert ask(ApiClient(server.url)) == 7
    assert (len(server.seen), len(other.seen)) == (1, 0)


def test_a_host_travels_before_and_after_its_use() -> None:
    with serving([GOOD]) as server:
        host = ApiClient(server.url, timeout=5)
        for _ in range(2):
            host = pickle.loads(pickle.dumps(host))
            assert (host.url, host.key_env, host.timeout) == (server.url, "", 5)
            assert ask(host) == 7


@pytest.mark.parametrize("url", ["", "localhost:8000", "http://", f"http://me:{KEY}@127.0.0.1/v1", "http://h:0/v1"])
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="like http://127") as caught:
        ApiClient(url)
    assert KEY not in str(caught.value)


def test_tries_are_counted_for_each_request_alone() -> None:
    turns: dict[Any, int] = {}

    def script(asked: Asked) -> Reply:
        turn = turns[asked.body["row"]] = turns.get(asked.body["row"], 0) + 1
        return GOOD if turn == 6 else error(500)

    with serving(script) as server:
        host, crew = ApiClient(server.url, retries=SHORT), DaemonThreadPool(4)
        answers = [crew.submit(host.ask, "score", {"row": row}, Number) for row in range(12)]
        assert [answer.result(10).number for answer in answers] == [7] * 12
    assert len(server.seen) == 72
