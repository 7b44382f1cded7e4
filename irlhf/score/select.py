"""Choose, of the scored samples of one round, those that are worth training on: rules, one after the other.

distinct         of equal completions of one prompt the first
front            of a prompt's samples those that no other exceeds in every reward
top=0.5          the best half of all by weighted reward
entropy=1.2      guard: the least sure samples, as many as have this mean entropy (nats a token) together
entropy-floor=1  guard: no sample of less entropy
entropy-share=.3 guard: all but the three tenths of least entropy
kl=0.5           guard: the samples nearest to the reference, as many as have this mean distance (nats) together
random=0.3       all but three tenths by lot: what a guard of that share must beat
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import moocore
import numpy as np

from irlhf.errors import ConfigError, DataError
from irlhf.files import read_rows
from irlhf.journal import RunCard, journal
from irlhf.policy import Policy, find_policies, read_weights
from irlhf.records import Example, as_text, from_json, unique
from irlhf.registry import did_you_mean

GUARDS = ("entropy", "entropy-floor", "entropy-share", "kl")
RANDOM = "random"


@dataclass(frozen=True)
class SelectSettings:
    """Which rules choose, and by which weights samples are compared; empty: by the policy's own."""

    rules: str
    weights: str = ""
    policies: tuple[str, ...] = ()  # folders; empty: those that stand beside the samples
    limit: int = 0  # rows; 0 is all
    seed: int = 0


@dataclass(frozen=True)
class Rule:
    """One rule as it was written."""

    name: str
    number: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}={self.number:g}" if self.name in _NUMBERED else self.name


@dataclass(frozen=True)
class _Ruler:
    """What samples are compared by."""

    policies: dict[str, Policy]
    weights: str
    seed: int

    def vector(self, row: Example) -> list[float]:
        """Return a row's rewards in standard deviations of the training data, more is better. Raises DataError."""
        policy = self.policies[row.policy]
        own = policy.own(row.rewards)
        if missing := [name for name in policy.names if name not in own]:
            raise DataError(f"{row.id}: no reward '{missing[0]}', so samples cannot be compared; score them all first")
        return [policy.reward(name).zscore(own[name]) for name in policy.names]

    def weighted(self, row: Example) -> float:
        """Return a row's weighted reward. Raises DataError."""
        policy = self.policies[row.policy]
        weights = read_weights(self.weights, policy) or {card.name: card.weight for card in policy.rewards}
        return float(np.dot(self.vector(row), [weights.get(name, 0.0) for name in policy.names]))


_Choose = Callable[[list[Example], float, _Ruler], list[bool]]


def select(samples: str | Path, output: str | Path, settings: SelectSettings) -> dict[str, Any]:
    """Write the rows that all rules keep, in their order, and return what was done.

    What a rule drops stands in `<output>.rejected.jsonl` with the rule as its reason; the counts say how many each
    rule saw and dropped. Of equals the first is kept. Raises ConfigError for an unknown rule or a policy that is not
    here, and DataError where a row lacks what a rule goes by.
    """
    source, out = Path(samples), Path(output)
    rules = parse_rules(settings.rules)
    weights = {"weights": Path(settings.weights)} if Path(settings.weights).is_file() else {}
    card = RunCard("score --keep", {"samples": source, **weights}, asdict(settings))
    with journal(out, card, resumable=False) as book:
        if not book.finished:
            left = _read(source, settings)
            ruler = _Ruler(_policies(source, left, settings), settings.weights, settings.seed)
            book.counts["candidates"] = len(left)
            for rule in rules:
                kept = _RULES[rule.name](left, rule.number, ruler)
                for row, stays in zip(left, kept, strict=True):
                    if not stays:
                        book.reject(row.id, str(rule), row.to_json())
                book.counts[f"seen by {rule.name}"] = len(left)
                book.counts[f"dropped by {rule.name}"] = kept.count(False)
                left = [row for row, stays in zip(left, kept, strict=True) if stays]
            if not left:
                raise DataError(f"{source}: no sample is left after {settings.rules}; keep more")
            for row in left:
                book.write(row)
    return book.summary()


def parse_rules(text: str) -> list[Rule]:
    """Read rules parted by commas: "distinct,top=0.5". Raises ConfigError."""
    return [_parse_rule(one.strip(), text) for one in text.split(",")]


