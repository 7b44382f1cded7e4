"""Read and write policy.json: the scales, the template and the calibration of a policy."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainValidator,
    StrictStr,
    TypeAdapter,
    model_validator,
)

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example
from irlhf.core.registry import did_you_mean
from irlhf.io import files
from irlhf.io.schema import first_problem
from irlhf.policy.remote_model import HOSTED_KEY as HOSTED
from irlhf.policy.remote_model import RemoteModel, read_remote_model
from irlhf.policy.rewards_file import check_name, read_rewards
from irlhf.policy.scales import UNIT, WITHIN, Number, Scale, interpolate, nearest, within_ranks
from irlhf.policy.targets import parse_weights
from irlhf.policy.templates import Template, parse_template
from irlhf.policy.turn_format import TurnFormat

FILE = "policy.json"
METRICS = "metrics.jsonl"  # the training curve, in the same folder
VERSION = 1  # of the file format
TINY = "tiny"  # the built-in base model, with random initial weights
RESERVOIR = 1000  # number of joint reward vectors of training rows kept
CALIBRATION = "calibration"  # key of policy.json written by `eval --calibrate`, and excluded from the digest


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError(f"{value:g} is not above 0")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r:.40} is not a count")
    return value


def _name(value: str) -> str:
    check_name(value, FILE)
    return value


def _fitted(scale: Scale) -> Scale:
    xs, ys = scale.xs, scale.ys
    fitted = {
        "quantile": lambda: len(xs) == len(ys) > 1,
        "zscore": lambda: len(xs) == 2 and xs[1] > 0,
        "linear": lambda: len(xs) == 2 and xs[1] > xs[0],
        "none": lambda: not xs,
        WITHIN: lambda: not xs and len(ys) > 1 and ys[0] >= 0 and ys[-1] <= 1 and all(a < b for a, b in pairwise(ys)),
    }.get(scale.kind, lambda: False)()
    if not fitted or scale.direction not in ("higher", "lower"):
        raise ValueError("an invalid scale")
    return scale


Positive = Annotated[Number, AfterValidator(_positive)]
Count = Annotated[int, PlainValidator(_count)]
Direction = Annotated[StrictStr, Field(pattern="^(higher|lower)$")]
Fitted = Annotated[Scale, AfterValidator(_fitted)]


@dataclass(frozen=True)
class Part:
    """One term of a weighted sum of rewards: `weight` times the reward's oriented z-score."""

    name: StrictStr
    weight: Number
    direction: Direction
    mean: Number
    deviation: Positive

    def zscore(self, reward: float) -> float:
        """Return a raw reward as standard deviations from the training mean; higher is better."""
        return _zscore(reward, self.mean, self.deviation, self.direction)


@dataclass(frozen=True)
class PolicyReward:
    """One reward of a policy: its scale, and statistics of the training rows."""

    name: Annotated[StrictStr, AfterValidator(_name)]
    weight: Number
    scale: Fitted
    mean: Number  # this and the next two: of the raw rewards of the training rows
    deviation: Positive
    percentiles: Mapping[str, Number]  # "p1" to "p99"
    parts: tuple[Part, ...] = ()  # the terms, if this reward is a weighted sum

    def read(self, rewards: Mapping[str, float]) -> float | None:
        """Return a row's raw reward, or the weighted sum of the parts. None if the row lacks a reward."""
        return sum_of(self.parts, rewards) if self.parts else rewards.get(self.name)

    def zscore(self, reward: float) -> float:
        """Return a raw reward as standard deviations from the training mean; higher is better."""
        return _zscore(reward, self.mean, self.deviation, self.scale.direction)


@dataclass(frozen=True)
class Reach:
    """The measured range of one reward that the policy can reach, in the units of its scale.

    `xs` and `ys` are the knots of an increasing map from the number in the prompt to the mean actual reward. They are
    empty if the target itself is the best number for the prompt.
    """

    low: Number  # lower targets do not give lower rewards
    high: Number  # higher targets do not give higher rewards
    xs: tuple[Number, ...] = ()
    ys: tuple[Number, ...] = ()

    def __call__(self, wanted: float) -> float:
        """Return the number for the prompt that gives the wanted mean actual reward, clipped to [low, high]."""
        number = interpolate(wanted, self.ys, self.xs, self.low, self.high) if self.xs else wanted
        return min(self.high, max(self.low, number))

    def to_json(self) -> dict[str, Any]:
        """Return the reach as stored in policy.json."""
        return {"low": self.low, "high": self.high, "xs": list(self.xs), "ys": list(self.ys)}


def _rising(reach: Reach) -> Reach:
    if reach.low >= reach.high:
        raise ValueError(f"a reach from {reach.low:g} to {reach.high:g}")
    knots = reach.xs, reach.ys
    if (
        len(reach.xs) != len(reach.ys)
        or len(reach.xs) == 1
        or any(a >= b for values in knots for a, b in pairwise(values))
    ):
        raise ValueError("a map that is not increasing")
    return reach


