"""The range of targets over which the actual reward rises, and a map from wanted rewards to targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from irlhf.core import statistics
from irlhf.core.bootstrap import Bootstrap, Floats, Interval, clustered
from irlhf.evaluation.arms import Pair
from irlhf.evaluation.curve import Levels, level_means, levels_of
from irlhf.policy.policy_file import Reach

LEVELS = 20  # maximum
_ROWS = 30  # per level, if there are many distinct targets
_FEWEST = 10  # rows per level; smaller levels are ignored

_NOTHING = 1e-9  # relative to the range of actual rewards; a smaller rise is a rounding error

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """Targets and actual rewards of one reward, in the units of its scale."""

    prompts: Sequence[str]
    targets: Floats
    actual: Floats

    @cached_property
    def levels(self) -> Levels:
        """The level of each row: one distinct target, or a bin of about equally many rows."""
        return levels_of(self.targets, min(LEVELS, max(2, len(self.targets) // _ROWS)))

    @cached_property
    def counts(self) -> Floats:
        """The number of rows of each level."""
        return np.bincount(self.levels).astype(float)

    @cached_property
    def centres(self) -> Floats:
        """The mean target of each level."""
        means: Floats = np.bincount(self.levels, weights=self.targets) / self.counts
        return means

    @property
    def all(self) -> Mask:
        """The mask of all rows."""
        return np.ones(len(self.targets), bool)

    def means(self, mask: Mask) -> Floats:
        """Return the mean actual reward of each level over the masked rows; NaN for a level without rows."""
        means: Floats = level_means(mask[None].astype(float), self.actual, self.levels, range(len(self.counts)))[0]
        return means


@dataclass(frozen=True)
class Shape:
    """Runs of levels of a curve that falls, rises and falls. The first and the last fall may be missing."""

    curve: Floats
    first: range
    trough: range
    peak: range
    last: range


@dataclass(frozen=True)
class Reached:
    """The reachable range of one reward, and its evidence. An interval is None if there are too few rows."""

    reach: Reach | None
    rise: Interval | None  # of the mean actual reward from the trough to the peak
    dip: Interval | None  # mean actual reward of the lowest target minus that of the trough
    fall: Interval | None  # mean actual reward of the peak minus that of the highest target
    gain: Interval | None  # reduction of the error by the map


def find_reach(pairs: Sequence[Pair], bootstrap: Bootstrap) -> Reached:
    """Return the range of targets over which the actual reward rises, with a map if it reduces the error.

    A curve that falls, rises and falls is fitted to the mean actual rewards of the levels by least squares; its trough
    and peak are located on one half of the prompts, and rise and falls are measured on the other half, and vice
    versa. There is a range if the interval of the rise is above 0. The range begins at the trough, or ends at the
    peak, only if the interval of that fall is above 0; otherwise it extends to the lowest or highest target.
    """
    answers = _answers(pairs)
    if len(answers.counts) < 2:
        return Reached(None, None, None, None, None)
    halves = _halves(answers.prompts, bootstrap.seed)
    contrasts = _contrasts(answers, halves, bootstrap)
    ends = _ends(answers, contrasts["dip"], contrasts["fall"])
    if not _evident(contrasts["rise"]) or ends[0] >= ends[1]:
        return Reached(None, contrasts["rise"], contrasts["dip"], contrasts["fall"], None)
    low, high = _numbers(answers, *ends)
    gain = _gain(answers, halves, ends, bootstrap)
    knots = _knots(answers, answers.all, ends) if _evident(gain) else ((), ())
    return Reached(Reach(low, high, *knots), contrasts["rise"], contrasts["dip"], contrasts["fall"], gain)


def _answers(pairs: Sequence[Pair]) -> Answers:
    """Return the rows of levels that have enough rows."""
    targets, actual = np.array([(pair.target, pair.actual) for pair in pairs]).T
    prompts = np.array([pair.prompt for pair in pairs])
    given = Answers(prompts.tolist(), targets, actual)
    often = given.counts[given.levels] >= _FEWEST
    return Answers(prompts[often].tolist(), targets[often], actual[often])


def shape_of(means: Floats, counts: Floats) -> Shape:
    """Return the falling, rising and falling curve with the least squared distance from the means."""
    curve, start, stop = _nearest(means, counts)
    if start > 0 and curve[start - 1] <= curve[start]:
        start -= 1
    if stop < len(curve) - 1 and curve[stop + 1] >= curve[stop]:
        stop += 1
    return Shape(curve, _run(curve, 0), _run(curve, start), _run(curve, stop), _run(curve, len(curve) - 1))


def _nearest(means: Floats, counts: Floats) -> tuple[Floats, int, int]:
    """Return the curve and the levels between which it rises."""
    size = len(means)
    before = [_monotone(means[:i], counts[:i], False) for i in range(size)]
    after = [_monotone(means[j + 1 :], counts[j + 1 :], False) for j in range(size)]
    best, nearest = np.inf, (means, 0, size - 1)
    for length in range(size, 0, -1):  # of equally near curves, the one with the longest rise
        for i in range(size - length + 1):
            j = i + length - 1
            curve = np.concatenate([before[i], _monotone(means[i : j + 1], counts[i : j + 1], True), after[j]])
            missed = float(counts @ (curve - means) ** 2)
            if missed < best - 1e-12 * counts.sum():
                best, nearest = missed, (curve, i, j)
    return nearest


def _monotone(means: Floats, counts: Floats, rising: bool) -> Floats:
    if not len(means):
        return means
    fitted: Floats = isotonic_regression(means, weights=counts, increasing=rising).x
    return fitted


def _run(curve: Floats, level: int) -> range:
    """Return the adjacent levels with the same value."""
    start = stop = level
    while start > 0 and curve[start - 1] == curve[level]:
        start -= 1
    while stop < len(curve) - 1 and curve[stop + 1] == curve[level]:
        stop += 1
    return range(start, stop + 1)


def _halves(prompts: Sequence[str], seed: int) -> tuple[Mask, Mask]:
    """Return the row masks of two random halves of the prompts."""
    known = sorted(set(prompts))
    order = np.random.default_rng(seed).permutation(len(known))
    first = {known[i] for i in order[: len(known) // 2]}
    in_first = np.array([prompt in first for prompt in prompts])
    return in_first, ~in_first


def _contrasts(answers: Answers, halves: tuple[Mask, Mask], bootstrap: Bootstrap) -> dict[str, Interval | None]:
    """Return rise, dip and fall, each the mean of two estimates: located on one half, measured on the other."""
    shapes = []
    for finding, measuring in (halves, halves[::-1]):
        means = answers.means(finding)
        if np.isnan(means).any():
            return dict.fromkeys(("rise", "dip", "fall"))
        shapes.append((shape_of(means, np.bincount(answers.levels[finding]).astype(float)), measuring))

    def measure(times: Floats) -> dict[str, Floats]:
        left, right = (_measured(answers, shape, measuring, times) for shape, measuring in shapes)
        ends = {name: (left[name] + right[name]) / 2 for name in ("dip", "fall")}
        return {**ends, "one": left["rise"], "other": right["rise"]}

    intervals = clustered(answers.prompts, measure, bootstrap)
    # The two estimates are not independent, so their intervals are averaged instead of combined.
    intervals["rise"] = {end: (intervals["one"][end] + intervals["other"][end]) / 2 for end in ("value", "low", "high")}
    return {name: _known(intervals[name]) for name in ("rise", "dip", "fall")}


def _measured(answers: Answers, shape: Shape, measuring: Mask, times: Floats) -> dict[str, Floats]:
    """Return rise, dip and fall of a shape in each draw of the measuring rows."""

    def change(run: range) -> Floats:
        # The mean over the whole run is less noisy than one level.
        mask = measuring & np.isin(answers.levels, run)
        foretold = shape.curve[answers.levels[mask]]
        return np.ptp(foretold) * statistics.slope(times[:, mask], foretold, answers.actual[mask])

    return {
        "rise": change(range(shape.trough[0], shape.peak[-1] + 1)),
        "dip": change(range(shape.trough[-1] + 1)),
        "fall": change(range(shape.peak[0], len(shape.curve))),
    }


def _ends(answers: Answers, dip: Interval | None, fall: Interval | None) -> tuple[int, int]:
    """Return the levels between which asking for more brings more: an end is cut only where that is evident."""
    shape = shape_of(answers.means(answers.all), answers.counts)
    return (shape.trough[0] if _evident(dip) else 0, shape.peak[-1] if _evident(fall) else len(answers.counts) - 1)


def _numbers(answers: Answers, start: int, stop: int) -> tuple[float, float]:
    """Return the targets of two levels; the first and the last level give the lowest and the highest target."""
    low = answers.targets.min() if start == 0 else answers.centres[start]
    high = answers.targets.max() if stop == len(answers.counts) - 1 else answers.centres[stop]
    return round(float(low), 10), round(float(high), 10)


def _knots(answers: Answers, mask: Mask, ends: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the rising curve of the actual reward by isotonic regression, one knot per run of equal values."""
    inside = slice(ends[0], ends[1] + 1)
    counts = np.bincount(answers.levels[mask], minlength=len(answers.counts)).astype(float)[inside]
    curve = _monotone(answers.means(mask)[inside], counts, True)
    starts = np.flatnonzero(np.r_[True, np.diff(curve) > _NOTHING * np.ptp(answers.actual)])
    xs = np.add.reduceat(counts * answers.centres[inside], starts) / np.add.reduceat(counts, starts)
    if len(starts) < 2:
        return (), ()
    return tuple(map(float, xs)), tuple(map(float, curve[starts]))


