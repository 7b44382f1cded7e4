"""What all scorers do alike that ask a server: the address, the key, and a failure for a request without an answer."""

import json
from collections.abc import Mapping
from threading import Lock
from typing import Any, TypeVar

from pydantic import BaseModel

from irlhf.core.errors import ConfigError
from irlhf.core.example import dumps
from irlhf.openai_api.endpoint import KEY, cleaned, is_address, key_of, origin
from irlhf.scoring.scorers.base import Failure

OPENAI = "https://api.openai.com/v1"

Shape = TypeVar("Shape", bound=BaseModel)


class Server:
    """A server for any number of threads. Its client is loaded when it is first asked, and a key wanted no sooner."""

    def __init__(self, url: str, key_env: str, timeout: float) -> None:
        if not is_address(url) or "?" in url:
            # Not repeated: it may hold a password.
            raise ConfigError(
                "a server's address is like http://127.0.0.1:8000/v1, without a key: those come from the environment"
            )
        self.url, self.key_env, self.timeout = url, key_env, timeout
        self._lock = Lock()
        self._host: Any = None

    def __reduce__(self) -> tuple[type["Server"], tuple[str, str, float]]:
        return Server, (self.url, self.key_env, self.timeout)

    def ask(self, path: str, body: Mapping[str, object], shape: type[Shape]) -> Shape | Failure:
        """Post to a path below the address, or to a whole one. Raises ConfigError and BackendError for the run."""
        from irlhf.openai_api.api_client import RequestFailed

        host = self._opened()
        whole = json.loads(dumps(body))  # half a character cannot be sent
        try:
            answer: Shape = host.ask(path, whole, shape)
        except RequestFailed as error:
            return Failure(str(error))
        return answer

    def cleaned(self, text: str) -> str:
        """Return what a server said as one short line, in which no key is repeated."""
        return cleaned(text, self._key())

    def _opened(self) -> Any:
        with self._lock:
            if self._host is None:
                if not self._key() and origin(self.url) == origin(OPENAI):
                    raise ConfigError(f"{self.url} wants a key: put yours into {KEY}, or name a server as `base_url:`")
                from irlhf.openai_api.api_client import ApiClient

                self._host = ApiClient(self.url, self.key_env, self.timeout)
            return self._host

    def _key(self) -> str:
        return key_of(self.key_env, "`api_key_env:`")
