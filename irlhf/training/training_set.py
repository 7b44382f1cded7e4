"""Read the training rows of a policy, fit its scales and draw the targets of its prompts."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from irlhf.core import console
from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import LENGTH, TRAIN, VALIDATION, Example, as_messages, from_json, unique
from irlhf.core.tool_calls import TOOL_KEYS, TOOLS, with_arguments
from irlhf.io.files import read_rows
from irlhf.io.resumable import RunManifest
from irlhf.policy.policy_file import RESERVOIR, Part, Policy, PolicyReward, read_policy, sum_of
from irlhf.policy.recorded_rewards import read_recorded, warn_of_other_scorers, warn_of_other_spec
from irlhf.policy.rewards_file import SUM, Reward, Rewards, ScaleSpec, read_rewards
from irlhf.policy.scales import PERCENTILES, UNIT, WITHIN, fit, percentile, within_ranks
from irlhf.policy.templates import PLAIN, RequestedValue, Template, find_template
from irlhf.training.baselines import BLIND, PROMPTED, baseline_rows
from irlhf.training.settings import FinetuneSettings
from irlhf.training.target_draw import TargetDraw

Row = tuple[Example, dict[str, RequestedValue]]  # an example and its targets
VALIDATION_ROWS = 128  # enough for a curve


@dataclass
class TrainingSet:
    """The scored rows of one file, by split, with the settings of their rewards."""

    train: list[Example]
    validation: list[Example]
    specs: Mapping[str, Reward]
    counts: Counter[str] = field(default_factory=Counter)
    summed: bool = False  # rewards are combined into one line
    like: Policy | None = None  # policy whose scales and template are reused
    scorers: Mapping[str, str] = field(default_factory=dict)  # identity of each reward's scorer, if it is recorded

    def policy(self, base: str, settings: FinetuneSettings) -> Policy:
        """Return the description of a policy trained on these rows, with scales fitted on the training split.

        With `like`, the scales, percentiles and joint vectors are those of that policy.
        """
        if self.like:
            kept = replace(self.like, base=base, training={}, calibration=None, hosted=None, turns=None)
            return replace(kept, context=settings.context or kept.context)
        rewards = tuple(
            _fitted(name, spec, [(row.rewards[name], row.cluster) for row in self.train if name in row.rewards])
            for name, spec in self.specs.items()
        )
        rewards = (self._sum(rewards),) if self.summed else rewards
        template = find_template(PLAIN if settings.baseline in BLIND else settings.template)
        _check_spelling(template, rewards)
        return Policy(
            base=base,
            baseline=settings.baseline,
            template=template.model_copy(update={"descriptions": {**self._descriptions(), **template.descriptions}}),
            rewards=rewards,
            reservoir=self._reservoir(rewards, settings.seed),
            context=settings.context,
            scorers={name: self.scorers[name] for name in self.specs if name in self.scorers},
        )

    def with_targets(self, policy: Policy, rows: Sequence[Example], settings: FinetuneSettings) -> Iterator[Row]:
        """Yield each example with its targets.

        Lines are omitted at random, see `FinetuneSettings.drop`. If the template has threshold lines, some targets are
        thresholds that the example satisfies.
        """
        draw, actual = self.target_draw(policy, settings), self.actual(policy)
        for example in rows:
            rng = random.Random(f"{settings.seed}/{example.id}/drop")
            own = actual[example.id]
            yield example, draw.wishes(own, draw.names(own, rng), rng)

    def actual(self, policy: Policy) -> dict[str, dict[str, float]]:
        """Return the rewards of each row by its id, in the units of the prompt.

        The scale `within` ranks training rows among training rows, and validation rows among validation rows.
        """
        splits = (self.train, self.validation)
        return {row.id: own for rows in splits for row, own in zip(rows, policy.scaled_rows(rows), strict=True)}

    def target_draw(self, policy: Policy, settings: FinetuneSettings) -> TargetDraw:
        """Return the `TargetDraw` of a policy."""
        known: dict[str, list[float]] = {}
        if policy.template.kinds != ["line"]:  # thresholds are drawn from the rewards of the training rows
            rows = policy.scaled_rows(self.train)
            known = {name: sorted(row[name] for row in rows if name in row) for name in policy.names}
        return TargetDraw(policy.template, known, settings.drop, settings.drop_all)

    def learnt(self, policy: Policy, settings: FinetuneSettings) -> list[Example]:
        """Return the examples to train on: all, or those of a baseline."""
        return baseline_rows(settings.baseline, self.train, policy, settings.seed) if settings.baseline else self.train

    def lines(
        self, policy: Policy, rows: Sequence[Example], settings: FinetuneSettings
    ) -> Iterator[tuple[Example, dict[str, Any]]]:
        """Yield each example with its line of a training file: its messages, the completion last, and its tools."""
        for example, requested in self.with_targets(policy, rows, settings):
            prompt = policy.template.render(example.prompt, requested, policy.names)
            messages = prompt + as_messages(example.completion, "assistant")
            yield example, {"messages": [with_arguments(m, parsed=False) for m in messages], **tool_fields(example)}

    def warn_of_cut(self) -> None:
        """Warn about completions without an end, which other trainers train on as if they had one."""
        if cut := sum(example.finish == LENGTH for example in self.train):
            console.warn(
                f"{cut:,} rows were cut off by the limit on new tokens, and a host trains them with an end of turn;"
                " --drop-cut leaves them out"
            )

    def _sum(self, rewards: Sequence[PolicyReward]) -> PolicyReward:
        """Return the reward of the single line of `combine: sum`.

        Its scale has the kind that all rewards share, otherwise `quantile`.
        """
        parts = tuple(
            Part(reward.name, reward.weight, reward.scale.direction, reward.mean, reward.deviation)
            for reward in rewards
        )
        sums = ((sum_of(parts, example.rewards), example.cluster) for example in self.train)
        kinds = {spec.scale.kind for spec in self.specs.values()}
        spec = Reward(scale=ScaleSpec(kind=kinds.pop() if len(kinds) == 1 else "quantile"))
        return _fitted(SUM, spec, [(reward, prompt) for reward, prompt in sums if reward is not None], parts)

    def _descriptions(self) -> dict[str, str]:
        if self.summed:
            return {SUM: " + ".join(f"{spec.weight:g}*{name}" for name, spec in self.specs.items())}
        return {name: spec.description for name, spec in self.specs.items() if spec.description}

    def _reservoir(self, rewards: Sequence[PolicyReward], seed: int) -> tuple[tuple[float, ...], ...]:
        """Return the joint rewards of up to RESERVOIR training rows that have all rewards, see `Policy.reservoir`."""
        columns = []
        for reward in rewards:
            column = [reward.read(example.rewards) for example in self.train]
            if reward.scale.kind == WITHIN:
                column = within_ranks(column, [example.cluster for example in self.train], reward.scale.direction)
            columns.append(column)
        full = [tuple(number for number in vector if number is not None) for vector in zip(*columns, strict=True)]
        full = [vector for vector in full if len(vector) == len(rewards)]
        return tuple(random.Random(f"{seed}/reservoir").sample(full, min(RESERVOIR, len(full))))


def tool_fields(example: Example) -> dict[str, Any]:
    """Return the keys of a training file that say which tools the assistant may call. Raises DataError."""
    try:
        tools = example.tools
    except DataError as error:
        raise DataError(f"row '{example.id}': {error}") from error
    fields = {name: example.extra[name] for name in TOOL_KEYS if name in example.extra}
    return {**fields, TOOLS: tools} if tools else {}


def _fitted(
    name: str, spec: Reward, rewards: Sequence[tuple[float, str]], parts: tuple[Part, ...] = ()
) -> PolicyReward:
    """Return a reward with its scale fitted on (raw reward, prompt cluster) of the training rows."""
    scale = fit(name, spec, [number for number, _ in rewards], [prompt for _, prompt in rewards])
    raw = sorted(number for number, _ in rewards)
    percentiles = {f"p{percent}": percentile(raw, percent) for percent in PERCENTILES}
    return PolicyReward(name, spec.weight, scale, fmean(raw), pstdev(raw), percentiles, parts)


def _check_spelling(template: Template, rewards: Sequence[PolicyReward]) -> None:
    """Raise ConfigError if a scale exceeds [0, 1] and the spelling supports only that range."""
    beyond = [reward.name for reward in rewards if reward.scale.kind not in UNIT]
    if beyond and template.position != "none" and template.spelling.kind != "decimal":
        kind = template.spelling.kind
        problem = f"the spelling {kind} supports numbers from 0 to 1, but the scale of {', '.join(beyond)} exceeds them"
        raise ConfigError(f"{problem}; use a quantile, within or linear scale, or the decimal spelling")


def read_training(source: Path, settings: FinetuneSettings) -> TrainingSet:
    """Read the scored rows, and report how many are used and skipped.

    Raises DataError if no row can be trained on, or if no row has one of the rewards.
    """
    like = read_policy(Path(settings.like)) if settings.like else None
    recorded = read_recorded(source)
    named = _named_rewards(source, settings.rewards, recorded.rewards if not like else None)
    if like:
        warn_of_other_scorers(like.scorers, source)
        who = f"{settings.rewards}: the policy of --keep-scales-of"
        check_same(like, named, who=who, fix="use the same rewards or remove -r")
    specs = _specs(like) if like else dict(named.rewards) if named else {}
    train, validation, counts = _read_splits(source, settings, list(specs))
    if not like and not named:
        specs = {name: Reward() for example in train for name in example.rewards}
    if not train:
        raise DataError(f"{source}: no rows to train on (a row needs rewards, and the training split or no split)")
    for name in specs:
        if not any(name in example.rewards for example in train):
            raise DataError(f"{source}: no training row has the reward '{name}'; score it with the same rewards.yaml")
    if not named and not like:
        console.warn(
            f"no rewards.yaml: defaults for {', '.join(specs)}: higher is better, weight 1, quantile scale; if that"
            " is wrong, pass the rewards.yaml of `irlhf score` with -r"
        )
    summed = named is not None and named.combine == "sum"
    lines = _reward_lines(specs, summed, like)
    kept = _with_numbers(train, lines)
    if without := len(train) - len(kept):
        reason = "scale within needs another completion of the same prompt with the reward"
        if not kept:
            raise DataError(f"{source}: no rows to train on: {reason}; use scale quantile, or sample with -n 2")
        console.warn(f"{without:,} training rows skipped: {reason}")
        counts["left out: alone with their prompt"] = without
    train, validation = kept, _with_numbers(validation, lines)
    counts["rows"], counts["validation rows"] = len(train), len(validation)
    training = TrainingSet(train, validation, specs, counts, summed, like, recorded.scorers)
    _report(training, settings)
    if summed and not like:
        _report_sum(training)
    return training


def _read_splits(
    source: Path, settings: FinetuneSettings, required: Sequence[str]
) -> tuple[list[Example], list[Example], Counter[str]]:
    """Return the training and the validation rows with a required (or else any) reward, and counts of the others."""
    train: list[Example] = []
    validation: list[Example] = []
    counts: Counter[str] = Counter()
    rows = islice(read_rows(source), settings.limit or None)
    for example in unique((where, from_json(row, where)) for where, row in rows):
        if example.split not in (TRAIN, VALIDATION, ""):
            counts[f"skipped: {example.split} split"] += 1
        elif not any(name in example.rewards for name in required or example.rewards):
            counts["skipped: no reward"] += 1
        elif settings.drop_cut and example.finish == LENGTH:
            counts["skipped: cut off by the limit on new tokens"] += 1
        else:
            (validation if example.split == VALIDATION else train).append(example)
    return train, validation, counts


def _report_sum(training: TrainingSet) -> None:
    """Print the terms of `combine: sum` with the mean and the standard deviation of each in the training rows."""
    terms = []
    for name, spec in training.specs.items():
        raw = [row.rewards[name] for row in training.train if name in row.rewards]
        terms.append(f"{spec.weight:g} × {name} (mean {fmean(raw):.3g}, sd {pstdev(raw):.3g})")
    console.note(
        f"the line `{SUM}` is the sum of {' + '.join(terms)}, each in standard deviations from its mean, whatever its"
        " unit; `weight:` in rewards.yaml changes their shares"
    )


def _report(training: TrainingSet, settings: FinetuneSettings) -> None:
    """Report the numbers of rows. Warn if the template writes a description that a reward does not have."""
    skipped_text = "".join(f"; {name} {n:,}" for name, n in training.counts.items() if name.startswith("skipped"))
    if held_out := training.counts["validation rows"]:
        skipped_text = f", {held_out:,} to validate on{skipped_text}"
    purpose = "fit the scales" if settings.baseline == PROMPTED else "train"
    console.note(f"{training.counts['rows']:,} rows to {purpose} on{skipped_text}")
    if training.like or training.summed or settings.baseline in BLIND:
        return
    template = find_template(settings.template)
    missing = [name for name, spec in training.specs.items() if not (spec.description or name in template.descriptions)]
    if missing and template.describes:
        console.warn(
            f"template {settings.template} writes the description of each reward, but {', '.join(missing)} has no"
            " `description:` in rewards.yaml, so the name is written instead"
        )


def _named_rewards(source: Path, rewards: str, recorded: Rewards | None) -> Rewards | None:
    """Return the rewards of a rewards.yaml or, without one, those recorded with the scored file."""
    if rewards:
        named = read_rewards(Path(rewards))
        warn_of_other_spec(named, source)
        return named
    if recorded:
        console.note(f"rewards as recorded when {source} was scored: {', '.join(recorded.rewards)}")
    return recorded


class _RewardLine(NamedTuple):
    """A reward line of the prompt: the rewards that it needs, and whether its scale is `within`."""

    rewards: tuple[str, ...]
    ranked: bool


def _reward_lines(specs: Mapping[str, Reward], summed: bool, like: Policy | None) -> list[_RewardLine]:
    if like:
        parts = {reward.name: tuple(part.name for part in reward.parts) or (reward.name,) for reward in like.rewards}
        return [_RewardLine(parts[name], name in like.ranked) for name in like.names]
    ranked = {name: spec.scale.kind == WITHIN for name, spec in specs.items()}
    if summed:
        return [_RewardLine(tuple(specs), all(ranked.values()))]
    return [_RewardLine((name,), ranked[name]) for name in specs]


def _with_numbers(rows: list[Example], lines: Sequence[_RewardLine]) -> list[Example]:
    """Return the rows with a value for at least one line; the scale `within` needs two completions of the prompt."""
    if not any(line.ranked for line in lines):
        return rows
    kept: set[str] = set()
    for line in lines:
        with_rewards = [row for row in rows if all(name in row.rewards for name in line.rewards)]
        siblings = Counter(row.cluster for row in with_rewards)
        kept |= {row.id for row in with_rewards if not line.ranked or siblings[row.cluster] > 1}
    return [row for row in rows if row.id in kept]


def _specs(like: Policy) -> dict[str, Reward]:
    """Return the rewards that a policy reads from a row, by name; a sum is replaced by its parts."""
    parts = [part for reward in like.rewards for part in (reward.parts or (reward,))]
    return {
        part.name: Reward(
            direction=part.direction if isinstance(part, Part) else part.scale.direction, weight=part.weight
        )
        for part in parts
    }


def check_same(policy: Policy, named: Rewards | None, *, who: str, fix: str) -> None:
    """Raise ConfigError unless names and directions equal those of the policy. Weights and scales may differ."""
    known = {name: spec.direction for name, spec in _specs(policy).items()}
    given = {name: spec.direction for name, spec in named.rewards.items()} if named else known
    if given != known:
        listed = ", ".join(f"{name} ({direction})" for name, direction in known.items())
        raise ConfigError(f"{who} has the rewards {listed}; {fix}")


def finetune_manifest(command: str, source: Path, model: str, settings: FinetuneSettings) -> RunManifest:
    """Return the manifest of a run."""
    named = {"rewards": settings.rewards, "model": model, "template": settings.template, "like": settings.like}
    inputs = {role: Path(name) for role, name in named.items() if name and Path(name).exists()}
    recorded = read_recorded(source).rewards if not settings.rewards else None
    taken = {"recorded": recorded.model_dump(mode="json", exclude_defaults=True)} if recorded else {}
    return RunManifest(command, {"examples": source, **inputs}, {**asdict(settings), "model": model, **taken})
