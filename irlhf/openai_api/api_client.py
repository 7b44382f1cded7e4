"""Ask one server for JSON from many threads, and part what concerns one request from what ends the run.

    ask ──▶ gate ──▶ POST ──▶ an answer of the shape asked for
              ▲        │
              └─ wait ◀┼─ busy, broken, late: tried again
                       ├─ refused, or all tries used up ──▶ RequestFailed: this request alone
                       └─ no key, no such model, no credit, nobody there ──▶ ConfigError, BackendError: the run

The client is OpenAI's, for its keys, proxies, timeouts and errors. Tries are counted here, because a client that waits
by itself tells the other threads nothing of it.
"""

import os
import random
import time
from collections.abc import Mapping
from threading import Lock
from typing import NoReturn

import httpx2
import openai
from openai import Omit, OpenAI, RequestOptions, omit
from pydantic import BaseModel, ValidationError

from irlhf.core import console
from irlhf.core.errors import BackendError, ConfigError, IrlhfError
from irlhf.core.registry import did_you_mean
from irlhf.openai_api import responses
from irlhf.openai_api.concurrency import FIRST, MOST, AdaptiveLimiter
from irlhf.openai_api.endpoint import GOES_ON, KEY, NO_KEY, is_address, key_of, origin
from irlhf.openai_api.responses import BUSY, LATE, NOBODY, PAGE, REFUSED, ApiError, Shape

TRIES = 6
BUSY_TRIES = 24  # where it was too much, while others were answered: then it is luck who is next
LATE_TRIES = 3  # because what came too late may have been paid for
WAIT = 0.5  # seconds before the second try, and twice as many before each next one
BUSY_WAIT = 2.0  # where it was too much, so that six tries last the minute that limits are counted by
LONGEST_WAIT = 600.0  # seconds that a server may ask for
NOTED_WAIT = 5.0  # seconds from which on somebody at a terminal wonders
ROW = 8  # requests in a row that show that it is not the requests
CONNECT = 5.0  # seconds until somebody must have picked up

SPENT = {"insufficient_quota", "daily_rate_limit_exceeded", "billing_hard_limit_reached", "billing_not_active"}
_PLAIN = {"accept", "content-type", "user-agent"}  # headers for whoever is asked


