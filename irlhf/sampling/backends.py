"""Where samples are drawn: by the model here, or by a server that holds it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import fields, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.hashing import fingerprint
from irlhf.core.registry import did_you_mean
from irlhf.executors.base import LOCAL, Engine, Work, fixed_pools, pooled
from irlhf.openai_api.endpoint import CACHED, CENSORED, PROMPT, is_address
from irlhf.policy.policy_file import Policy
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest

COMPLETIONS, CHAT = "completions", "chat"
APIS = (COMPLETIONS, CHAT)
MEANS = ("api_key_env", "concurrency")  # of reaching a server, which decide nothing about the rows

_POOL = 4  # batches that are sorted by length together; a kill costs at most their drawing
_CHARACTERS = 4  # a token, in English
_CHOICES = 16  # completions of one request at most, which a kill may cost as well


def reached(settings: SampleSettings, policy: Policy, engine: Engine) -> SampleSettings:
    """Return the settings with the server that they lead to, if they do. Raises ConfigError where it cannot do this."""
    there = policy.hosted
    if not settings.base_url and not there:
        _check_here(settings)
        return settings
    url = settings.base_url or (there.base_url if there else "")
    name = settings.served_name or (there.model if there else "")
    api = settings.api or (CHAT if there else COMPLETIONS)
    if api not in APIS:
        raise ConfigError(f"unknown --api '{api}'{did_you_mean(api, APIS)}")
    if there and not name:
        raise ConfigError(
            f"{there.trained or policy.base} is not deployed yet; once it is, name it with --served-name,"
            " or for good with `irlhf jobs deployed`"
        )
    if there and api == COMPLETIONS:
        raise ConfigError("--api completions sends token ids, and this policy's tokenizer is at its host; leave it out")
    mend = "leave it out" if there else "leave it out, or leave --base-url out"
    for flag, idle, why in (
        ("--guidance", settings.guidance == 1, "parts two answers of the model, which a server gives one of"),
        ("--reference", not settings.reference, "reads tokens, of which a server gives the text"),
        (f"--executor {engine.name}", engine == LOCAL, "has workers of its own, where a server does the work"),
        ("--precision", settings.precision == "auto", "is of weights that are loaded here, not by a server"),
        ("--concurrency", settings.concurrency >= 1, "is at least 1"),
    ):
        if not idle:
            raise ConfigError(f"{flag} {why}; {mend}")
    if not is_address(url):
        # Not repeated: it may hold a password.
        raise ConfigError("--base-url is no address like http://127.0.0.1:8000/v1 (keys come from the environment)")
    return replace(settings, base_url=url, served_name=name, api=api)


def _check_here(settings: SampleSettings) -> None:
    usual = {setting.name: setting.default for setting in fields(settings)}
    for name in ("served_name", "api", *MEANS):
        if getattr(settings, name) != usual[name]:
            raise ConfigError(f"--{name.replace('_', '-')} belongs to --base-url; leave it out")


def task_and_executor(
    arguments: tuple[Path, Policy, SampleSettings], engine: Engine, spent: Counter[str]
) -> tuple[Work, Engine]:
    """Return the task that samples, and its executor. Servers add the tokens that they read to `spent`."""
    settings = arguments[-1]
    threads = Engine("threads", settings.concurrency)
    if settings.api == CHAT:
        return Work("irlhf.sampling.chat_backend:ChatBackend", (*arguments, spent)), threads
    if settings.base_url:
        return Work("irlhf.sampling.completions_backend:CompletionsBackend", (*arguments, spent)), threads
    return Work("irlhf.sampling.local:LocalBackend", arguments), engine


def pools(asks: Iterator[SampleRequest], settings: SampleSettings, written: Set[int]) -> Iterator[list[SampleRequest]]:
    """Part asks, in their order, into those that are taken together: for a chat, what is the same request.

    A server is asked for the missing samples alone; the model here draws a pool that misses one as a whole.
    """
    if not settings.base_url:
        return fixed_pools(asks, _POOL * settings.batch, written)
    missing = (ask for ask in asks if fingerprint(ask.id) not in written)
    return _alike(missing) if settings.api == CHAT else pooled(missing, 1)


def remaining(total: int, written: int, settings: SampleSettings) -> int:
    """Return how many of all samples are still to be drawn, those of a pool that misses some among them."""
    pool = 1 if settings.base_url else _POOL * settings.batch
    return total - written // pool * pool


def _alike(asks: Iterable[SampleRequest]) -> Iterator[list[SampleRequest]]:
    for _, same in groupby(asks, lambda ask: (ask.source.cluster, ask.prompt_values)):
        while some := list(islice(same, _CHOICES)):
            yield some


def tell_size(samples: int, characters: int, settings: SampleSettings) -> None:
    """Say what a paid host is about to be asked."""
    size_text = f"about {characters // _CHARACTERS:,} tokens of prompts (estimated, each request anew)"
    most = samples * settings.max_tokens
    console.note(f"asking {settings.base_url} for {samples:,} samples: {size_text} and at most {most:,} of completions")


def account(spent: Counter[str]) -> dict[str, Any]:
    """Return what a server has counted, and report it."""
    if spent[CACHED]:
        console.note(f"of {spent[PROMPT]:,} prompt tokens {spent[CACHED]:,} were cached")
    if spent[CENSORED]:
        console.warn(f"the server left out the logprobs of {spent[CENSORED]:,} tokens; their rows have none")
    return dict(+spent)
