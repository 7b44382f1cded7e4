"""What a server accepts and returns, learnt from the requests that it refuses.

first request, alone ──▶ refused for a field ──▶ the same without it … ──▶ answered ──▶ all others, side by side
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from irlhf.core import console
from irlhf.openai_api.api_client import ApiClient, RequestFailed
from irlhf.openai_api.failures import Shape
from irlhf.openai_api.server_logprobs import TOPS, WHOLE

OLD_LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
_LOGPROBS = {"logprobs", "top_logprobs"}
_REQUIRED = {"model", "messages", "prompt", "temperature", "top_p", OLD_LIMIT, NEW_LIMIT, "n", *_LOGPROBS}


@dataclass(frozen=True)
class ServerCapabilities:
    """The form of requests that a server accepts."""

    limit: str = OLD_LIMIT  # the field with the most tokens of a completion
    top: int = TOPS[0]  # likeliest tokens that it lists
    logprobs: bool = True
    plural: bool = True  # several completions in one request
    refused: frozenset[str] = frozenset()  # other fields that it does not accept

    def singly(self) -> "ServerCapabilities":
        """Return the capabilities of a server that returns one completion per request."""
        return replace(self, plural=False)

    def accepted(self, fields: Mapping[str, object]) -> dict[str, object]:
        """Return the fields that the server accepts and that have a value."""
        return {name: value for name, value in fields.items() if value is not None and name not in self.refused}

    def changes_since(self, before: "ServerCapabilities") -> Iterator[str]:
        """Yield what a user should know about the changes since `before`."""
        if gone := sorted(self.refused - before.refused):
            yield f"the server does not accept {', '.join(gone)}; its own defaults apply"
        if before.logprobs and not self.logprobs:
            yield "the server does not return logprobs"
        elif self.top < before.top:
            yield f"the server refuses to list {before.top} of the likeliest tokens; requesting {self.top}"
        if before.plural and not self.plural:
            yield "the server returns one completion per request, so every sample is a separate request"


def downgrade(capabilities: ServerCapabilities, body: Mapping[str, object], reason: str) -> ServerCapabilities:
    """Return the capabilities of a server that refused a request for this reason; unchanged if it names no field."""
    named = {name for name in body if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", reason)}
    if OLD_LIMIT in body and NEW_LIMIT in reason:
        return replace(capabilities, limit=NEW_LIMIT)
    if named & _LOGPROBS:
        fewer = [top for top in TOPS if top < capabilities.top]
        return replace(capabilities, top=fewer[0]) if fewer else replace(capabilities, logprobs=False)
    if "n" in named:
        return capabilities.singly()
    gone = named - _REQUIRED
    if gone & WHOLE.keys():
        gone |= WHOLE.keys()
    return replace(capabilities, refused=capabilities.refused | gone)


class Negotiator:
    """Sends requests to one path of a server in the form that it accepts. For any number of threads.

    `strict` fails a request rather than leave a field out that decides how tokens are drawn.
    """

    def __init__(self, client: ApiClient, path: str, strict: bool = False) -> None:
        self.client, self.path, self.strict = client, path, strict
        self.capabilities = ServerCapabilities()
        self._settled = False  # whether the server has answered, or refused without naming a field
        self._first = Lock()  # held by the request that is sent alone
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["Negotiator"], tuple[ApiClient, str, bool]]:
        return Negotiator, (self.client, self.path, self.strict)

    def ask(
        self, body_for: Callable[[ServerCapabilities], dict[str, Any]], shape: type[Shape]
    ) -> tuple[Shape, ServerCapabilities]:
        """Return the reply, and the capabilities that the request was written for. Raises what `ApiClient.ask` does."""
        if not self._settled:
            with self._first:
                if not self._settled:
                    return self._negotiate(body_for, shape)
        return self._negotiate(body_for, shape)

    def learn(self, before: ServerCapabilities, after: ServerCapabilities) -> bool:
        """Adopt what a request taught, unless others taught more; return whether another try would differ."""
        with self._lock:
            adopted = after != before == self.capabilities
            if adopted:
                self.capabilities = after
            changed = self.capabilities != before
        for text in after.changes_since(before) if adopted else ():
            console.note(text)
        return changed

    def _negotiate(
        self, body_for: Callable[[ServerCapabilities], dict[str, Any]], shape: type[Shape]
    ) -> tuple[Shape, ServerCapabilities]:
        while True:
            capabilities = self.capabilities
            body = body_for(capabilities)
            try:
                reply = self.client.ask(self.path, body, shape)
            except RequestFailed as failure:
                learnt = downgrade(capabilities, body, str(failure)) if failure.refused else capabilities
                if (self.strict and learnt.refused) or not self.learn(capabilities, learnt):
                    self._settled = True
                    raise
                self.client.forgive()
            else:
                self._settled = True
                return reply, capabilities