def _parse_rule(text: str, whole: str) -> Rule:
    name, equals, number = text.partition("=")
    if name not in _RULES:
        raise ConfigError(f"--keep {whole}: unknown rule '{name}'{did_you_mean(name, ('best', 'nearest', *_RULES))}")
    if name not in _NUMBERED:
        if equals:
            raise ConfigError(f"--keep {whole}: {name} takes no number; write {name}")
        return Rule(name)
    low, high = _NUMBERED[name]
    try:
        given = float(number)
    except ValueError:
        given = float("nan")
    if not low <= given <= high:
        raise ConfigError(f"--keep {whole}: write {name}= and a number from {low:g} to {high:g}")
    return Rule(name, given)


def _read(source: Path, settings: SelectSettings) -> list[Example]:
    rows = islice(read_rows(source), settings.limit or None)
    examples = list(unique((where, from_json(row, where)) for where, row in rows))
    for example in examples:
        if not example.policy:
            raise DataError(f"{source}: {example.id} has no 'policy'; --keep reads what `irlhf sample` wrote")
    return examples


def _policies(source: Path, rows: Sequence[Example], settings: SelectSettings) -> dict[str, Policy]:
    known = {digest: policy for digest, (_, policy) in find_policies([source], settings.policies).items()}
    if missing := [row.policy for row in rows if row.policy not in known]:
        raise ConfigError(f"the policy {missing[0]} of these samples is not here; name its folder with --policy")
    return known


def _distinct(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    first: dict[tuple[str, str], str] = {}
    return [first.setdefault((row.cluster, as_text(row.completion)), row.id) == row.id for row in rows]


def _front(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    prompts: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        prompts.setdefault(row.cluster, []).append(place)
    kept = [False] * len(rows)
    for places in prompts.values():
        points = np.array([ruler.vector(rows[place]) for place in places])
        # Equal ones stay together: which of them is worth training on, the rewards do not say.
        stays = moocore.is_nondominated(points, maximise=True, keep_weakly=True)
        for place, one in zip(places, stays, strict=True):
            kept[place] = bool(one)
    return kept


def _top(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    return _but_lowest([ruler.weighted(row) for row in rows], len(rows) - round(number * len(rows)))


def _entropy(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    """Drop the samples of least entropy, as few as bring the mean of the rest to the target."""
    return _until([_known(row, "entropy") for row in rows], number)


def _entropy_floor(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    return [_known(row, "entropy") >= number for row in rows]


def _entropy_share(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    return _but_lowest([_known(row, "entropy") for row in rows], round(number * len(rows)))


def _kl(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    """Drop the samples that the reference finds least likely, as few as bring the mean distance down to the limit."""
    return _until([_known(row, "reference") - _known(row, "logprob") for row in rows], -number)


def _random(rows: list[Example], number: float, ruler: _Ruler) -> list[bool]:
    lots = [int(hashlib.sha256(f"{ruler.seed}/{row.id}".encode()).hexdigest(), 16) for row in rows]
    return _but_lowest(lots, round(number * len(rows)))


_RULES: dict[str, _Choose] = {
    "distinct": _distinct,
    "front": _front,
    "top": _top,
    "entropy": _entropy,
    "entropy-floor": _entropy_floor,
    "entropy-share": _entropy_share,
    "kl": _kl,
    RANDOM: _random,
}
# The rules that take a number, and what it lies between.
_NUMBERED = {
    "top": (0, 1),
    "entropy": (0, 100),
    "entropy-floor": (0, 100),
    "entropy-share": (0, 1),
    "kl": (0, 1000),
    RANDOM: (0, 1),
}
RULES = tuple(_RULES)


def _known(row: Example, name: str) -> float:
    number = getattr(row, name)
    if number is None:
        mend = "sample with --reference" if name == "reference" else "no server tells it; take another rule"
        raise DataError(f"{row.id}: no {name}, which the guard goes by; {mend}")
    return float(number)


def _but_lowest(numbers: Sequence[float], count: int) -> list[bool]:
    """Drop the lowest `count`; of equals the later ones."""
    order = sorted(range(len(numbers)), key=lambda place: (numbers[place], -place))
    dropped = set(order[:count])
    return [place not in dropped for place in range(len(numbers))]


def _until(numbers: Sequence[float], mean: float) -> list[bool]:
    """Drop the lowest, as few as bring the mean of the rest up to `mean`; where none can, all but the highest."""
    order = sorted(numbers)
    total, left = sum(order), len(order)
    while left > 1 and total / left < mean:
        total -= order[len(order) - left]
        left -= 1
    return _but_lowest(numbers, len(order) - left)
