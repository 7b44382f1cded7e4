"""What came of a request: the answer that was asked for, or what came instead of it."""

import json
from dataclasses import dataclass
from typing import TypeVar

import httpx2
import openai
from pydantic import BaseModel, ValidationError

from irlhf.openai_api.concurrency import requested_wait
from irlhf.openai_api.endpoint import cleaned, codes, error_text

# What HTTP calls that which happened, or what comes nearest to it. Nothing but the first is no number of HTTP.
NOBODY, BROKEN, LATE, PAGE = 0, 502, 504, 511
BUSY = (429, 503, 529, LATE)  # 529 is Anthropic's word
REFUSED = (400, 413, 422)

_NOT_REACHED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)
_SHAPELESS = 422  # as a server calls what it cannot read

Shape = TypeVar("Shape", bound=BaseModel)


@dataclass(frozen=True)
class ApiError:
    """What came instead of an answer."""

    status: int
    message: str  # as one clean line
    codes: frozenset[str] = frozenset()  # the server's words for it, such as `insufficient_quota`
    wait: float = 0.0  # seconds that the server asks for

    @property
    def passes(self) -> bool:
        """Whether another try may bring an answer."""
        return self.status in (NOBODY, 408, 409, 429) or self.status >= 500


def read(content: bytes, shape: type[Shape], key: str) -> Shape | ApiError:
    """Return what a server called an answer, if it is one."""
    try:
        return shape.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
    text = content.decode(errors="replace")
    problem_text = error_text(text, key) or "nothing"
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        page = text.lstrip().startswith("<")
        return ApiError(PAGE if page else BROKEN, f"an answer that is no JSON: {problem_text}")
    if isinstance(body, dict) and body.get("error"):
        return ApiError(_number(body["error"]), f"an error for an answer: {problem_text}", frozenset(codes(text)))
    field = ".".join(map(str, first["loc"]))
    return ApiError(
        _SHAPELESS, f"an answer of another shape ({cleaned(field, key)}: {first['msg'].lower()}): {problem_text}"
    )


def _number(error: object) -> int:
    """Return the status that a gateway passes on in the body of what it calls a success."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code < 600 else BROKEN


def refused(response: httpx2.Response, key: str) -> ApiError:
    """Return what a status other than success says."""
    text = f"{response.status_code} ({error_text(response.text, key) or response.reason_phrase})"
    return ApiError(response.status_code, text, frozenset(codes(response.text)), requested_wait(response.headers))


def silence(error: openai.APIConnectionError, key: str) -> ApiError:
    """Return why nothing came, or not all of it."""
    reason = cleaned(str(error.__cause__ or error), key) or type(error.__cause__ or error).__name__
    if isinstance(error.__cause__, _NOT_REACHED):
        return ApiError(NOBODY, f"cannot connect ({reason})")
    if isinstance(error, openai.APITimeoutError):
        return ApiError(LATE, f"no answer in time ({reason})")
    return ApiError(BROKEN, f"the answer broke off ({reason})")
