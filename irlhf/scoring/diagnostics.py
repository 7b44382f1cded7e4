"""Statistics and warnings about rewards that a policy cannot be steered by."""

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irlhf.core import console
from irlhf.core.example import Example, as_text
from irlhf.core.hashing import fingerprint
from irlhf.core.statistics import spearman
from irlhf.policy.scales import ties

Floats = NDArray[np.float64]

WORDS = "(words)"  # name of the completion's length in correlations; not a valid reward name

_MOST = 50_000  # maximum rows; with more, a random subset of the prompts is used
_TIED = 0.75  # share of tied pairs of rows above which a reward has few distinct targets
_WITHIN = 0.1  # share of the variance within prompts below which the prompt determines the reward
_SAME = 0.95  # rank correlation above which two rewards are redundant
_MOST_LISTED = 3  # correlations printed per reward; `--json` has all of them
_FEW = 10  # minimum prompts with several completions for the variance within prompts


class RewardStatistics:
    """Collects the rewards of rows, in 8 bytes per number.

    If there are too many rows, those of half of the prompts are dropped, repeatedly, by a hash of the prompt. The rest
    is an unbiased sample of whole prompts that does not depend on the order of the file.
    """

    def __init__(self) -> None:
        self.prompts = array("Q")
        self.words = array("d")
        self.rewards: dict[str, array[float]] = {}
        self.below = 2**64  # only prompts with smaller fingerprints are used

    def add(self, example: Example) -> None:
        """Add one scored row."""
        prompt = fingerprint(example.cluster)
        if prompt >= self.below:
            return
        for name in example.rewards:
            if name not in self.rewards:
                self.rewards[name] = array("d", [math.nan] * len(self.prompts))
        self.prompts.append(prompt)
        self.words.append(len(as_text(example.completion).split()))
        for name, numbers in self.rewards.items():
            numbers.append(example.rewards.get(name, math.nan))
        while len(self.prompts) > _MOST:
            self._halve()

    def _halve(self) -> None:
        self.below //= 2
        kept = [i for i, prompt in enumerate(self.prompts) if prompt < self.below]
        self.prompts = array("Q", (self.prompts[i] for i in kept))
        self.words = array("d", (self.words[i] for i in kept))
        self.rewards = {name: array("d", (numbers[i] for i in kept)) for name, numbers in self.rewards.items()}

    def report(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the statistics of each of these rewards that some row has."""
        prompts = np.frombuffer(self.prompts, dtype=np.uint64)
        columns = {WORDS: np.array(self.words)} | {name: np.array(numbers) for name, numbers in self.rewards.items()}
        seen = [name for name in names if name in columns and not np.isnan(columns[name]).all()]
        return {name: _reward_statistics(name, prompts, columns) for name in seen}


def tell(report: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one line per reward, and warnings about rewards that cannot be steered.

    A line has the mean, the standard deviation and the 5% to 95% range, the share of ties, the share of the variance
    within prompts, and the rank correlations with the number of words and with the most similar rewards.
    """
    width = max(map(len, report), default=0)
    for name, statistics in report.items():
        mean, sd, low, high = (statistics[key] for key in ("mean", "sd", "p5", "p95"))
        spread = f"{mean:.3g} ± {sd:.3g} (5 to 95%: {low:.3g} to {high:.3g})"
        within = statistics["within_prompts"]
        share = "unknown" if within is None else f"{within:.0%}"
        ranks = sorted(statistics["correlations"].items(), key=lambda other: (other[0] != WORDS, -abs(other[1])))
        others = "".join(f"  {other} {value:+.2f}" for other, value in ranks[:_MOST_LISTED])
        console.note(f"{name:{width}}  {spread}  ties {statistics['ties']:.0%}  within prompts {share}{others}")
    for name, statistics in report.items():
        for warning in statistics["warnings"]:
            console.warn(f"{name}: {warning}")


def _reward_statistics(name: str, prompts: NDArray[np.uint64], columns: Mapping[str, Floats]) -> dict[str, Any]:
    valid = ~np.isnan(columns[name])
    numbers = columns[name][valid]
    statistics: dict[str, Any] = {
        "rows": len(numbers),
        "mean": float(numbers.mean()),
        "sd": float(numbers.std()),
        "p5": float(np.percentile(numbers, 5)),
        "p95": float(np.percentile(numbers, 95)),
        "ties": _ties(numbers),
        **_variance(numbers, prompts[valid]),
        "correlations": {
            other: value
            for other, more in columns.items()
            if other != name and (value := _spearman(columns[name], more)) is not None
        },
    }
    earlier = list(columns)[1 : list(columns).index(name)]
    return {**statistics, "warnings": list(_warnings(statistics, earlier))}


def _ties(numbers: Floats) -> float:
    """Return the share of pairs of rows with equal rewards, in [0, 1]; rewards that differ by rounding are equal."""
    ordered = np.sort(numbers)
    lows = [low for low, _ in ties(ordered.tolist())]
    counts = np.diff([*np.searchsorted(ordered, lows), len(ordered)])
    pairs = len(numbers) * (len(numbers) - 1)
    return float((counts * (counts - 1)).sum() / pairs) if pairs else 0.0


def _variance(numbers: Floats, prompts: NDArray[np.uint64]) -> dict[str, Any]:
    """Return the share of the variance within prompts, in [0, 1], over prompts with several completions.

    The variance components are those of the one-way analysis of variance (Searle, Casella and McCulloch 1992, section
    3.6); the share is 1 minus the intraclass correlation. None if there are too few such prompts, or no variance.
    """
    _, places, counts = np.unique(prompts, return_inverse=True, return_counts=True)
    several = counts[places] > 1
    _, places, counts = np.unique(prompts[several], return_inverse=True, return_counts=True)
    numbers, groups, rows = numbers[several], len(counts), int(several.sum())
    if groups < _FEW:
        return {"within_prompts": None, "prompts": groups}
    means = np.bincount(places, numbers) / counts
    within = ((numbers - means[places]) ** 2).sum() / (rows - groups)
    between = (counts * (means - numbers.mean()) ** 2).sum() / (groups - 1)
    size = (rows - (counts**2).sum() / rows) / (groups - 1)
    total = within + max(0.0, (between - within) / size)
    return {"within_prompts": float(within / total) if total > 0 else None, "prompts": groups}


def _spearman(left: Floats, right: Floats) -> float | None:
    """Return the rank correlation over the rows with both numbers; None if one is constant or rows are too few."""
    both = ~np.isnan(left) & ~np.isnan(right)
    left, right = left[both], right[both]
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(spearman(np.ones((1, len(left))), left, right)[0])


def _warnings(statistics: Mapping[str, Any], earlier: Iterable[str]) -> Iterable[str]:
    if statistics["rows"] > 1 and statistics["ties"] == 1:
        yield f"every row has {statistics['mean']:g}, so a policy cannot be steered by it"
        return
    if statistics["ties"] > _TIED:
        yield f"{statistics['ties']:.0%} of all pairs of rows tie, so there are few distinct targets"
    within = statistics["within_prompts"]
    if within is not None and within < _WITHIN:
        yield (
            f"the prompt determines it: only {within:.0%} of its variance is between completions of one prompt"
            f" ({statistics['prompts']:,} prompts), so a policy cannot change it much"
        )
    for other in earlier:
        value = statistics["correlations"].get(other, 0.0)
        if abs(value) > _SAME:
            yield f"it is almost equal to {other} (rank correlation {value:+.2f}), so they cannot be steered separately"
