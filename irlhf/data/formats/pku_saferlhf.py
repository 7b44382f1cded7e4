"""PKU-SafeRLHF: two responses, of which one is better, one is safer, and each is safe or not.

Its columns have changed between editions, so one that is missing is an error that lists what there is.
"""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, columns, text

FIELDS = '"prompt", "response_0", "response_1", "better_response_id", "safer_response_id"'
BECOMES = "two rows a pair, labelled by which is better; better, safer, safe and severity_level kept as numbers"

_OF_A_RESPONSE = {
    "is_response_{}_safe": "safe",
    "response_{}_severity_level": "severity_level",
    "response_{}_harm_category": "harm_category",
    "response_{}_source": "response_source",
    "response_{}_sha256": "sha256",
}


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds two responses."""
    return {"prompt", "response_0", "response_1"} <= row.keys()


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both responses."""
    better, safer = (_winner(row, name) for name in ("better_response_id", "safer_response_id"))
    prompt = text(row, "prompt")
    sides = []
    for i in (0, 1):
        own = {name: row.fields[key.format(i)] for key, name in _OF_A_RESPONSE.items() if key.format(i) in row.fields}
        own |= {"better": better == i, "safer": safer == i}
        sides.append(Candidate(prompt, text(row, f"response_{i}"), CHOSEN if better == i else REJECTED, own))
    used = {key.format(i) for key in ("response_{}", *_OF_A_RESPONSE) for i in (0, 1)}
    yield from answers(row, source, sides, {"prompt", "better_response_id", "safer_response_id", *used})


def _winner(row: Row, name: str) -> int:
    value = row.fields.get(name)
    if value not in (0, 1):
        what = f"is {value!r:.40}, neither 0 nor 1" if name in row.fields else "is missing"
        raise DataError(f"{row.where}: '{name}' of PKU-SafeRLHF {what} (columns: {columns(row)})")
    return 1 if value == 1 else 0