class RequestFailed(Exception):
    """This one request gets no answer, for the reason that it says; others may."""

    def __init__(self, reason: str, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused  # as it stands; the reason may say what the server would have


class _Model(BaseModel):
    id: str


class Models(BaseModel):
    """What a server holds."""

    data: list[_Model]


class ApiClient:
    """A server, which any number of threads may ask. It travels to other processes as its address alone.

    The key of OPENAI_API_KEY goes to addresses below `url`. One that is named goes to all addresses of that server.
    Neither goes to another server.
    """

    def __init__(self, url: str, key_env: str = "", timeout: float = 60.0, most: int = MOST) -> None:
        if not is_address(url):
            # Not repeated: it may hold a password.
            raise ConfigError("a server's address is like http://127.0.0.1:8000/v1 (keys come from the environment)")
        self.url = url
        self.key_env = key_env  # the environment variable that holds the key; empty is OPENAI_API_KEY
        self.timeout = timeout  # seconds until the first word of an answer, or the next
        self.limiter = AdaptiveLimiter(min(FIRST, most), most)
        self._lock = Lock()
        self._client: OpenAI | None = None
        self._key = ""
        self._random = random.Random(os.getpid())  # so that processes do not come back at the same time
        self._answered = 0
        self._refused = 0
        self._failed = 0  # since the last answer
        self._end: IrlhfError | None = None  # which every thread hears, once one has

    def __reduce__(self) -> tuple[type["ApiClient"], tuple[str, str, float, int]]:
        return ApiClient, (self.url, self.key_env, self.timeout, self.limiter.most)

    def models(self) -> list[str]:
        """Return the names of the models on the server. Raises RequestFailed, ConfigError and BackendError."""
        return sorted({model.id for model in self.ask("models", None, Models).data})

    def ask(self, path: str, body: Mapping[str, object] | None, shape: type[Shape]) -> Shape:
        """Post to a path below `url`, or to a whole address; without a body, get what is there.

        Raises RequestFailed, ConfigError and BackendError.
        """
        before, tried, late = self._answered, 0, 0  # requests answered until now, and tries of this one
        answer = self._try(path, body, shape)
        while isinstance(answer, ApiError):
            self._raise_if_fatal(path, body or {}, answer)
            tried += 1
            late += answer.status == LATE
            alone = self._answered == before
            if tried >= (TRIES if alone or answer.status != 429 else BUSY_TRIES) or late == LATE_TRIES:
                self._give_up(path, answer, tried, alone)
            self._rest(answer, tried)
            answer = self._try(path, body, shape)
        return answer

    def _try(self, path: str, body: Mapping[str, object] | None, shape: type[Shape]) -> Shape | ApiError:
        with self.limiter.slot() as cuts:
            if self._end:
                raise type(self._end)(str(self._end))
            answer = self._post(path, body, shape)
            if isinstance(answer, ApiError):
                if answer.status in BUSY:
                    self.limiter.busy(cuts)
                if 0 < answer.wait <= LONGEST_WAIT:
                    self._pause(answer.wait)
                return answer
        self.limiter.well()
        with self._lock:
            self._answered += 1
            self._failed = 0
        return answer

    def _post(self, path: str, body: Mapping[str, object] | None, shape: type[Shape]) -> Shape | ApiError:
        client = self._ready()
        options: RequestOptions = {"headers": self._headers(client, path)}
        try:
            if body is None:
                reply = client.get(path, cast_to=httpx2.Response, options=options)
            else:
                reply = client.post(path, cast_to=httpx2.Response, body=body, options=options)
        except openai.APIStatusError as error:
            return responses.refused(error.response, self._key)
        except openai.APIConnectionError as error:
            return responses.silence(error, self._key)
        except UnicodeEncodeError:
            return ApiError(400, "half a character (a lone surrogate) cannot be sent; mend the text")
        return responses.read(reply.content, shape, self._key)

    def _ready(self) -> OpenAI:
        """Return the client, which is made where it is used: it cannot travel, and the key should not."""
        with self._lock:
            if self._client is None:
                self._key = key_of(self.key_env, f"{self._shown(self.url)}: key_env")
                self._client = OpenAI(
                    base_url=self.url,
                    api_key=self._key or NO_KEY,
                    max_retries=0,
                    timeout=openai.Timeout(self.timeout, connect=min(CONNECT, self.timeout)),
                )
            return self._client

    def _headers(self, client: OpenAI, path: str) -> dict[str, str | Omit]:
        """Return what takes the key, and all else that the environment adds, away from those whom it is not for."""
        if self._keyed(path):
            return {}
        return {name: omit for name in ("Authorization", *client.default_headers) if name.lower() not in _PLAIN}

    def _keyed(self, path: str) -> bool:
        return not _whole(path) or (bool(self.key_env) and origin(path) == origin(self.url))

    def _pause(self, seconds: float) -> None:
        if self.limiter.pause(seconds) and seconds >= NOTED_WAIT:
            console.note(f"{self._shown(self.url)} asks for a pause of {span(seconds)}")

    def _rest(self, fault: ApiError, tried: int) -> None:
        """Wait before the next try, where the server did not say how long; the gate waits where it did."""
        if not fault.wait:
            wait = (BUSY_WAIT if fault.status == 429 else WAIT) * 2 ** min(tried - 1, TRIES - 2)
            time.sleep(wait * (1 - self._random.random() / 4))

    def _raise_if_fatal(self, path: str, body: Mapping[str, object], fault: ApiError) -> None:
        """Raise what another try does not mend."""
        reason = f"{self._shown(path)}: {fault.message}"
        if fault.status == 402 or fault.codes & SPENT:
            self._stop(BackendError(f"{reason}; once there is credit again, {GOES_ON}"))
        # A key that opened the door before is right: gateways forbid text as well.
        refused = fault.status in REFUSED or (fault.status == 403 and self._answered)
        if refused and "model_not_found" not in fault.codes:
            self._refuse(path, body, fault)
        if fault.status in (401, 403):
            self._stop(ConfigError(f"{reason}; {self._unlocked(path)}"))
        if fault.wait > LONGEST_WAIT:
            self._stop(BackendError(f"{reason}; come back in {span(fault.wait)}: {GOES_ON}"))
        if not fault.passes:
            mend = "is the address right, and the model's name?"
            self._stop(ConfigError(self._unknown(path, body) or f"{reason}; {mend}"))

    def _unlocked(self, path: str) -> str:
        if self._keyed(path):
            return f"put a key of this server's into {self.key_env or KEY}"
        return "name the environment variable that holds a key of this server's"

    def _refuse(self, path: str, body: Mapping[str, object], fault: ApiError) -> NoReturn:
        with self._lock:
            self._refused += 1
            every = self._refused >= ROW and not self._answered
        if every:
            unknown = self._unknown(path, body)
            self._stop(
                ConfigError(unknown or f"{self._shown(path)}: {fault.message}, and no request was answered before")
            )
        raise RequestFailed(fault.message, refused=True)

    def forgive(self) -> None:
        """Count one refusal less: it was of words that will not be said again."""
        with self._lock:
            self._refused -= 1

    def _give_up(self, path: str, fault: ApiError, tries: int, alone: bool) -> NoReturn:
        """Raise what a request comes to whose tries are used up; `alone` is one beside which none was answered."""
        with self._lock:
            self._failed += 1
            failed = self._failed
        where = self._shown(path)
        if fault.status == PAGE and not self._answered:
            self._stop(ConfigError(f"{where}: {fault.message}; is it the server's address?"))
        if failed >= ROW or (fault.status == NOBODY and alone):
            reason = f"{where}: no answer in {tries} tries ({fault.message}); is the server up?"
            self._stop(BackendError(f"{reason} The same command goes on from here"))
        raise RequestFailed(f"{fault.message}, in {tries} tries")

    def _stop(self, error: IrlhfError) -> NoReturn:
        self._end = self._end or error
        raise error

    def _unknown(self, path: str, body: Mapping[str, object]) -> str:
        """Return what is wrong with the model's name, if it is the name."""
        name = body.get("model")
        if _whole(path) or not isinstance(name, str):
            return ""
        return unknown_model(self._ready(), self._shown(self.url), name)

    def _shown(self, path: str) -> str:
        """Return an address without what is asked of it, which may hold a key."""
        address = path if _whole(path) else f"{self.url.rstrip('/')}/{path.lstrip('/')}"
        return address.partition("?")[0]


def unknown_model(client: OpenAI, url: str, name: str) -> str:
    """Return what is wrong with a model's name, if the server tells of others."""
    try:
        raw = client.with_options(max_retries=0).models.with_raw_response.list()
        names = {model.id for model in Models.model_validate_json(raw.content).data}
    except (openai.APIError, ValidationError):
        return ""
    known = not name or name in names or not names
    return "" if known else f"{url} has no model '{name}'{did_you_mean(name, names)}"


def _whole(path: str) -> bool:
    """Return whether a path is an address of its own, as the client sees it, for it decides where the key goes."""
    return httpx2.URL(path).is_absolute_url


def span(seconds: float) -> str:
    """Return a time to wait as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
