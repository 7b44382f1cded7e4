"""A server's address, the key that it is asked with, and its own words as one short clean line."""

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from irlhf.core import console
from irlhf.core.errors import ConfigError

KEY = "OPENAI_API_KEY"  # the environment variable, where none is named
NO_KEY = "none"  # for servers that want none; the client cannot be made without
PROMPT, CACHED, CENSORED = "prompt_tokens", "cached_tokens", "censored_tokens"  # what is counted of a run
GOES_ON = "the same command goes on from here"

_LONGEST_TEXT = 200  # characters of a server's own words in a message
_PORTS = {"http": 80, "https": 443}


def is_address(url: str) -> bool:
    """Return whether this is an address to ask, with no password in it. One that is not should not be repeated."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:  # no port, or no address in these brackets
        return False
    return bool(right) and not (parts.username or parts.password or parts.fragment)


def origin(url: str) -> tuple[str, str | None, int]:
    """Return what a key belongs to: the scheme, the host and the port of an address."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)


def key_of(variable: str, where: str) -> str:
    """Return the key of the environment, or nothing. Raises ConfigError, which says where the variable is named."""
    key = os.environ.get(variable or KEY, "").strip()
    if variable and not key:
        raise ConfigError(f"{where} {variable}: there is no such environment variable; set it, or leave it out")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{variable or KEY} holds characters that no key has")
    return key


def cleaned(text: str, key: str) -> str:
    """Return text as one short line that does not hold the key."""
    whole = text.replace(key, "…") if key else text
    return console.clean(" ".join(whole.split())[:_LONGEST_TEXT])


def error_text(text: str, key: str) -> str:
    """Return a server's own words, wherever it put them, as one short line that does not hold the key."""
    *_, innermost = _parts(text)
    return cleaned(str(innermost), key)


def codes(text: str) -> set[str]:
    """Return the words that a server has for what went wrong, such as `insufficient_quota`."""
    bodies = [body for body in _parts(text) if isinstance(body, dict)]
    return {str(body[name]) for body in bodies for name in ("code", "type") if body.get(name)}


def _parts(text: str) -> Iterator[Any]:
    """Yield the body of an error, then what is in it: {"error": {"message": …}}, {"detail": …} or plain text."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    yield body
    for part in ("error", "message", "detail"):
        if isinstance(body, dict) and part in body:
            body = body[part]
            yield body
