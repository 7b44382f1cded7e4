"""Server addresses, API keys, and a server's own words as one short line without the key."""

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from irlhf.core import console
from irlhf.core.errors import ConfigError

OPENAI = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"  # the environment variable, where none is named
NO_KEY = "none"  # for servers that need none; the SDK cannot be created without a key
PROMPT, CACHED, CENSORED = "prompt_tokens", "cached_tokens", "censored_tokens"  # counts of a run
BYTES_PER_TOKEN = 4  # of UTF-8, in English; Chinese has 2 to 5, other scripts lie between
GOES_ON = "the same command resumes"

_LONGEST_TEXT = 200  # characters of a server's own words in a message
_PORTS = {"http": 80, "https": 443}


def is_address(url: str) -> bool:
    """Return whether this is an http address without a password or a query. Do not repeat one that is not."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:  # an invalid port or IPv6 address
        return False
    return bool(valid) and not (parts.username or parts.password or "#" in url or "?" in url)


def origin(url: str) -> tuple[str, str | None, int]:
    """Return the scheme, host and port of an address, which is what a key belongs to."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)


def key_of(variable: str, url: str) -> str:
    """Return the key from the environment, or "". Raises ConfigError if a named variable is not set."""
    key = os.environ.get(variable or KEY, "").strip()
    if variable and not key:
        problem = f"environment variable {variable} for its key is not set"
        raise ConfigError(f"{url}: {problem}; set it, or name another variable")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{variable or KEY} holds characters that cannot be part of a key")
    if not key and origin(url) == origin(OPENAI):
        raise ConfigError(f"{url} requires a key: set {KEY}, or name another server as the base URL")
    return key


def cleaned(text: str, key: str) -> str:
    """Return text as one short line in which the key is replaced."""
    redacted = text.replace(key, "…") if key else text
    return console.clean(" ".join(redacted.split())[:_LONGEST_TEXT])


def error_text(text: str, key: str) -> str:
    """Return the innermost message of an error body as one short line in which the key is replaced."""
    *_, innermost = _parts(text)
    return cleaned(str(innermost), key)


def codes(text: str) -> frozenset[str]:
    """Return the error codes and types in an error body, such as `insufficient_quota`."""
    bodies = [body for body in _parts(text) if isinstance(body, dict)]
    return frozenset(str(body[name]) for body in bodies for name in ("code", "type") if body.get(name))


def _parts(text: str) -> Iterator[Any]:
    """Yield the body of an error, then what is nested in it: {"error": {"message": …}}, {"detail": …} or plain text."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    yield body
    for part in ("error", "message", "detail"):
        if isinstance(body, dict) and part in body:
            body = body[part]
            yield body
