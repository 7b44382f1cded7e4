"""Preference accuracy: how often each reward prefers the chosen completion of a pair. Needs no policy."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irlhf.core import console
from irlhf.core.bootstrap import Bootstrap, few_prompts
from irlhf.core.errors import DataError
from irlhf.core.example import TRAIN, Example
from irlhf.core.pairs import Pair, accuracy, left_out, pairs_of
from irlhf.policy.remote_model import HOSTED_KEY, find_reward_file
from irlhf.policy.rewards_file import Reward, read_rewards

_KINDS = ("rewards", "gold")
_LOGITS = "hf:"  # prefix of scorers whose reward is a logit; reward models are trained on differences of logits


class _Column(NamedTuple):
    """The pairs with a reward of one scorer on both sides."""

    pairs: list[Pair]
    differences: list[float]  # chosen minus rejected, in the scorer's units


def read_specs(path: str) -> dict[str, dict[str, Reward]]:
    """Return the rewards and the gold scorers of a rewards.yaml by name; none for an empty path."""
    if not path:
        return {"rewards": {}, "gold": {}}
    specs = read_rewards(Path(path))
    beside = Path(path).parent
    # Gold has the direction of its reward, even if the file names no gold scorer.
    gold = {
        name: _with_deployed_scorer(specs.gold.get(name, Reward()), beside).model_copy(
            update={"direction": reward.direction}
        )
        for name, reward in specs.rewards.items()
    }
    return {
        "rewards": {name: _with_deployed_scorer(reward, beside) for name, reward in specs.rewards.items()},
        "gold": gold,
    }


def _with_deployed_scorer(reward: Reward, beside: Path) -> Reward:
    """Return the reward; a folder of a hosted reward model is replaced by the `binary:` scorer of that model.

    A folder of a model that learnt ratings is replaced by `ratings:`, because its rewards are no logits.
    """
    described = find_reward_file(reward.single, beside) if reward.by_path else {}
    if not described:
        return reward
    if hosted := described[HOSTED_KEY]:
        return reward.model_copy(update={"scorer": f"binary:{hosted.model}"})
    rated = described["settings"].get("reward")
    return reward.model_copy(update={"scorer": f"ratings:{rated}"}) if rated else reward


def preferences(
    rows: Sequence[Example], specs: Mapping[str, Mapping[str, Reward]], bootstrap: Bootstrap, path: Path
) -> dict[str, Any]:
    """Return the preference accuracy of every reward and gold scorer that has a pair with both sides scored.

    `counts` accounts for all rows; `splits` counts pairs by split. Rewards missing from `specs` are taken as higher is
    better. Raises DataError, naming the file, if there are no pairs or no rewards to compare.
    """
    _check_ids(rows)
    pairs, counts = pairs_of(rows)
    if not pairs:
        problem = f"{path}: no pairs in {counts['rows']:,} rows ({left_out(counts)})"
        raise DataError(f"{problem}; a chosen and a rejected completion share their 'group' and their prompt")
    columns = {kind: dict(_columns(pairs, kind)) for kind in _KINDS}
    if not any(columns.values()):
        raise DataError(f"{path}: none of {len(pairs):,} pairs has a reward on both sides; score the rows first")
    _warn(pairs, counts, [name for name in columns["rewards"] if name not in specs["rewards"]])
    result = {
        kind: {
            name: _preference_metrics(column, specs[kind].get(name, Reward()), bootstrap)
            for name, column in kind_columns.items()
        }
        for kind, kind_columns in columns.items()
    }
    return {"counts": dict(counts), "splits": dict(Counter(pair.chosen.split or "none" for pair in pairs)), **result}


def _preference_metrics(column: _Column, spec: Reward, bootstrap: Bootstrap) -> dict[str, Any]:
    sign = -1 if spec.direction == "lower" else 1
    # The logit of one class among several is not a preference logit.
    logits = (spec.by_path or spec.single.startswith(_LOGITS)) and not spec.label and spec.read in ("", "logit")
    differences = [sign * difference for difference in column.differences]
    return {"direction": spec.direction, **accuracy(column.pairs, differences, bootstrap, logits)}


def _columns(pairs: Sequence[Pair], kind: str) -> Iterator[tuple[str, _Column]]:
    """Yield each reward, or gold scorer, with the pairs that have it on both sides."""
    sides = [(pair, getattr(pair.chosen, kind), getattr(pair.rejected, kind)) for pair in pairs]
    shared = [(pair, {name: a[name] - b[name] for name in a if name in b}) for pair, a, b in sides]
    for name in dict.fromkeys(name for _, differences in shared for name in differences):
        there = [(pair, differences[name]) for pair, differences in shared if name in differences]
        yield name, _Column([pair for pair, _ in there], [difference for _, difference in there])


def _check_ids(rows: Sequence[Example]) -> None:
    twice = next((name for name, count in Counter(row.id for row in rows).items() if count > 1), "")
    if twice:
        raise DataError(f"id '{twice}' occurs in two files; ids must be unique")


def _warn(pairs: Sequence[Pair], counts: Mapping[str, int], guessed: Sequence[str]) -> None:
    """Note rows that were left out and assumed directions; warn about pairs that make the metrics unreliable."""
    if left_out(counts):
        console.note(f"{counts['rows']:,} rows make {len(pairs):,} pairs; left out: {left_out(counts)}")
    if guessed:
        console.note(f"{', '.join(guessed)} taken as higher is better; a rewards.yaml (-r) can set the direction")
    learnt = sum(TRAIN in (pair.chosen.split, pair.rejected.split) for pair in pairs)
    if learnt:
        console.warn(f"{learnt:,} pairs are of the {TRAIN} split, which a reward model may have memorised")
    if few := few_prompts({"pairs": len({pair.prompt for pair in pairs})}):
        console.warn(few)
