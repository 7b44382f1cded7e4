"""Parse a reply into the expected shape, or describe why there is none: the one place that classifies failures."""

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from irlhf.openai_api.endpoint import cleaned, codes, error_text

Shape = TypeVar("Shape", bound=BaseModel)


class FailureKind(Enum):
    """Why a request has no usable reply."""

    UNREACHABLE = auto()  # no connection, so nothing was sent
    INTERRUPTED = auto()  # the connection broke, or the reply is incomplete
    TIMEOUT = auto()
    SERVER_ERROR = auto()
    OVERLOADED = auto()
    RATE_LIMITED = auto()
    HTML_PAGE = auto()  # a page for people, such as a login page
    REFUSED = auto()  # this request, as it is
    INVALID_REPLY = auto()  # JSON of another shape
    NO_CREDIT = auto()
    UNAUTHORIZED = auto()
    FORBIDDEN = auto()
    MISSING = auto()
    UNSUPPORTED = auto()  # any other status


_TRANSIENT = frozenset(list(FailureKind)[: list(FailureKind).index(FailureKind.HTML_PAGE) + 1])
_UNKNOWN_OUTCOME = frozenset(
    {FailureKind.INTERRUPTED, FailureKind.TIMEOUT, FailureKind.SERVER_ERROR, FailureKind.OVERLOADED}
)
_KINDS = {
    **dict.fromkeys((400, 413, 422), FailureKind.REFUSED),
    401: FailureKind.UNAUTHORIZED,
    402: FailureKind.NO_CREDIT,
    403: FailureKind.FORBIDDEN,
    **dict.fromkeys((404, 410), FailureKind.MISSING),
    **dict.fromkeys((408, 409), FailureKind.SERVER_ERROR),
    429: FailureKind.RATE_LIMITED,
    501: FailureKind.UNSUPPORTED,
    **dict.fromkeys((503, 529), FailureKind.OVERLOADED),  # Anthropic says 529
    504: FailureKind.TIMEOUT,
}
_SPENT = {"insufficient_quota", "daily_rate_limit_exceeded", "billing_hard_limit_reached", "billing_not_active"}


@dataclass(frozen=True)
class ApiFailure:
    """What came instead of a reply."""

    kind: FailureKind
    message: str  # one clean line
    retry_after: float = 0.0  # seconds that the server asks to wait
    accepted: bool = False  # the status was a success, so the server may have done the work

    @property
    def transient(self) -> bool:
        """Whether another try may succeed."""
        return self.kind in _TRANSIENT

    @property
    def outcome_unknown(self) -> bool:
        """Whether the server may have done what was requested."""
        return self.accepted or self.kind in _UNKNOWN_OUTCOME


def failure_of(status: int, text: str, message: str, *, retry_after: float = 0.0, accepted: bool = False) -> ApiFailure:
    """Return the failure that a status and the body of an error mean."""
    named = codes(text)
    kind = _KINDS.get(status) or (FailureKind.SERVER_ERROR if status >= 500 else FailureKind.UNSUPPORTED)
    if named & _SPENT:
        kind = FailureKind.NO_CREDIT
    elif "model_not_found" in named:
        kind = FailureKind.MISSING
    return ApiFailure(kind, message, retry_after, accepted)


def read_reply(content: bytes, shape: type[Shape], key: str) -> Shape | ApiFailure:
    """Return the body of a successful response in the expected shape, or what is wrong with it."""
    try:
        return shape.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
    text = content.decode(errors="replace")
    shown = error_text(text, key) or "nothing"
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        kind = FailureKind.HTML_PAGE if text.lstrip().startswith("<") else FailureKind.INTERRUPTED
        return ApiFailure(kind, f"the reply is not JSON: {shown}", accepted=True)
    if isinstance(body, dict) and body.get("error"):
        # Gateways pass the status of the server behind them on in the body.
        code = body["error"].get("code") if isinstance(body["error"], dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else 502
        return failure_of(status, text, f"the reply is an error: {shown}", accepted=True)
    field = cleaned(".".join(map(str, first["loc"])), key)
    message = f"the reply has an unexpected shape ({field}: {first['msg'].lower()}): {shown}"
    return ApiFailure(FailureKind.INVALID_REPLY, message, accepted=True)
