"""Set up the client of the Hugging Face Hub: quiet, and without minutes of retries where there is no network."""

import logging
import socket
import sys
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from irlhf.core.errors import BackendError, ConfigError, IrlhfError

_TIMEOUT = 5.0  # seconds to connect


@lru_cache
def set_up_hub_client() -> None:
    """Suppress the client's log messages and, without a terminal, its progress bars.

    If the Hub cannot be reached, the client is set to offline, so that it reads its cache and fails at once.
    """
    import huggingface_hub.utils.logging as client  # importing it sets the log level
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.getLogger(client.__name__.partition(".")[0]).setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()
    if not constants.HF_HUB_OFFLINE and not _reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True


def lookup_error(name: str, problem: str, error: Exception) -> IrlhfError:
    """Return the error of a model that was not loaded: `problem`, or that the Hub, where it may be, was not reached."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    cause: BaseException | None = error
    while cause and not isinstance(cause, LocalEntryNotFoundError):
        cause = cause.__cause__ or cause.__context__
    if not Path(name).is_dir() and cause:
        why = "the Hub cannot be reached" if constants.HF_HUB_OFFLINE else "the Hub did not answer"
        return BackendError(
            f"{name}: no such folder or cached model, and {why}; try again with a network, or name a folder"
        )
    reason = str(error).strip().split("\n", 1)[0][:160]
    return ConfigError(f"{name}: {problem} ({reason})")


def _reachable(endpoint: str) -> bool:
    """Return whether a connection succeeds. A proxy may reach more than this machine does, so it is not tested."""
    address = urlsplit(endpoint)
    if getproxies().keys() & {"https", "all"} or not address.hostname:
        return True
    try:
        socket.create_connection((address.hostname, address.port or 443), _TIMEOUT).close()
    except OSError:
        return False
    return True
