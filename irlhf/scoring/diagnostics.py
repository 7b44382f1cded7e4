"""Can a policy be steered by these rewards? A short look at the numbers before anybody trains on them."""

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irlhf.core import console
from irlhf.core.example import Example, as_text
from irlhf.core.hashing import fingerprint

Floats = NDArray[np.float64]

WORDS = "(words)"  # what correlations call the completion's length, which no reward can be called

_MOST = 50_000  # rows that are looked at; of more, those of some of the prompts
_TIED = 0.75  # share of pairs of rows with equal rewards from which little is left to ask for
_WITHIN = 0.1  # share of the variance within prompts below which the prompt has decided
_SAME = 0.95  # rank correlation from which two rewards are one
_MOST_LISTED = 3  # correlations of a reward in a line; all of them are in `--json`
_FEW = 10  # prompts with several completions, below which their variance says nothing


class RewardStatistics:
    """Collects the rewards of rows as they pass, in 8 bytes a number.

    Of too many rows those of half the prompts are let go, then of half of these, by a hash of the prompt: what is
    left is a fair draw of whole prompts, whatever the order of the file.
    """

    def __init__(self) -> None:
        self.prompts = array("Q")
        self.words = array("d")
        self.rewards: dict[str, array[float]] = {}
        self.below = 2**64  # fingerprints of the prompts that are looked at

    def add(self, example: Example) -> None:
        """Look at one scored row."""
        prompt = fingerprint(example.group or str(example.prompt))
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
        """Return for each of these rewards what can be said of it; {} where no row has one."""
        prompts = np.frombuffer(self.prompts, dtype=np.uint64)
        columns = {WORDS: np.array(self.words)} | {name: np.array(numbers) for name, numbers in self.rewards.items()}
        seen = [name for name in names if name in columns and not np.isnan(columns[name]).all()]
        return {name: _reward_statistics(name, prompts, columns) for name in seen}


def tell(report: Mapping[str, Mapping[str, Any]]) -> None:
    """Say the report, a line for each reward, and warn of what cannot be steered.

    After the spread: the share of ties, the share of the variance within prompts, and rank correlations with the
    number of words and the rewards that are most like it.
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
    there = ~np.isnan(columns[name])
    numbers = columns[name][there]
    statistics: dict[str, Any] = {
        "rows": len(numbers),
        "mean": float(numbers.mean()),
        "sd": float(numbers.std()),
        "p5": float(np.percentile(numbers, 5)),
        "p95": float(np.percentile(numbers, 95)),
        "ties": _ties(numbers),
        **_variance(numbers, prompts[there]),
        "correlations": {
            other: value
            for other, more in columns.items()
            if other != name and (value := _spearman(columns[name], more)) is not None
        },
    }
    earlier = list(columns)[1 : list(columns).index(name)]
    return {**statistics, "warnings": list(_warnings(statistics, earlier))}


def _ties(numbers: Floats) -> float:
    """Return the share of pairs of rows with equal rewards, in [0, 1]."""
    _, counts = np.unique(numbers, return_counts=True)
    pairs = len(numbers) * (len(numbers) - 1)
    return float((counts * (counts - 1)).sum() / pairs) if pairs else 0.0


def _variance(numbers: Floats, prompts: NDArray[np.uint64]) -> dict[str, Any]:
    """Return the share of the variance that lies within prompts, over those with several completions.

    The components are those of the one-way analysis of variance (Searle, Casella and McCulloch 1992, section 3.6):
    1 less the intraclass correlation. None where there are too few such prompts, or no variance.
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
    """Return the rank correlation over the rows that have both, or None where one does not vary."""
    from scipy.stats import spearmanr

    both = ~np.isnan(left) & ~np.isnan(right)
    left, right = left[both], right[both]
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(spearmanr(left, right).statistic)


def _warnings(statistics: Mapping[str, Any], earlier: Iterable[str]) -> Iterable[str]:
    if statistics["rows"] > 1 and statistics["ties"] == 1:
        yield f"every row has {statistics['mean']:g}, so there is nothing to ask for"
        return
    if statistics["ties"] > _TIED:
        yield f"{statistics['ties']:.0%} of all pairs of rows tie, so most of what can be asked for is one number"
    within = statistics["within_prompts"]
    if within is not None and within < _WITHIN:
        yield (
            f"the prompt decides it: {within:.0%} of its variance lies between completions of one prompt"
            f" ({statistics['prompts']:,} prompts), so a policy cannot change it much"
        )
    for other in earlier:
        value = statistics["correlations"].get(other, 0.0)
        if abs(value) > _SAME:
            yield f"it is almost {other} again (rank correlation {value:+.2f}), so the two cannot be asked for apart"
