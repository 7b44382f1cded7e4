"""Entropy and distance between two models, from as little as is known of them. In nats throughout."""

import math
from collections.abc import Sequence

_NEVER = -700.0  # a log-probability below it is 0 to a float, or a server's word for one that it does not give
_FAR = 200.0  # a log-ratio beyond it has no exponential that a row may hold


def bracket(logprobs: Sequence[float], vocabulary: int | None, whole: bool = True) -> tuple[float, float | None]:
    """Return between which numbers the entropy of one token lies, given the log-probabilities of the likeliest ones.

    All tokens that are not listed hold eps = 1 - sum p. Entropy is Schur-concave (Marshall, Olkin and Arnold 2011,
    chapter 3): it is greatest where eps is spread evenly over the rest of the vocabulary, and least where it is piled
    up as high as it goes, in tokens as likely as the least likely listed one. Where some likelier token may be missing
    from the list (not `whole`) it may be piled up in one token. Nothing is above where the vocabulary is not known.
    A drawn token beyond the likeliest is to be left out: its own probability would move the ends by next to nothing.
    """
    known = [logprob for logprob in logprobs if logprob > _NEVER]
    shares = [math.exp(logprob) for logprob in known]
    rest = max(0.0, 1.0 - math.fsum(shares))  # the logprobs' rounding may put it below 0
    listed = math.fsum(-share * logprob for share, logprob in zip(shares, known, strict=True))
    highest = min(shares) if shares and whole else 1.0
    full = math.floor(rest / highest)
    low = max(0.0, listed + full * _part(highest) + _part(rest - full * highest))
    room = None if vocabulary is None else vocabulary - len(shares)
    if room is None or room < 0:
        return low, None
    return low, max(low, listed + room * _part(rest / room) if room else listed)


def likeliest(listed: Sequence[float], drawn: float, requested: int, distinct: bool) -> tuple[list[float], bool]:
    """Return the log-probabilities of the `requested` likeliest tokens a server lists, and whether none may be missing.

    Servers add the drawn token where it is not among the likeliest. Unless tokens are `distinct`, they are listed by
    their texts, and of two with one text one is lost; a full list hides that where it ends with the drawn token.
    """
    largest = sorted(listed, reverse=True)[:requested]
    hidden = len(listed) == requested and not distinct and drawn <= largest[-1]
    return largest, len(listed) >= requested and not hidden


def k3(policy: Sequence[float], reference: Sequence[float]) -> float:
    """Return a completion's share in KL(policy || reference), from both models' log-probabilities of its tokens.

    The sum over tokens of (r - 1) - log r with r = reference / policy (Schulman 2020, "Approximating KL Divergence").
    Unbiased, as the sum of -log r (k1) is, where the policy drew the tokens at temperature 1 and untruncated. Never
    below 0, and of less spread than k1 while the two are near each other; what the reference finds far likelier than
    the policy makes r large.
    """
    ratios = [min(theirs - own, _FAR) for own, theirs in zip(policy, reference, strict=True)]
    return math.fsum(math.expm1(ratio) - ratio for ratio in ratios)


def _part(share: float) -> float:
    """Return what a token of this probability adds to the entropy."""
    return -share * math.log(share) if share > 0 else 0.0
