"""Two responses of which a number says how much better the second is: below 0 the first, 0 a tie."""

from collections.abc import Iterator, Sequence

from irlhf.core.errors import DataError
from irlhf.core.example import Content, Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, columns, number, preferred, tied


def graded_pair(
    row: Row, source: str, prompt: Content, responses: Sequence[Content], keys: tuple[str, set[str]]
) -> Iterator[Example | Rejected]:
    """Yield both responses; of a tie both without a label. `keys` are that of the number, and those used up."""
    name, used = keys
    strength = number(row.fields.get(name))
    if strength is None:
        raise DataError(f"{row.where}: '{name}' is no number (columns: {columns(row)})")
    standing = [-strength, strength]
    labels, noted = preferred(standing), tied(standing)
    sides = [Candidate(prompt, words, label, noted=noted) for words, label in zip(responses, labels, strict=True)]
    yield from answers(row, source, sides, used)
