"""Send JSON to one server from many threads, and separate failures of one request from those that end the run.

    ask ──▶ limiter ──▶ request ──▶ a reply of the expected shape
              ▲           │
              └── wait ◀──┼─ busy, broken, late: tried again
                          ├─ refused, or the last try failed ──▶ RequestFailed: this request alone
                          └─ no key, no such model, no credit, unreachable ──▶ ConfigError, BackendError: the run

The openai SDK handles keys, proxies, timeouts and errors. Its own retries are off: they would send a paid request
again, and a thread that waits inside the SDK cannot hold back the others. It is imported with the first request.
"""

import json
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError, IrlhfError
from irlhf.core.registry import did_you_mean
from irlhf.openai_api.concurrency import FIRST, MOST, AdaptiveLimiter, requested_wait
from irlhf.openai_api.endpoint import GOES_ON, KEY, NO_KEY, cleaned, error_text, is_address, key_of, origin
from irlhf.openai_api.failures import ApiFailure, FailureKind, Shape, failure_of, read_reply
from irlhf.openai_api.retry import DEFAULT_RETRIES, RetryPolicy, duration

if TYPE_CHECKING:
    from openai import APIConnectionError, Omit, OpenAI

_ROW = 8  # failed requests in a row after which the server is at fault
_CONNECT = 5.0  # seconds to establish a connection
_BUSY = (FailureKind.RATE_LIMITED, FailureKind.OVERLOADED, FailureKind.TIMEOUT)
_PLAIN = {"accept", "content-type", "user-agent"}  # headers that any server may see


