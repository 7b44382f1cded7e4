"""What a scorer is: examples in, numbers out, or the reason why there are none."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from irlhf.core.errors import BackendError, IrlhfError
from irlhf.core.example import Example

Reply = Mapping[str, float]  # what the scorer calls its numbers → the numbers


@dataclass(frozen=True)
class Failure:
    """Why an example has no reward. It is counted and reported, never replaced by a number."""

    reason: str
    error: type[IrlhfError] = BackendError  # what stops the run where such rows are not set aside


@dataclass(frozen=True)
class Traits:
    """What is known of a scorer before it is asked.

    Two scorers of one `identity` give equal texts equal replies, so that a reply can be kept and used again: it holds
    the weights' digest, the rubric, the address, whatever a reply depends on besides the text. Empty: too cheap to
    keep, or unknown. `link` says how the numbers become probabilities, where they are logits. A scorer that `waits`
    for somebody else's answers may be called by many threads at a time, an example each. One that sees the
    `whole_row` may read more than prompt and completion. `usual` is the number that is read where a reward names no
    label. Where it `varies` which numbers there are, a label that is not among them is a row's failure, not the run's.
    """

    identity: str = ""
    link: Literal["", "softmax", "sigmoid"] = ""
    waits: bool = False
    whole_row: bool = False
    usual: str = ""
    varies: bool = False


class Scorer(Protocol):
    """Gives each example numbers, or says why not.

    Making one is quick: a model is loaded, and a server asked, when the first example comes. It travels to the
    workers of a cluster before that.
    """

    @property
    def traits(self) -> Traits:
        """What is known of it before it is asked."""

    def __call__(self, examples: Sequence[Example]) -> Sequence[Reply | Failure]:
        """Return one reply for each example, in their order."""


@runtime_checkable
class BatchScorer(Protocol):
    """A scorer that forms batches, by which its last digits depend on the other examples of a pool.

    It sees all examples of the pool, those with a kept reply too, so that its batches depend on the input alone.
    """

    def replies_at(self, examples: Sequence[Example], missing: Collection[int]) -> Mapping[int, Reply | Failure]:
        """Return the replies to the examples at these indices."""
