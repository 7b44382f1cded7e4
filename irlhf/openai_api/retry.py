"""How often, and after which waits, a request is sent again."""

import random
from dataclasses import dataclass

from irlhf.openai_api.failures import ApiFailure, FailureKind

_JITTER = random.SystemRandom()  # so that processes do not retry at the same moment


@dataclass(frozen=True)
class RetryPolicy:
    """Tries and waits of one request. Seconds that the server asks to wait replace the policy's own."""

    tries: int = 6
    rate_limit_tries: int = 24  # while other requests are answered
    timeout_tries: int = 3  # a late reply may have been paid for
    wait: float = 0.5  # seconds before the second try; doubled before each further one
    rate_limit_wait: float = 2.0  # so that six tries span the minute that rate limits are counted by
    longest_wait: float = 600.0  # seconds that a server may ask to wait; longer ends the run
    noted_wait: float = 5.0  # seconds from which the user is told about a wait

    def retries(self, failure: ApiFailure) -> bool:
        """Return whether another try may succeed soon enough."""
        return failure.transient and failure.retry_after <= self.longest_wait

    def exhausted(self, failure: ApiFailure, *, tried: int, timeouts: int, alone: bool) -> bool:
        """Return whether a request had its last try; `alone` says that no other request was answered meanwhile."""
        rate_limited = failure.kind is FailureKind.RATE_LIMITED and not alone
        return tried >= (self.rate_limit_tries if rate_limited else self.tries) or timeouts >= self.timeout_tries

    def delay(self, failure: ApiFailure, tried: int) -> float:
        """Return the seconds to wait after so many tries."""
        if failure.retry_after:
            return failure.retry_after
        first = self.rate_limit_wait if failure.kind is FailureKind.RATE_LIMITED else self.wait
        return first * 2.0 ** min(tried - 1, self.tries - 2) * (1 - _JITTER.random() / 4)


DEFAULT_RETRIES = RetryPolicy()


def duration(seconds: float) -> str:
    """Return a time to wait in s, min or h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