class RequestFailed(Exception):
    """One request has no reply; others may succeed. `refused` if the server rejected the request as it is."""

    def __init__(self, reason: str, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class ApiClient:
    """A server, for any number of threads. Pickled as its address and settings alone.

    The key of OPENAI_API_KEY is sent to addresses below `url`. A key named by `key_env` is sent to all addresses of
    that server. Neither is sent to another server. `timeout` is in seconds, until the next bytes of a reply.
    """

    def __init__(
        self,
        url: str,
        key_env: str = "",
        timeout: float = 60.0,
        most: int = MOST,
        retries: RetryPolicy = DEFAULT_RETRIES,
    ) -> None:
        if not is_address(url):
            # Not repeated: it may hold a password.
            raise ConfigError(
                "a server's address is like http://127.0.0.1:8000/v1, without a key: those come from the environment"
            )
        self.url, self.key_env, self.timeout, self.retries = url, key_env, timeout, retries
        self.limiter = AdaptiveLimiter(min(FIRST, most), most)
        self._lock = Lock()
        self._client: OpenAI | None = None
        self._key = ""
        self._answered = 0
        self._refused = 0
        self._failed = 0  # since the last answer
        self._end: IrlhfError | None = None  # raised in every thread, once it is in one

    def __reduce__(self) -> tuple[type["ApiClient"], tuple[str, str, float, int, RetryPolicy]]:
        return ApiClient, (self.url, self.key_env, self.timeout, self.limiter.most, self.retries)

    def models(self) -> list[str]:
        """Return the names of the models on the server. Raises RequestFailed, ConfigError and BackendError."""
        return sorted({model.id for model in self.ask("models", None, _Models).data})

    def ask(self, path: str, body: Mapping[str, object] | None, shape: type[Shape]) -> Shape:
        """Post to a path below `url` or to a whole address; without a body, get it.

        Raises RequestFailed, ConfigError and BackendError.
        """
        before, tried, timeouts = self._answered, 0, 0
        while isinstance(reply := self._attempt(path, body, shape), ApiFailure):
            if not self.retries.retries(reply):
                self._fail(path, body or {}, reply)
            tried += 1
            timeouts += reply.kind is FailureKind.TIMEOUT
            alone = self._answered == before
            if self.retries.exhausted(reply, tried=tried, timeouts=timeouts, alone=alone):
                self._give_up(path, reply, tried, alone)
            if not reply.retry_after:  # where the server said how long, the limiter holds back every thread
                time.sleep(self.retries.delay(reply, tried))
        return reply

    def call(self, request: Callable[["OpenAI"], Any], shape: type[Shape], tries: int = 1) -> Shape | ApiFailure:
        """Return the reply to a request of the SDK, or its failure. Only send what is not paid for more than once."""
        for tried in range(1, tries):
            reply = self._once(request, shape)
            if not isinstance(reply, ApiFailure) or not self.worth_waiting(reply):
                return reply
            self.rest(reply, tried)
        return self._once(request, shape)

    def worth_waiting(self, failure: ApiFailure) -> bool:
        """Return whether a single client should try again. A web page means a wrong address."""
        return self.retries.retries(failure) and failure.kind is not FailureKind.HTML_PAGE

    def rest(self, failure: ApiFailure, tried: int) -> None:
        """Wait as long as the server asks, else longer after each try."""
        self._note_wait(failure.retry_after)
        time.sleep(self.retries.delay(failure, tried))

    def error(self, failure: ApiFailure, what: str = "", key_hint: str = "") -> IrlhfError:
        """Return the failure as an error of the run, in one line that says what to do."""
        text = f"{what or self.url}: {failure.message}"
        if failure.kind is FailureKind.NO_CREDIT:
            return BackendError(f"{text}; once there is credit, or the limit is reset, {GOES_ON}")
        if failure.kind in (FailureKind.UNAUTHORIZED, FailureKind.FORBIDDEN):
            return ConfigError(f"{text}; {key_hint or f'put a key for this server into {self.key_env or KEY}'}")
        if failure.kind is FailureKind.HTML_PAGE:
            return ConfigError(f"{text}; is the server's address right, up to and including /v1?")
        if failure.retry_after > self.retries.longest_wait:
            return BackendError(f"{text}; come back in {duration(failure.retry_after)}: {GOES_ON}")
        if failure.transient:
            return BackendError(f"{text}; is the server up? Once it is, {GOES_ON}")
        return ConfigError(f"{text}; is the address right, up to and including /v1, and the model's name?")

    def cleaned(self, text: str) -> str:
        """Return text from the server as one short line in which the key is replaced."""
        return cleaned(text, self._key)

    def forgive(self) -> None:
        """Count one refusal less: the request will not be sent in that form again."""
        with self._lock:
            self._refused -= 1

    def _attempt(self, path: str, body: Mapping[str, object] | None, shape: type[Shape]) -> Shape | ApiFailure:
        def request(client: "OpenAI") -> Any:
            import httpx2

            headers = {"Content-Type": "application/json", **self._headers(client, path)}
            if body is None:
                return client.get(path, cast_to=httpx2.Response, options={"headers": headers})
            return client.post(path, cast_to=httpx2.Response, content=content, options={"headers": headers})

        try:
            content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            return ApiFailure(FailureKind.REFUSED, "half a character (a lone surrogate) cannot be sent; fix the text")
        with self.limiter.slot() as cuts:
            if self._end:
                raise type(self._end)(str(self._end))
            reply = self._once(request, shape)
            if isinstance(reply, ApiFailure):
                if reply.kind in _BUSY:
                    self.limiter.busy(cuts)
                if 0 < reply.retry_after <= self.retries.longest_wait and self.limiter.pause(reply.retry_after):
                    self._note_wait(reply.retry_after)
                return reply
        self.limiter.well()
        with self._lock:
            self._answered += 1
            self._failed = 0
        return reply

    def _once(self, request: Callable[["OpenAI"], Any], shape: type[Shape]) -> Shape | ApiFailure:
        import openai

        client = self.sdk()
        try:
            content: bytes = request(client).content
        except openai.APIStatusError as error:
            response = error.response
            message = f"{response.status_code} ({error_text(response.text, self._key) or response.reason_phrase})"
            wait = requested_wait(response.headers)
            return failure_of(response.status_code, response.text, message, retry_after=wait)
        except openai.APIConnectionError as error:
            return self._no_reply(error)
        return read_reply(content, shape, self._key)

    def _no_reply(self, error: "APIConnectionError") -> ApiFailure:
        import httpx2
        import openai

        cause = error.__cause__ or error
        reason = self.cleaned(str(cause)) or type(cause).__name__
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
            return ApiFailure(FailureKind.UNREACHABLE, f"cannot connect ({reason})")
        if isinstance(error, openai.APITimeoutError):
            return ApiFailure(FailureKind.TIMEOUT, f"no reply in time ({reason})")
        return ApiFailure(FailureKind.INTERRUPTED, f"the connection broke ({reason})")

    def sdk(self) -> "OpenAI":
        """Return the SDK's client, created in the process that uses it: neither it nor a key should be pickled."""
        import openai

        with self._lock:
            if self._client is None:
                self._key = key_of(self.key_env, self._shown(self.url))
                self._client = openai.OpenAI(
                    base_url=self.url,
                    api_key=self._key or NO_KEY,
                    max_retries=0,
                    timeout=openai.Timeout(self.timeout, connect=min(_CONNECT, self.timeout)),
                )
            return self._client

    def _headers(self, client: "OpenAI", path: str) -> "dict[str, str | Omit]":
        """Return headers that keep the key, and whatever else the environment adds, from other servers."""
        from openai import omit

        if self._keyed(path):
            return {}
        return {name: omit for name in ("Authorization", *client.default_headers) if name.lower() not in _PLAIN}

    def _keyed(self, path: str) -> bool:
        return not _is_absolute(path) or (bool(self.key_env) and origin(path) == origin(self.url))

    def _note_wait(self, seconds: float) -> None:
        if seconds >= self.retries.noted_wait:
            console.note(f"{self._shown(self.url)} asks for a pause of {duration(seconds)}")

    def _fail(self, path: str, body: Mapping[str, object], failure: ApiFailure) -> NoReturn:
        """Raise what another try does not fix."""
        refused = failure.kind in (FailureKind.REFUSED, FailureKind.INVALID_REPLY)
        # A key that worked before is right: gateways forbid texts, too.
        if refused or (failure.kind is FailureKind.FORBIDDEN and self._answered):
            with self._lock:
                self._refused += 1
                every = self._refused >= _ROW and not self._answered
            if every:
                text = f"{self._shown(path)}: {failure.message}, and no request was accepted before"
                self._stop(ConfigError(self._unknown_model(path, body) or text))
            raise RequestFailed(failure.message, refused=failure.kind is not FailureKind.INVALID_REPLY)
        missing = failure.kind in (FailureKind.MISSING, FailureKind.UNSUPPORTED)
        if missing and (unknown := self._unknown_model(path, body)):
            self._stop(ConfigError(unknown))
        key_hint = "" if self._keyed(path) else "name the environment variable that holds a key for this server"
        self._stop(self.error(failure, self._shown(path), key_hint))

    def _give_up(self, path: str, failure: ApiFailure, tries: int, alone: bool) -> NoReturn:
        """Raise what the last failed try means for the request, or for the run."""
        with self._lock:
            self._failed += 1
            failed = self._failed
        if failure.kind is FailureKind.HTML_PAGE and not self._answered:
            self._stop(self.error(failure, self._shown(path)))
        if failed >= _ROW or (failure.kind is FailureKind.UNREACHABLE and alone):
            reason = f"{self._shown(path)}: no reply in {tries} tries ({failure.message}); is the server up?"
            self._stop(BackendError(f"{reason} The same command resumes"))
        raise RequestFailed(f"{failure.message}, in {tries} tries")

    def _stop(self, error: IrlhfError) -> NoReturn:
        self._end = self._end or error
        raise error

    def _unknown_model(self, path: str, body: Mapping[str, object]) -> str:
        """Return that the server does not have the model, if it lists others."""
        name = body.get("model")
        if _is_absolute(path) or not isinstance(name, str):
            return ""
        listed = self._once(lambda client: client.models.with_raw_response.list(), _Models)
        names = set() if isinstance(listed, ApiFailure) else {model.id for model in listed.data}
        known = not name or name in names or not names
        return "" if known else f"{self._shown(self.url)} has no model '{name}'{did_you_mean(name, names)}"

    def _shown(self, path: str) -> str:
        """Return an address without its query, which may hold a key."""
        address = path if _is_absolute(path) else f"{self.url.rstrip('/')}/{path.lstrip('/')}"
        return address.partition("?")[0]


def _is_absolute(path: str) -> bool:
    """Return whether the HTTP client takes a path for a whole address, which decides where the key is sent."""
    import httpx2

    return httpx2.URL(path).is_absolute_url
