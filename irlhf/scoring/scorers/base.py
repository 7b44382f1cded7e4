"""The protocol of scorers: they return numbers for each example, or a failure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from irlhf.core.errors import BackendError, IrlhfError
from irlhf.core.example import Example

Reply = Mapping[str, float]  # numbers by the scorer's labels


@dataclass(frozen=True)
class Failure:
    """The reason why an example has no reward. It is reported, never replaced by a number."""

    reason: str
    error: type[IrlhfError] = BackendError  # raised unless such rows are rejected


@dataclass(frozen=True)
class Traits:
    """Properties of a scorer that are known before it runs.

    `identity` contains everything that a reply depends on besides the text, such as the digest of the weights, the
    rubric or the address. Scorers of equal identity return equal replies for equal texts, so that replies can be
    cached. It is empty if the scorer is too cheap to cache, or if its state is unknown. `link` converts numbers to
    probabilities, if they are logits. A scorer with `waits` waits for a server, and is called by many threads with one
    example each. `whole_row` means that the scorer may read more than prompt and completion. `usual` is the default
    label. `varies`: the set of labels differs by row, so a missing label fails the row instead of the run.
    """

    identity: str = ""
    link: Literal["", "softmax", "sigmoid"] = ""
    waits: bool = False
    whole_row: bool = False
    usual: str = ""
    varies: bool = False


def without_rewards(example: Example) -> dict[str, Any]:
    """Return an example as JSON, without the results of earlier scorers."""
    return {name: value for name, value in example.to_json().items() if name not in ("rewards", "gold")}


def is_number(value: object) -> bool:
    """Return whether a value in JSON is a number; booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class Scorer(Protocol):
    """Returns numbers for each example, or a failure.

    Creating a scorer is cheap and it can be pickled for the workers of a cluster: models are loaded, and servers are
    called, on the first example.
    """

    @property
    def traits(self) -> Traits:
        """The properties of the scorer."""

    def __call__(self, examples: Sequence[Example]) -> Sequence[Reply | Failure]:
        """Return one reply or failure per example, in order."""


@runtime_checkable
class CountingScorer(Protocol):
    """A scorer that counts inputs which it did not read as they are."""

    def notes(self) -> Mapping[str, int]:
        """Return the counts by their description, for a warning at the end and the summary."""


@runtime_checkable
class BatchScorer(Protocol):
    """A scorer that forms batches, so that rounding makes its numbers depend on the other examples of a pool.

    It gets all examples of the pool, including those with cached replies, so that batches depend on the input only.
    """

    def replies_at(self, examples: Sequence[Example], missing: Collection[int]) -> Mapping[int, Reply | Failure]:
        """Return the replies to the examples at the indices `missing`, by index."""