def _gain(answers: Answers, halves: tuple[Mask, Mask], ends: tuple[int, int], bootstrap: Bootstrap) -> Interval | None:
    """Return the reduction of the mean absolute error by a map from wanted rewards to targets.

    Wanted rewards are distributed like the targets. Without a map the target is the wanted reward; with one it is
    the map fitted on one half of the prompts. Errors of both are measured on the other half. A target between two
    levels gets the samples of both, so a coarse grid shows no gain. Targets are clamped to the range.
    """
    low, high = _numbers(answers, *ends)
    plain, parts = Reach(low, high), []
    for finding, measuring in (halves, halves[::-1]):
        knots = _knots(answers, finding, ends)
        weights = _shares(answers, plain, ends) - _shares(answers, Reach(low, high, *knots), ends)
        # [rows, wanted]: distance of each actual reward from each wanted one
        missed = np.abs(answers.actual[:, None] - answers.centres[None])
        wanted = answers.counts / answers.counts.sum()
        values = (missed * weights[:, answers.levels].T) @ wanted
        parts.append((measuring, values, sorted(np.flatnonzero(weights.any(0)).tolist())))

    def measure(times: Floats) -> dict[str, Floats]:
        total = np.zeros(len(times))
        for mask, values, used in parts:
            if used:
                total += level_means(times[:, mask], values[mask], answers.levels[mask], used).sum(1) / 2
        return {"gain": total}

    return _known(clustered(answers.prompts, measure, bootstrap)["gain"])


def _shares(answers: Answers, reach: Reach, ends: tuple[int, int]) -> Floats:
    """Return the weight of each level for each wanted level [wanted, levels]: the two levels around its target."""
    inside = answers.centres[ends[0] : ends[1] + 1]
    shares = np.zeros((len(answers.centres), len(answers.centres)))
    for wanted, number in enumerate(answers.centres):
        prompt_number = reach(float(number))
        shares[wanted, ends[0] : ends[1] + 1] = [np.interp(prompt_number, inside, unit) for unit in np.eye(len(inside))]
    return shares


def _known(interval: Interval) -> Interval | None:
    return None if np.isnan(list(interval.values())).any() else interval


def _evident(interval: Interval | None) -> bool:
    return interval is not None and interval["low"] > 0
