"""Preference pairs, and the accuracy and calibration of a reward on them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from irlhf.core.bootstrap import Bootstrap, Floats, clustered
from irlhf.core.example import CHOSEN, PAIR, REJECTED, Content, Example, as_messages, as_text
from irlhf.core.hashing import fingerprint

BINS = 10  # number of bins of the reliability table

_LEFT_OUT = {
    "unlabelled": "rows neither chosen nor rejected",
    "ungrouped": "rows without a group",
    "alone": "rows without a counterpart",
    "equal": "pairs of equal completions",
}
COUNTS = ("rows", *_LEFT_OUT, "pairs")


class Pair(NamedTuple):
    """Two completions of one prompt, one preferred over the other."""

    chosen: Example
    rejected: Example

    @property
    def prompt(self) -> str:
        """The id of the prompt, which clusters the intervals."""
        return self.chosen.cluster


def pairs_of(examples: Iterable[Example]) -> tuple[list[Pair], Counter[str]]:
    """Return every pair of a chosen and a rejected completion of one prompt, and counts by the names in COUNTS.

    Two rows form a pair if they have the same group, equal prompts and, if given, the same `pair`. Rows without a
    group or with another label form no pair. `alone` counts rows without a counterpart of the other label, `equal`
    counts pairs of equal completions; both are left out.
    """
    counts = Counter(dict.fromkeys(COUNTS, 0))
    prompts: dict[tuple[str, str, int], dict[str, list[Example]]] = {}
    for example in examples:
        counts["rows"] += 1
        if example.label not in (CHOSEN, REJECTED):
            counts["unlabelled"] += 1
        elif not example.group:
            counts["ungrouped"] += 1
        else:
            key = example.group, str(example.extra.get(PAIR, "")), fingerprint(_as_json(example.prompt, "user"))
            prompts.setdefault(key, {CHOSEN: [], REJECTED: []})[example.label].append(example)
    pairs = []
    for sides in prompts.values():
        every = [Pair(*both) for both in product(sides[CHOSEN], sides[REJECTED])]
        kept = [pair for pair in every if _differ(pair)]
        counts["alone"] += 0 if every else sum(map(len, sides.values()))
        counts["equal"] += len(every) - len(kept)
        pairs += kept
    counts["pairs"] = len(pairs)
    return pairs, counts


def left_out(counts: Mapping[str, int]) -> str:
    """Return the counts of rows and pairs left out, as text; empty if there are none."""
    return ", ".join(f"{counts[name]:,} {what}" for name, what in _LEFT_OUT.items() if counts[name])


def accuracy(
    pairs: Sequence[Pair], differences: Sequence[float], bootstrap: Bootstrap, calibrated: bool = False
) -> dict[str, Any]:
    """Return the accuracy of a reward on pairs, compared with rules that use the length only.

    `differences` holds, for each of at least one pair, the reward of the chosen completion minus that of the rejected
    one, negated if lower is better. A tie counts one half. `longer` and `shorter` are the accuracies of always
    preferring the completion with more or fewer words. `above_rule` is the accuracy minus that of the better rule, on
    the same resamples. With `calibrated`, the differences are logits, and the calibration is included.
    """
    difference = np.array(differences, dtype=np.float64)
    words = np.array([_words(pair.chosen) - _words(pair.rejected) for pair in pairs], dtype=np.float64)
    columns = {"accuracy": _right(difference), "ties": (difference == 0).astype(np.float64), "longer": _right(words)}

    def measure(times: Floats) -> dict[str, Floats]:
        means = _means(times, columns)
        means |= {"shorter": 1 - means["longer"]}
        means |= {"best_rule": np.maximum(means["longer"], means["shorter"])}
        return means | {"above_rule": means["accuracy"] - means["best_rule"]}

    prompts = [pair.prompt for pair in pairs]
    figures = {"n": len(pairs), "prompts": len(set(prompts)), **clustered(prompts, measure, bootstrap)}
    return figures | ({"calibration": calibration(prompts, difference, bootstrap)} if calibrated else {})


def calibration(prompts: Sequence[str], difference: Floats, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the calibration of reward differences as logits of being chosen (Bradley and Terry 1952).

    `log_loss` (in nats) and `brier` are means over pairs. `bins` splits the pairs into up to ten equal parts by the
    predicted probability of the completion with the higher reward; each has the mean prediction and the share of pairs
    in which that completion was chosen. `ece` is the mean absolute difference of the two. Perfect predictions have an
    expected `ece` of `ece_floor`, because of sampling noise, so the lower end of its interval is reduced by that.
    """
    favoured = 1 / (1 + np.exp(-np.abs(difference)))
    bin_of_pair = _equal_parts(favoured)
    missed = _right(difference) - favoured
    bins = [bin_of_pair == part for part in np.unique(bin_of_pair)]
    # Each bin keeps the sign of its error in every resample; absolute values would add noise to each.
    sides = np.sum([np.sign(missed[members].sum()) * members for members in bins], axis=0)
    columns = {
        "log_loss": np.logaddexp(0, -difference),
        "brier": (1 - np.where(difference < 0, 1 - favoured, favoured)) ** 2,
        "ece": missed * sides,
    }

    def measure(times: Floats) -> dict[str, Floats]:
        shares = {
            str(i): _means(times[:, members], {"": _right(difference[members])})[""] for i, members in enumerate(bins)
        }
        return _means(times, columns) | shares

    measured = clustered(prompts, measure, bootstrap)
    noise = [np.sqrt(2 / np.pi * (favoured[members] * (1 - favoured[members])).sum()) for members in bins]
    floor = float(np.sum(noise)) / len(difference)
    measured["ece"]["low"] = max(0.0, measured["ece"]["low"] - floor)
    table = [
        {"n": int(members.sum()), "predicted": float(favoured[members].mean()), "right": measured[str(i)]}
        for i, members in enumerate(bins)
    ]
    return {**{name: measured[name] for name in columns}, "ece_floor": floor, "bins": table}


def _right(difference: Floats) -> Floats:
    """Return 1 for a positive difference, 0 for a negative one and 0.5 for a tie."""
    result: Floats = (np.sign(difference) + 1) / 2
    return result


def _equal_parts(values: Floats) -> Floats:
    """Return the index of the quantile bin of each value; equal values share a bin."""
    below = np.searchsorted(np.sort(values), values)
    result: Floats = np.floor(below * BINS / len(values))
    return result


def _means(times: Floats, columns: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return each column's mean in each draw; NaN if none of its rows was drawn."""
    with np.errstate(invalid="ignore"):
        means = times @ np.stack(list(columns.values()), axis=1) / times.sum(1, keepdims=True)
    return dict(zip(columns, means.T, strict=True))


def _words(example: Example) -> int:
    return len(as_text(example.completion).split())


def _as_json(content: Content, role: str) -> str:
    return json.dumps(as_messages(content, role), sort_keys=True)


def _differ(pair: Pair) -> bool:
    return as_messages(pair.chosen.completion, "assistant") != as_messages(pair.rejected.completion, "assistant")
