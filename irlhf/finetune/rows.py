"""The rows a policy learns from, and the card that says how their rewards are spelled."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

from irlhf import console
from irlhf.errors import ConfigError, DataError
from irlhf.files import read_rows
from irlhf.finetune.baselines import BLIND
from irlhf.policy import RESERVOIR, Policy, RewardCard
from irlhf.records import TRAIN, VALIDATION, Example, from_json, unique
from irlhf.rewards import Reward, read_rewards
from irlhf.scales import PERCENTILES, fit, percentile
from irlhf.templates import PLAIN, find_template

if TYPE_CHECKING:
    from irlhf.finetune import FinetuneSettings

Row = tuple[Example, dict[str, float]]  # an example and what its prompt asks for, in scale units


@dataclass
class TrainingSet:
    """The scored rows of one file, by split, with their rewards' meaning."""

    train: list[Example]
    validation: list[Example]
    specs: Mapping[str, Reward]
    counts: Counter[str] = field(default_factory=Counter)

    def policy(self, base: str, settings: "FinetuneSettings") -> Policy:
        """Return the card of a policy trained on these rows: scales fitted on the training split alone."""
        cards = []
        for name, spec in self.specs.items():
            raw = sorted(example.rewards[name] for example in self.train if name in example.rewards)
            scale = fit(name, spec, raw)
            percentiles = {f"p{one}": percentile(raw, one) for one in PERCENTILES}
            cards.append(RewardCard(name, spec.weight, scale, fmean(raw), pstdev(raw), percentiles))
        return Policy(
            base=base,
            baseline=settings.baseline,
            template=find_template(PLAIN if settings.baseline in BLIND else settings.template),
            rewards=tuple(cards),
            reservoir=self._reservoir(settings.seed),
            context=settings.context,
        )

    def asked(self, policy: Policy, rows: Sequence[Example], settings: "FinetuneSettings") -> Iterator[Row]:
        """Yield each example with the rewards that its prompt names; some lines are dropped at random."""
        for example in rows:
            rng = random.Random(f"{settings.seed}/{example.id}/drop")
            scaled = policy.scaled(example.rewards)
            yield example, {name: number for name, number in scaled.items() if rng.random() >= settings.drop}

    def _reservoir(self, seed: int) -> tuple[tuple[float, ...], ...]:
        """Return the joint raw rewards of up to RESERVOIR training rows that have them all."""
        full = [example for example in self.train if all(name in example.rewards for name in self.specs)]
        kept = random.Random(f"{seed}/reservoir").sample(full, min(RESERVOIR, len(full)))
        return tuple(tuple(example.rewards[name] for name in self.specs) for example in kept)


def read_training_set(source: Path, rewards: str, limit: int) -> TrainingSet:
    """Read scored rows. Raises DataError where none can be trained on, or a reward is nowhere."""
    train: list[Example] = []
    validation: list[Example] = []
    counts: Counter[str] = Counter()
    named = read_rewards(Path(rewards)) if rewards else None
    if named and named.combine == "sum":
        raise ConfigError(f"{rewards}: `combine: sum` is not answered by this version; use separate")
    wanted = tuple(named.rewards) if named else ()
    for example in unique((where, from_json(row, where)) for where, row in islice(read_rows(source), limit or None)):
        if example.split not in (TRAIN, VALIDATION, ""):
            counts[f"skipped: {example.split} split"] += 1
        elif not any(name in example.rewards for name in wanted or example.rewards):
            counts["skipped: no reward"] += 1
        else:
            (validation if example.split == VALIDATION else train).append(example)
    specs = dict(named.rewards) if named else {name: Reward() for one in train for name in one.rewards}
    if not train:
        raise DataError(f"{source}: no row to train on (a row needs rewards, and no split or the training split)")
    for name in specs:
        if not any(name in example.rewards for example in train):
            raise DataError(f"{source}: no training row has the reward '{name}'; score it with the same rewards.yaml")
    if not named:
        console.note(
            f"no rewards.yaml: {', '.join(specs)} taken as higher is better, weight 1, quantile scale, separate lines"
        )
    counts["rows"], counts["validation rows"] = len(train), len(validation)
    return TrainingSet(train, validation, specs, counts)
