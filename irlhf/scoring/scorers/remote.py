"""What the scorers on servers share: an example whose request fails, or whose reply holds no reward, is a `Failure`."""

from collections.abc import Callable, Sequence

from irlhf.core.errors import BackendError, IrlhfError
from irlhf.core.example import Example
from irlhf.openai_api.api_client import RequestFailed
from irlhf.scoring.scorers.base import Failure, Reply


class NoReward(Exception):
    """The reply to one example holds no reward."""

    def __init__(self, reason: str, error: type[IrlhfError] = BackendError) -> None:
        super().__init__(reason)
        self.error = error


def score_each(score: Callable[[Example], Reply], examples: Sequence[Example]) -> list[Reply | Failure]:
    """Return the reply to each example, or why it has none. Raises ConfigError and BackendError for the run."""
    replies: list[Reply | Failure] = []
    for example in examples:
        try:
            replies.append(score(example))
        except RequestFailed as failure:
            replies.append(Failure(str(failure)))
        except NoReward as missing:
            replies.append(Failure(str(missing), missing.error))
    return replies
