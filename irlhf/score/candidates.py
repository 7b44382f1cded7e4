"""The scored samples that `score --keep` chooses among, and the policies that drew them."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from irlhf.errors import DataError
from irlhf.files import read_rows
from irlhf.journal import RunCard
from irlhf.policy import Policy, check_found, find_policies
from irlhf.records import Example, from_json, unique

if TYPE_CHECKING:
    from irlhf.score.keep import KeepSettings
    from irlhf.score.select import SelectSettings


def card_of(source: Path, settings: "KeepSettings | SelectSettings") -> RunCard:
    """Return what a run makes."""
    weights = {"weights": Path(settings.weights)} if Path(settings.weights).is_file() else {}
    return RunCard("score --keep", {"samples": source, **weights}, asdict(settings))


def read_samples(source: Path, limit: int) -> list[Example]:
    """Read samples; 0 is no limit. Raises DataError for a row that no policy drew."""
    rows = islice(read_rows(source), limit or None)
    examples = list(unique((where, from_json(row, where)) for where, row in rows))
    for example in examples:
        if not example.policy:
            raise DataError(f"{source}: {example.id} has no 'policy'; --keep reads what `irlhf sample` wrote")
    return examples


def policies_of(source: Path, rows: Sequence[Example], folders: Sequence[str]) -> dict[str, Policy]:
    """Return by digest the policies that drew the rows, in their order. Raises ConfigError where one is not here."""
    known = find_policies([source], folders)
    check_found(rows, known)
    return {digest: known[digest][1] for digest in dict.fromkeys(row.policy for row in rows)}


def reward_of(row: Example, policy: Policy, name: str) -> float:
    """Return a row's raw reward. Raises DataError where it has none, and ConfigError for one that nobody knows."""
    # A name that the policy does not know is another mistake than a row that was not scored.
    reward = policy.reward(name).read(row.rewards)
    if reward is None:
        raise DataError(f"{row.id}: no reward '{name}', so samples cannot be compared; score them all first")
    return reward
