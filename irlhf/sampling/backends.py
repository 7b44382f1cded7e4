"""Choose the backend that draws samples: a local model, or a server."""

from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import fields, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from irlhf.core import console
from irlhf.core.errors import ConfigError
from irlhf.core.hashing import fingerprint
from irlhf.core.registry import did_you_mean
from irlhf.executors.base import LOCAL, Engine, Work, fixed_pools, pooled
from irlhf.openai_api.endpoint import BYTES_PER_TOKEN, CACHED, CENSORED, PROMPT, is_address
from irlhf.policy.policy_file import Policy
from irlhf.sampling.settings import SampleSettings
from irlhf.sampling.types import SampleRequest

COMPLETIONS, CHAT = "completions", "chat"
APIS = (COMPLETIONS, CHAT)
MEANS = ("api_key_env", "concurrency")  # settings for reaching a server, which do not change the rows

_POOL = 4  # batches sorted by length together; a killed run repeats at most these
_CHOICES = 16  # maximum completions of one request; a killed run may lose these


def reached(settings: SampleSettings, policy: Policy, engine: Engine) -> SampleSettings:
    """Return the settings completed with the server to use, if any. Raises ConfigError for options it lacks."""
    hosted = policy.hosted
    if not settings.base_url and not hosted:
        _check_local(settings)
        return settings
    url = settings.base_url or (hosted.base_url if hosted else "")
    name = settings.served_name or (hosted.model if hosted else "")
    api = settings.api or (CHAT if hosted else COMPLETIONS)
    if api not in APIS:
        raise ConfigError(f"unknown --api '{api}'{did_you_mean(api, APIS)}")
    if hosted and not name:
        raise ConfigError(
            f"{hosted.trained or policy.base} is not deployed yet; deploy it, then pass its name with --served-name"
            " or store it with `irlhf jobs deployed`"
        )
    if hosted and api == COMPLETIONS:
        raise ConfigError("--api completions needs a local tokenizer, which a hosted policy does not have; remove it")
    fix = "; remove it" if hosted else "; remove it, or remove --base-url"
    for flag, idle, why in (
        ("--guidance", settings.guidance == 1, "needs the logits of two prompts, which an API does not return"),
        ("--reference", not settings.reference, "needs token ids, but an API returns text"),
        (f"--executor {engine.name}", engine == LOCAL, "does not apply to a server, which does the work itself"),
        ("--precision", settings.precision == "auto", "applies to local weights, not to a server"),
    ):
        if not idle:
            raise ConfigError(f"{flag} {why}{fix}")
    if settings.concurrency < 1:
        raise ConfigError("--concurrency must be at least 1")
    if not is_address(url):
        # The message does not repeat the address, which may contain a password.
        raise ConfigError("--base-url needs an address like http://127.0.0.1:8000/v1 (keys come from the environment)")
    return replace(settings, base_url=url, served_name=name, api=api)


def _check_local(settings: SampleSettings) -> None:
    defaults = {setting.name: setting.default for setting in fields(settings)}
    for name in ("served_name", "api", *MEANS):
        if getattr(settings, name) != defaults[name]:
            raise ConfigError(f"--{name.replace('_', '-')} is for --base-url only; remove it")


def task_and_executor(
    folder: Path, policy: Policy, settings: SampleSettings, *, engine: Engine, spent: Counter[str]
) -> tuple[Work, Engine]:
    """Return the sampling task and its executor. With a server, the task counts its tokens in `spent`."""
    if not settings.base_url:
        return Work("irlhf.sampling.local:LocalBackend", (folder, policy, settings)), engine
    backend = "ChatBackend" if settings.api == CHAT else "CompletionsBackend"
    work = Work(f"irlhf.sampling.remote:{backend}", (folder, policy, settings, spent))
    return work, Engine("threads", settings.concurrency)


def pools(
    requests: Iterator[SampleRequest], settings: SampleSettings, written: Set[int]
) -> Iterator[list[SampleRequest]]:
    """Split requests, in order, into pools: for a chat, the requests with the same prompt and targets.

    A server draws only the missing samples. A local model draws every pool that misses a sample as a whole.
    """
    if not settings.base_url:
        yield from fixed_pools(requests, _POOL * settings.batch, written)
        return
    missing = (request for request in requests if fingerprint(request.id) not in written)
    if settings.api != CHAT:
        yield from pooled(missing, 1)
        return
    for _, same in groupby(missing, lambda request: (request.source.cluster, request.prompt_values)):
        while chunk := list(islice(same, _CHOICES)):
            yield chunk


def remaining(total: int, written: int, settings: SampleSettings) -> int:
    """Return the number of samples still to draw, counting incomplete pools as a whole."""
    pool = 1 if settings.base_url else _POOL * settings.batch
    return total - written // pool * pool


def tell_size(samples: int, size: int, settings: SampleSettings) -> None:
    """Print the size of the work for a paid host; `size` is the length of the prompts in bytes."""
    size_text = f"about {size // BYTES_PER_TOKEN:,} prompt tokens (estimated, counted for each request)"
    limit = f"at most {samples * settings.max_tokens:,} completion tokens"
    console.note(f"requesting {samples:,} samples from {settings.base_url}: {size_text} and {limit}")


def account(spent: Counter[str]) -> dict[str, Any]:
    """Return the token counts of a server, and print those that matter."""
    if spent[CACHED]:
        console.note(f"{spent[CACHED]:,} of {spent[PROMPT]:,} prompt tokens were cached")
    if spent[CENSORED]:
        console.warn(f"the server returned no logprob for {spent[CENSORED]:,} tokens; their rows have no `logprob`")
    return dict(+spent)
