"""Between which numbers does asking for more bring more, and would a map from wanted to asked bring one nearer?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from irlhf.core.bootstrap import Bootstrap, Floats, Interval, clustered
from irlhf.evaluation import statistics
from irlhf.evaluation.arms import Pair
from irlhf.evaluation.curve import Levels, level_means, levels_of
from irlhf.policy.policy_file import Reach

LEVELS = 20  # at most
_ROWS = 30  # of a level, where many different numbers were asked
_FEWEST = 10  # rows of a level that counts

_NOTHING = 1e-9  # of all that came back: a rise below this is rounding

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """What came back to the numbers asked of one reward, in the units of its scale."""

    prompts: Sequence[str]
    targets: Floats
    actual: Floats

    @cached_property
    def levels(self) -> Levels:
        """The level of each row: each number asked by itself, or about equally many rows."""
        return levels_of(self.targets, min(LEVELS, max(2, len(self.targets) // _ROWS)))

    @cached_property
    def counts(self) -> Floats:
        """The rows of each level."""
        return np.bincount(self.levels).astype(float)

    @cached_property
    def centres(self) -> Floats:
        """The mean number asked of each level."""
        means: Floats = np.bincount(self.levels, weights=self.targets) / self.counts
        return means

    @property
    def all(self) -> Mask:
        """All rows."""
        return np.ones(len(self.targets), bool)

    def means(self, mask: Mask) -> Floats:
        """Return the mean actual of each level over some rows; nan where they have none of it."""
        means: Floats = level_means(mask[None].astype(float), self.actual, self.levels, range(len(self.counts)))[0]
        return means


@dataclass(frozen=True)
class Shape:
    """Runs of levels of a curve that falls, then rises, then falls; the first and the last fall may be missing."""

    curve: Floats
    first: range
    trough: range
    peak: range
    last: range


@dataclass(frozen=True)
class Reached:
    """What was found of one reward. An interval is missing where the rows are too few for it."""

    reach: Reach | None
    rise: Interval | None  # of the mean actual from the trough to the peak
    dip: Interval | None  # by how much asking for the least brings more than the trough
    fall: Interval | None  # by how much asking for the most brings less than the peak
    gain: Interval | None  # by how much a map brings the actual nearer to what is wanted


def find_reach(pairs: Sequence[Pair], bootstrap: Bootstrap) -> Reached:
    """Return between which numbers asking for more brings more, with a map where it helps.

    The curve that falls, then rises, then falls and lies nearest to the levels' mean actuals has a trough
    and a peak. Found on one half of the prompts, rise and falls are measured on the other half, and both
    ways count: luck in finding them does not. There is a reach where the interval of the rise lies above 0.
    It ends at the peak only where the fall behind it lies above 0 likewise, else with the most that was asked.
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
    """Return the rows that are asked for nearly the same often enough."""
    targets, actual = np.array([(pair.target, pair.actual) for pair in pairs]).T
    prompts = np.array([pair.prompt for pair in pairs])
    given = Answers(prompts.tolist(), targets, actual)
    often = given.counts[given.levels] >= _FEWEST
    return Answers(prompts[often].tolist(), targets[often], actual[often])


def shape_of(means: Floats, counts: Floats) -> Shape:
    """Return the shape of the curve, falling, rising, falling, that is nearest to the means by least squares."""
    curve, start, stop = _nearest(means, counts)
    if start > 0 and curve[start - 1] <= curve[start]:
        start -= 1
    if stop < len(curve) - 1 and curve[stop + 1] >= curve[stop]:
        stop += 1
    return Shape(curve, _run(curve, 0), _run(curve, start), _run(curve, stop), _run(curve, len(curve) - 1))


def _nearest(means: Floats, counts: Floats) -> tuple[Floats, int, int]:
    """Return the curve, and the levels between which it rises."""
    size = len(means)
    before = [_monotone(means[:i], counts[:i], False) for i in range(size)]
    after = [_monotone(means[j + 1 :], counts[j + 1 :], False) for j in range(size)]
    best, nearest = np.inf, (means, 0, size - 1)
    for length in range(size, 0, -1):  # of equally near ones, the one that rises longest
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
    """Return the levels around one that have its value."""
    start = stop = level
    while start > 0 and curve[start - 1] == curve[level]:
        start -= 1
    while stop < len(curve) - 1 and curve[stop + 1] == curve[level]:
        stop += 1
    return range(start, stop + 1)


def _halves(prompts: Sequence[str], seed: int) -> tuple[Mask, Mask]:
    """Return the rows of two random halves of the prompts."""
    known = sorted(set(prompts))
    order = np.random.default_rng(seed).permutation(len(known))
    first = {known[i] for i in order[: len(known) // 2]}
    in_first = np.array([prompt in first for prompt in prompts])
    return in_first, ~in_first


def _contrasts(answers: Answers, halves: tuple[Mask, Mask], bootstrap: Bootstrap) -> dict[str, Interval | None]:
    """Return rise, dip and fall: the shape found on one half, measured on the other, and both ways in the mean."""
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
    # Two ways over the same rows are no two independent tries, and a reach out of noise would be the worst mistake.
    intervals["rise"] = {end: (intervals["one"][end] + intervals["other"][end]) / 2 for end in ("value", "low", "high")}
    return {name: _known(intervals[name]) for name in ("rise", "dip", "fall")}


def _measured(answers: Answers, shape: Shape, measuring: Mask, times: Floats) -> dict[str, Floats]:
    """Return rise, dip and fall of a shape in each draw of the rows that measure."""

    def change(run: range) -> Floats:
        # The whole run of the curve bears witness, not its ends alone.
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
    """Return the numbers that two levels stand for: at the ends, the least and the most that was asked."""
    low = answers.targets.min() if start == 0 else answers.centres[start]
    high = answers.targets.max() if stop == len(answers.counts) - 1 else answers.centres[stop]
    return round(float(low), 10), round(float(high), 10)


def _knots(answers: Answers, mask: Mask, ends: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the rising curve of actual along asked by isotonic regression, a knot for each run of equal values."""
    inside = slice(ends[0], ends[1] + 1)
    counts = np.bincount(answers.levels[mask], minlength=len(answers.counts)).astype(float)[inside]
    curve = _monotone(answers.means(mask)[inside], counts, True)
    starts = np.flatnonzero(np.r_[True, np.diff(curve) > _NOTHING * np.ptp(answers.actual)])
    xs = np.add.reduceat(counts * answers.centres[inside], starts) / np.add.reduceat(counts, starts)
    if len(starts) < 2:
        return (), ()
    return tuple(map(float, xs)), tuple(map(float, curve[starts]))


def _gain(answers: Answers, halves: tuple[Mask, Mask], ends: tuple[int, int], bootstrap: Bootstrap) -> Interval | None:
    """Return by how much nearer to what is wanted a map brings the mean actual.

    What is wanted is spread as what was asked. Without a map it is asked as it is, with one as the map of one
    half of the prompts says; how far the answers to either number miss what is wanted, the other half's
    answers say. A number between two levels gets the answers of both, so a coarse grid, which says nothing of
    what lies between its numbers, shows no gain. Both are held to the reach.
    """
    low, high = _numbers(answers, *ends)
    plain, parts = Reach(low, high), []
    for finding, measuring in (halves, halves[::-1]):
        knots = _knots(answers, finding, ends)
        weights = _shares(answers, plain, ends) - _shares(answers, Reach(low, high, *knots), ends)
        # [rows, wanted]: how far each answer misses each wanted number
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
    """Return for each wanted level [wanted, levels] which levels' answers it gets: the two nearest to what is asked."""
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
