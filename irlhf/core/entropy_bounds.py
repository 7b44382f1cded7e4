"""Bounds on a token's entropy from its top logprobs, and a KL estimate. All values are in nats."""

import math
from collections.abc import Sequence

_NEVER = -700.0  # lower logprobs underflow to 0, or are a server's placeholder for an unknown value
_FAR = 200.0  # largest log-ratio whose exponential fits into a row


def bracket(logprobs: Sequence[float], vocabulary: int | None, whole: bool = True) -> tuple[float, float | None]:
    """Return the lower and upper bound of one token's entropy, given the logprobs of the likeliest tokens.

    The unlisted tokens share the probability eps = 1 - sum p. Entropy is Schur-concave (Marshall, Olkin and Arnold
    2011, chapter 3). It is largest if eps is spread evenly over the rest of the vocabulary. It is smallest if eps is
    concentrated in as few tokens as possible, each at most as likely as the least likely listed one. If the list may
    lack a likelier token (`whole` is False), eps may all be in one token. The upper bound is None if the vocabulary
    size is unknown. Exclude a drawn token that is not among the likeliest: it barely changes the bounds.
    """
    known = [logprob for logprob in logprobs if logprob > _NEVER]
    shares = [math.exp(logprob) for logprob in known]
    rest = max(0.0, 1.0 - math.fsum(shares))  # rounding of the logprobs may make it negative
    listed = math.fsum(-share * logprob for share, logprob in zip(shares, known, strict=True))
    highest = min(shares) if shares and whole else 1.0
    full = math.floor(rest / highest)
    low = max(0.0, listed + full * _part(highest) + _part(rest - full * highest))
    room = None if vocabulary is None else vocabulary - len(shares)
    if room is None or room < 0:
        return low, None
    return low, max(low, listed + room * _part(rest / room) if room else listed)


def likeliest(listed: Sequence[float], drawn: float, requested: int, distinct: bool) -> tuple[list[float], bool]:
    """Return the logprobs of the `requested` likeliest tokens in a server's list, and whether the list is complete.

    Servers append the drawn token if it is not among the likeliest. Unless tokens are `distinct`, they are keyed by
    text, so one of two tokens with equal text is lost. A full list that ends with the drawn token may hide such a loss.
    """
    top = sorted(listed, reverse=True)[:requested]
    hidden = len(listed) == requested and not distinct and drawn <= top[-1]
    return top, len(listed) >= requested and not hidden


def k3(policy: Sequence[float], reference: Sequence[float]) -> float:
    """Return the k3 estimate of KL(policy || reference) in nats, from both models' logprobs of the drawn tokens.

    The sum over tokens of (r - 1) - log r with r = reference / policy (Schulman 2020, "Approximating KL Divergence").
    Like k1, the sum of -log r, it is unbiased if the policy drew the tokens at temperature 1 without truncation. It is
    never negative, and its variance is lower than that of k1 if the models are similar. Tokens that the reference
    finds much likelier than the policy make r large.
    """
    ratios = [min(theirs - own, _FAR) for own, theirs in zip(policy, reference, strict=True)]
    return math.fsum(math.expm1(ratio) - ratio for ratio in ratios)


def _part(share: float) -> float:
    """Return the entropy term -p log p of a token."""
    return -share * math.log(share) if share > 0 else 0.0
