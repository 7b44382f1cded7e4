"""Shared by scorers on servers: a failed request, or a reply without a reward, becomes a `Failure`."""

from collections.abc import Callable, Sequence

from irlhf.core.errors import BackendError, IrlhfError
from irlhf.core.example import Example
from irlhf.openai_api.api_client import RequestFailed
from irlhf.scoring.scorers.base import Failure, Reply


class NoReward(Exception):
    """The reply to one example has no reward."""

    def __init__(self, reason: str, error: type[IrlhfError] = BackendError) -> None:
        super().__init__(reason)
        self.error = error


def score_each(score: Callable[[Example], Reply], examples: Sequence[Example]) -> list[Reply | Failure]:
    """Return a reply or a failure per example. Raises ConfigError and BackendError if the run cannot continue."""
    replies: list[Reply | Failure] = []
    for example in examples:
        try:
            replies.append(score(example))
        except RequestFailed as failure:
            replies.append(Failure(str(failure)))
        except NoReward as missing:
            replies.append(Failure(str(missing), missing.error))
    return replies
