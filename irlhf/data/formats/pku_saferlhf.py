"""PKU-SafeRLHF: two responses, one of them better and one of them safer.

The columns differ between editions, so a missing one is an error that lists the columns of the row.
"""

from collections.abc import Iterator

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Format, Rejected, Row, has_keys
from irlhf.data.formats.helpers import Candidate, columns, examples_of, text, text_or_chat

_RESPONSE_COLUMNS = {
    "is_response_{}_safe": "safe",
    "response_{}_severity_level": "severity_level",
    "response_{}_harm_category": "harm_category",
    "response_{}_source": "response_source",
    "response_{}_sha256": "sha256",
}


def _read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both responses."""
    better, safer = (_winner(row, name) for name in ("better_response_id", "safer_response_id"))
    prompt = text_or_chat(row, "prompt")
    candidates = []
    for i in (0, 1):
        names = {key.format(i): name for key, name in _RESPONSE_COLUMNS.items()}
        extra = {name: row.fields[column] for column, name in names.items() if column in row.fields}
        extra |= {"better": better == i, "safer": safer == i}
        candidates.append(Candidate(prompt, text(row, f"response_{i}"), CHOSEN if better == i else REJECTED, extra))
    used = {key.format(i) for key in ("response_{}", *_RESPONSE_COLUMNS) for i in (0, 1)}
    yield from examples_of(row, source, candidates, {"prompt", "better_response_id", "safer_response_id", *used})


def _winner(row: Row, name: str) -> int:
    value = row.fields.get(name)
    if value not in (0, 1):
        problem = f"is {value!r:.40}, neither 0 nor 1" if name in row.fields else "is missing"
        raise DataError(f"{row.where}: '{name}' of PKU-SafeRLHF {problem} (columns: {columns(row)})")
    return 1 if value == 1 else 0


PKU_SAFERLHF = Format(
    "pku-saferlhf",
    fields='"prompt", "response_0", "response_1", "better_response_id", "safer_response_id"',
    becomes="two rows per pair, labelled by which is better; better, safer, safe and severity_level kept as numbers",
    matches=has_keys("prompt", "response_0", "response_1"),
    read=_read,
)