@dataclass(frozen=True)
class Achieved:
    """A measured request and the mean raw rewards of its samples."""

    prompt_numbers: Annotated[Mapping[str, Number], Field(alias="asked")]  # in the units of the scales
    rewards: Mapping[str, Number]
    n: Count  # prompts


@dataclass(frozen=True)
class Calibration:
    """The reach of a policy and the results of requests, measured on prompts it was not trained on."""

    reach: Mapping[
        str, Annotated[Reach, AfterValidator(_rising)]
    ]  # only rewards whose targets have a significant effect
    achieved: tuple[Achieved, ...]
    decoding: Mapping[str, Number]  # sampling parameters of the samples; empty if unknown
    samples: Count
    prompts: Count
    splits: Mapping[str, Count]  # number of samples by split; "none" for prompts without a split

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as stored in policy.json."""
        kept: dict[str, Any] = json.loads(json.dumps(_CALIBRATION.dump_python(self, by_alias=True)))
        return kept


class _File(BaseModel):
    """policy.json without the host and the calibration, which are read separately."""

    base: StrictStr
    baseline: StrictStr
    template: dict[str, Any]
    rewards: tuple[PolicyReward, ...]
    reservoir: tuple[tuple[Number, ...], ...]
    context: Number
    training: dict[str, Any]
    turns: TurnFormat | None = None
    scorers: dict[str, StrictStr] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_reservoir(self) -> "_File":
        due = len(self.rewards)
        if odd := next((vector for vector in self.reservoir if len(vector) != due), None):
            raise ValueError(f"a vector of {len(odd)} numbers for {due} rewards")
        ranked = [i for i, reward in enumerate(self.rewards) if reward.scale.kind == WITHIN]
        if any(not 0 <= vector[i] <= 1 for vector in self.reservoir for i in ranked):
            raise ValueError("a rank outside [0, 1] in the reservoir")
        return self


_CALIBRATION = TypeAdapter(Calibration)


@dataclass(frozen=True)
class Policy:
    """Everything that `sample` and `eval` need from a policy except its weights."""

    base: str
    template: Template
    rewards: tuple[PolicyReward, ...]
    # Raw rewards of training rows, in the order of `rewards`; for the scale `within`, the scaled numbers.
    reservoir: tuple[tuple[float, ...], ...]
    context: int  # maximum tokens of prompt and completion together
    baseline: str = ""  # plain, chosen, top: trained without rewards; prompted: not trained, asked in English
    training: Mapping[str, Any] = field(default_factory=dict)  # settings, seed, rows, digests, versions
    calibration: Calibration | None = None  # None before `eval --calibrate`
    digest: str = ""  # of the file without the calibration; not stored in it
    scorers: Mapping[str, str] = field(default_factory=dict)  # identity of each reward's scorer, if it is known
    hosted: RemoteModel | None = None  # the host of the weights, if they are not in the folder
    turns: TurnFormat | None = None  # None if the tokenizer is at a host, or in folders of earlier versions

    @property
    def blind(self) -> bool:
        """Whether the prompts have no reward line, so that targets are only used for evaluation."""
        return self.template.position == "none"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rewards, in the order of their lines in the prompt."""
        return tuple(reward.name for reward in self.rewards)

    def reward(self, name: str) -> PolicyReward:
        """Return one reward by name. Raises ConfigError if the policy has no such reward."""
        for reward in self.rewards:
            if reward.name == name:
                return reward
        raise ConfigError(f"the policy has no reward '{name}'{did_you_mean(name, self.names)}")

    def weighted(self, rewards: Mapping[str, float], weights: Mapping[str, float]) -> float:
        """Return the weighted mean of a row's oriented z-scores; the mean of the training data is 0."""
        return _weighted_mean(
            {name: self.reward(name).zscore(rewards[name]) for name in weights if weights[name]}, weights
        )

    def own(self, rewards: Mapping[str, float]) -> dict[str, float]:
        """Return the row's raw rewards that the policy knows, by name."""
        read = {reward.name: reward.read(rewards) for reward in self.rewards}
        return {name: number for name, number in read.items() if number is not None}

    def scaled(self, rewards: Mapping[str, float]) -> dict[str, float]:
        """Return the row's rewards that the policy knows, in the units of the prompt.

        Not for policies with a scale `within`; use `actual` or `scaled_rows` for those.
        """
        return {name: self.reward(name).scale(number) for name, number in self.own(rewards).items()}

    @property
    def ranked(self) -> tuple[str, ...]:
        """The names of the rewards with scale `within`, which depends on other completions of the prompt."""
        return tuple(reward.name for reward in self.rewards if reward.scale.kind == WITHIN)

    def actual(self, name: str, rows: Sequence[Example]) -> list[float | None]:
        """Return one reward of each row in the units of the prompt; None if a row lacks it.

        With scale `within`, a row is ranked among the given rows of its prompt; a single row of a prompt gets None.
        """
        reward = self.reward(name)
        raw = [reward.read(row.rewards) for row in rows]
        if name in self.ranked:
            return within_ranks(raw, [row.cluster for row in rows], reward.scale.direction)
        return [None if number is None else reward.scale(number) for number in raw]

    def scaled_rows(self, rows: Sequence[Example]) -> list[dict[str, float]]:
        """Return the rewards of each row in the units of the prompt, without missing ones (see `actual`)."""
        columns = {name: self.actual(name, rows) for name in self.names}
        pairs = [[(name, column[i]) for name, column in columns.items()] for i in range(len(rows))]
        return [{name: number for name, number in row if number is not None} for row in pairs]

    @property
    def always_all_lines(self) -> bool:
        """Whether every training prompt had the lines of all rewards (`finetune --drop 0`)."""
        return len(self.rewards) > 1 and self.training.get("settings", {}).get("drop") == 0

    def numbers(self, vector: Sequence[float]) -> dict[str, float]:
        """Return a reservoir vector in the units of the prompt, by reward name."""
        pairs = zip(self.rewards, vector, strict=True)
        return {reward.name: x if reward.scale.kind == WITHIN else reward.scale(x) for reward, x in pairs}

    def weighted_vector(self, vector: Sequence[float], weights: Mapping[str, float]) -> float:
        """Return the weighted mean of a reservoir vector's z-scores; for scale `within`, of its ranks' z-scores."""
        zscores = {}
        for reward, x in zip(self.rewards, vector, strict=True):
            mean, deviation = self._rank_moments.get(reward.name, (0.0, 1.0))
            zscores[reward.name] = (x - mean) / deviation if reward.scale.kind == WITHIN else reward.zscore(x)
        return _weighted_mean(zscores, weights)

    @cached_property
    def _rank_moments(self) -> dict[str, tuple[float, float]]:
        """The mean and standard deviation of the reservoir's ranks, for each reward with scale `within`."""
        columns = dict(zip(self.names, zip(*self.reservoir, strict=True), strict=True))
        return {name: (fmean(columns[name]), pstdev(columns[name]) or 1.0) for name in self.ranked}

    def held(self, name: str, number: float) -> float:
        """Return a number clipped to [0, 1] if the reward's scale is bounded, else unchanged."""
        return min(1.0, max(0.0, number)) if self.reward(name).scale.kind in UNIT else number

    def shown(self, name: str, number: float) -> float:
        """Return the number clipped to its scale or, if no training row has this spelling, the nearest one that does.

        A reward with few distinct values, such as a word count, has only some numbers in the training prompts. The
        policy never saw the others.
        """
        known, spelled = self._known[name]
        spelling, held = self.template.spelling, self.held(name, number)
        return held if not known or spelling(held) in spelled else nearest(spelling.centre(held), known)

    def known(self, name: str) -> list[float]:
        """Return the sorted numbers of the training rows if the scale is bounded to [0, 1], else an empty list."""
        scale, column = self.reward(name).scale, self.names.index(name)
        if scale.kind not in UNIT:
            return []
        numbers = (
            scale.ys if scale.kind in ("quantile", WITHIN) else {scale(vector[column]) for vector in self.reservoir}
        )
        return sorted(numbers)

    @cached_property
    def _known(self) -> dict[str, tuple[list[float], set[str]]]:
        """The known numbers of each reward, and their spellings."""
        known = {name: self.known(name) for name in self.names}
        return {name: (numbers, set(map(self.template.spelling, numbers))) for name, numbers in known.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the policy as stored in policy.json."""
        rewards: list[dict[str, Any]] = json.loads(json.dumps([asdict(reward) for reward in self.rewards]))
        for reward in rewards:
            if not reward["parts"]:
                del reward["parts"]
        measured = {CALIBRATION: self.calibration.to_json()} if self.calibration else {}
        return {
            "version": VERSION,
            "base": self.base,
            "baseline": self.baseline,
            "template": self.template.model_dump(mode="json", exclude_defaults=False),
            "rewards": rewards,
            "reservoir": [list(vector) for vector in self.reservoir],
            "context": self.context,
            **({"turns": self.turns.to_json()} if self.turns else {}),
            "training": dict(self.training),
            **({"scorers": dict(self.scorers)} if self.scorers else {}),
            **({HOSTED: self.hosted.to_json()} if self.hosted else {}),
            **measured,
        }


def _weighted_mean(zscores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    if not any(weights.values()):
        raise ConfigError("all weights are 0; set at least one above 0")
    return sum(weight * zscores[name] for name, weight in weights.items() if weight) / sum(weights.values())


def sum_of(parts: Sequence[Part], rewards: Mapping[str, float]) -> float | None:
    """Return the weighted sum of a row's oriented z-scores; None if the row lacks a reward."""
    terms = [part.weight * part.zscore(rewards[part.name]) for part in parts if part.name in rewards]
    return sum(terms) if len(terms) == len(parts) else None


def write_policy(folder: Path, policy: Policy) -> None:
    """Write policy.json into a policy's folder. Raises OutputError."""
    files.write_json(folder / FILE, policy.to_json())


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write the calibration into policy.json. The rest of the file and its digest do not change."""
    path = folder / FILE
    files.write_json(path, {**files.read_json(path), CALIBRATION: calibration.to_json()})


def read_policy(folder: Path) -> Policy:
    """Read the policy in a folder. Raises ConfigError if there is none, and DataError if policy.json is damaged."""
    path = folder / FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: no {FILE} in this folder; use a folder written by `irlhf finetune`")
    tree = files.read_json(path)
    if tree.get("version") != VERSION:
        given = tree.get("version")
        raise ConfigError(f"{path}: version {given}, but this irlhf reads version {VERSION}; fine-tune again")
    try:
        file = _File.model_validate(tree)
        policy = Policy(
            base=file.base,
            baseline=file.baseline.replace("untouched", "prompted"),  # name in earlier versions
            template=parse_template(file.template, str(path)),
            rewards=file.rewards,
            reservoir=file.reservoir,
            context=int(file.context),
            training=file.training,
            scorers=file.scorers,
            digest=digest(tree),
            hosted=read_remote_model(tree),
            turns=file.turns,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({first_problem(error)}); fine-tune again") from error
    if tree.get(CALIBRATION) is None:
        return policy
    try:
        return replace(policy, calibration=_calibration(tree[CALIBRATION], policy))
    except ValueError as error:
        problem = f"the key '{CALIBRATION}' is damaged ({first_problem(error)})"
        raise DataError(f"{path}: {problem}; delete the key and run eval --calibrate again") from error


def _calibration(tree: Any, policy: Policy) -> Calibration:
    """Return the validated calibration of a policy. Raises ValueError."""
    if policy.ranked:
        raise ValueError(f"a policy with scale within ({policy.ranked[0]}) cannot have one")
    parsed, known = _CALIBRATION.validate_python(tree), set(policy.names)
    if strange := set(parsed.reach) - known:
        raise ValueError(f"the reach of an unknown reward {min(strange)!r:.40}")
    if any(
        not entry.prompt_numbers or not entry.rewards or not {*entry.prompt_numbers, *entry.rewards} <= known
        for entry in parsed.achieved
    ):
        raise ValueError("a request without targets, without rewards, or with an unknown reward")
    return parsed


def find_policies(files: Iterable[Path], folders: Sequence[str | Path] = ()) -> dict[str, tuple[Path, Policy]]:
    """Return the folder and the policy of each given folder, or of those beside the files, by digest."""
    named = [Path(folder) for folder in folders]
    if not named:
        named = sorted({policy_file.parent for path in files for policy_file in path.parent.glob(f"*/{FILE}")})
    return {policy.digest: (folder, policy) for folder in named for policy in [read_policy(folder)]}


def check_known_policies(rows: Iterable[Example], known: Collection[str]) -> None:
    """Raise ConfigError if samples come from a policy or base model whose digest is not in `known`."""
    missing = [row for row in rows if row.policy not in known]
    if not missing:
        return
    digest = missing[0].policy
    problem = f"no folder of the policy {digest} of these samples was found; pass it with --policy"
    if not any(row.target or row.prompt_numbers for row in missing if row.policy == digest):
        problem += " (they have no target; samples of a base model are for finetune only)"
    raise ConfigError(problem)


def read_weights(text: str, policy: Policy) -> dict[str, float]:
    """Return the weights in an expression or a rewards.yaml, by name. Raises ConfigError for an unknown reward."""
    if text.endswith((".yaml", ".yml")):
        weights = {name: reward.weight for name, reward in read_rewards(Path(text)).rewards.items()}
    else:
        weights = parse_weights(text) if text else {}
    for name in weights:
        policy.reward(name)
    return {name: weights[name] for name in policy.names if name in weights}


def digest(tree: Mapping[str, Any]) -> str:
    """Return the id of a policy: 12 hex digits of the sha256 of policy.json, which has the weights' digest.

    The calibration is excluded, so that samples drawn before it still belong to the policy.
    """
    trained = {key: value for key, value in tree.items() if key != CALIBRATION}
    return hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()[:12]


def _zscore(reward: float, mean: float, deviation: float, direction: str) -> float:
    z = (reward - mean) / deviation
    return -z if direction == "lower" else z
