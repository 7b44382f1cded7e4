"""policy.json: what travels with the weights, so that sampling spells rewards as training did."""

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
    ValidationError,
    model_validator,
)

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Example
from irlhf.core.registry import did_you_mean
from irlhf.io import files
from irlhf.policy.remote_model import HOSTED_KEY as HOSTED
from irlhf.policy.remote_model import RemoteModel, read_remote_model
from irlhf.policy.rewards_file import check_name, read_rewards
from irlhf.policy.scales import UNIT, WITHIN, Number, Scale, interpolate, nearest, within_ranks
from irlhf.policy.targets import parse_weights
from irlhf.policy.templates import Template, parse_template

FILE = "policy.json"
METRICS = "metrics.jsonl"  # beside it, the training curve
VERSION = 1  # of the file's shape
TINY = "tiny"  # the built-in base model, which starts from random weights
RESERVOIR = 1000  # joint reward vectors of training rows that are kept
CALIBRATION = "calibration"  # the key of policy.json that `eval --calibrate` writes, and that its digest leaves out


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError(f"{value:g} is not above 0")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r:.40} is no count")
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
        raise ValueError("a scale that no training fitted")
    return scale


Positive = Annotated[Number, AfterValidator(_positive)]
Count = Annotated[int, PlainValidator(_count)]
Direction = Annotated[StrictStr, Field(pattern="^(higher|lower)$")]
Fitted = Annotated[Scale, AfterValidator(_fitted)]


@dataclass(frozen=True)
class Part:
    """One term of a sum of rewards: `weight` times its oriented z-score over the training rows."""

    name: StrictStr
    weight: Number
    direction: Direction
    mean: Number
    deviation: Positive

    def zscore(self, reward: float) -> float:
        """Return a raw reward in standard deviations above the training mean; more is better."""
        return _zscore(reward, self.mean, self.deviation, self.direction)


@dataclass(frozen=True)
class PolicyReward:
    """One reward as the policy learnt it."""

    name: Annotated[StrictStr, AfterValidator(_name)]
    weight: Number
    scale: Fitted
    mean: Number  # of the raw rewards of the training rows, as are the next two
    deviation: Positive
    percentiles: Mapping[str, Number]  # "p1" to "p99"
    parts: tuple[Part, ...] = ()  # of a sum, which no scorer gives

    def read(self, rewards: Mapping[str, float]) -> float | None:
        """Return a row's raw reward; of a sum, the sum of its parts. None where the row lacks it."""
        return sum_of(self.parts, rewards) if self.parts else rewards.get(self.name)

    def zscore(self, reward: float) -> float:
        """Return a raw reward in standard deviations above the training mean; more is better."""
        return _zscore(reward, self.mean, self.deviation, self.scale.direction)


@dataclass(frozen=True)
class Reach:
    """What one reward can be asked for, in the units of its scale, as measured.

    `xs` and `ys` are the knots of a rising map from the number in the prompt to the mean actual; there are
    none where the numbers are best put into the prompt as they are wanted.
    """

    low: Number  # asking for less than this brings no less
    high: Number  # asking for more than this brings no more
    xs: tuple[Number, ...] = ()
    ys: tuple[Number, ...] = ()

    def __call__(self, wanted: float) -> float:
        """Return the number to put into the prompt for a wanted actual."""
        number = interpolate(wanted, self.ys, self.xs, self.low, self.high) if self.xs else wanted
        return min(self.high, max(self.low, number))

    def to_json(self) -> dict[str, Any]:
        """Return the reach as policy.json keeps it."""
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
        raise ValueError("a map that does not rise")
    return reach


@dataclass(frozen=True)
class Achieved:
    """A request, and the mean raw rewards that it brought."""

    prompt_numbers: Annotated[Mapping[str, Number], Field(alias="asked")]  # in the units of the scales
    rewards: Mapping[str, Number]
    n: Count  # prompts


@dataclass(frozen=True)
class Calibration:
    """What a policy can reach and how to ask it, measured on prompts that it was not trained on."""

    reach: Mapping[str, Annotated[Reach, AfterValidator(_rising)]]  # where asking for more was shown to bring more
    achieved: tuple[Achieved, ...]
    decoding: Mapping[str, Number]  # how the tokens of the samples were drawn; empty where they do not say
    samples: Count
    prompts: Count
    splits: Mapping[str, Count]  # samples of each; "none" where the prompts have no split

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as policy.json keeps it."""
        kept: dict[str, Any] = json.loads(json.dumps(_CALIBRATION.dump_python(self, by_alias=True)))
        return kept


class _File(BaseModel):
    """policy.json, but for the host and the calibration, which are read by themselves."""

    base: StrictStr
    baseline: StrictStr
    template: dict[str, Any]
    rewards: tuple[PolicyReward, ...]
    reservoir: tuple[tuple[Number, ...], ...]
    context: Number
    training: dict[str, Any]

    @model_validator(mode="after")
    def _check_reservoir(self) -> "_File":
        due = len(self.rewards)
        if odd := next((vector for vector in self.reservoir if len(vector) != due), None):
            raise ValueError(f"{len(odd)} numbers where {due} are due")
        ranked = [i for i, reward in enumerate(self.rewards) if reward.scale.kind == WITHIN]
        if any(not 0 <= vector[i] <= 1 for vector in self.reservoir for i in ranked):
            raise ValueError("a rank beyond 0 and 1 in the reservoir")
        return self


_CALIBRATION = TypeAdapter(Calibration)


@dataclass(frozen=True)
class Policy:
    """All that `sample` and `eval` need to know of a policy besides its weights."""

    base: str
    template: Template
    rewards: tuple[PolicyReward, ...]
    # Raw rewards of training rows, in the order of `rewards`; on the scale `within` their numbers on the scale.
    reservoir: tuple[tuple[float, ...], ...]
    context: int  # tokens that prompt and completion may fill together
    baseline: str = ""  # plain, chosen, top: trained without rewards; prompted: not trained, merely asked
    training: Mapping[str, Any] = field(default_factory=dict)  # settings, seed, rows, digests, versions
    calibration: Calibration | None = None  # once it is measured
    digest: str = ""  # of the file without the calibration; not in it
    hosted: RemoteModel | None = None  # where the weights are, if not in the folder

    @property
    def blind(self) -> bool:
        """Whether its prompts hold no reward, so that it is held to targets that it was not shown."""
        return self.template.position == "none"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rewards, in the order of their lines."""
        return tuple(reward.name for reward in self.rewards)

    def reward(self, name: str) -> PolicyReward:
        """Return one reward. Raises ConfigError for a name that the policy does not know."""
        for reward in self.rewards:
            if reward.name == name:
                return reward
        raise ConfigError(f"the policy knows no reward '{name}'{did_you_mean(name, self.names)}")

    def weighted(self, rewards: Mapping[str, float], weights: Mapping[str, float]) -> float:
        """Return the weighted mean of a row's oriented z-scores: 0 is the mean of the training data."""
        return _weighted_mean(
            {name: self.reward(name).zscore(rewards[name]) for name in weights if weights[name]}, weights
        )

    def own(self, rewards: Mapping[str, float]) -> dict[str, float]:
        """Return a row's raw rewards by the names of the policy's lines; those that it does not know are left out."""
        read = {reward.name: reward.read(rewards) for reward in self.rewards}
        return {name: number for name, number in read.items() if number is not None}

    def scaled(self, rewards: Mapping[str, float]) -> dict[str, float]:
        """Return a row's raw rewards in the units of the prompt; those that it does not know are left out.

        For policies without a scale `within`: `actual` and `scaled_rows` serve all.
        """
        return {name: self.reward(name).scale(number) for name, number in self.own(rewards).items()}

    @property
    def ranked(self) -> tuple[str, ...]:
        """The names of the rewards on the scale `within`, whose numbers depend on other completions of the prompt."""
        return tuple(reward.name for reward in self.rewards if reward.scale.kind == WITHIN)

    def actual(self, name: str, rows: Sequence[Example]) -> list[float | None]:
        """Return one reward of each row in the units of the prompt; None where a row has none.

        On the scale `within` a row is ranked among the given rows of its prompt, and alone it has no number.
        """
        reward = self.reward(name)
        raw = [reward.read(row.rewards) for row in rows]
        if name in self.ranked:
            return within_ranks(raw, [row.cluster for row in rows], reward.scale.direction)
        return [None if number is None else reward.scale(number) for number in raw]

    def scaled_rows(self, rows: Sequence[Example]) -> list[dict[str, float]]:
        """Return all rewards of each row in the units of the prompt, as `actual` does; those without are left out."""
        columns = {name: self.actual(name, rows) for name in self.names}
        pairs = [[(name, column[i]) for name, column in columns.items()] for i in range(len(rows))]
        return [{name: number for name, number in row if number is not None} for row in pairs]

    def numbers(self, vector: Sequence[float]) -> dict[str, float]:
        """Return a vector of the reservoir in the units of the prompt."""
        pairs = zip(self.rewards, vector, strict=True)
        return {reward.name: x if reward.scale.kind == WITHIN else reward.scale(x) for reward, x in pairs}

    def weighted_vector(self, vector: Sequence[float], weights: Mapping[str, float]) -> float:
        """Return the weighted mean of a reservoir vector's z-scores; on the scale `within` those of its ranks."""
        zscores = {}
        for reward, x in zip(self.rewards, vector, strict=True):
            mean, deviation = self._rank_moments.get(reward.name, (0.0, 1.0))
            zscores[reward.name] = (x - mean) / deviation if reward.scale.kind == WITHIN else reward.zscore(x)
        return _weighted_mean(zscores, weights)

    @cached_property
    def _rank_moments(self) -> dict[str, tuple[float, float]]:
        """The mean and the deviation of the reservoir's ranks of each reward on the scale `within`."""
        columns = dict(zip(self.names, zip(*self.reservoir, strict=True), strict=True))
        return {name: (fmean(columns[name]), pstdev(columns[name]) or 1.0) for name in self.ranked}

    def held(self, name: str, number: float) -> float:
        """Hold a number to its reward's scale where the scale has ends."""
        return min(1.0, max(0.0, number)) if self.reward(name).scale.kind in UNIT else number

    def shown(self, name: str, number: float) -> float:
        """Return the number, held to its scale, if some training row is spelled so, else the nearest that a row has.

        Of a count of words, say, only some shares of the rows exist, and a prompt with another was never learnt.
        """
        known, spelled = self._known[name]
        spelling, held = self.template.spelling, self.held(name, number)
        return held if not known or spelling(held) in spelled else nearest(spelling.centre(held), known)

    def known(self, name: str) -> list[float]:
        """Return the numbers that training rows have, in order, on a scale between 0 and 1; of another scale none."""
        scale, column = self.reward(name).scale, self.names.index(name)
        if scale.kind not in UNIT:
            return []
        numbers = (
            scale.ys if scale.kind in ("quantile", WITHIN) else {scale(vector[column]) for vector in self.reservoir}
        )
        return sorted(numbers)

    @cached_property
    def _known(self) -> dict[str, tuple[list[float], set[str]]]:
        """Those numbers of each reward, and how they are spelled."""
        known = {name: self.known(name) for name in self.names}
        return {name: (numbers, set(map(self.template.spelling, numbers))) for name, numbers in known.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the policy as it stands in policy.json."""
        cards: list[dict[str, Any]] = json.loads(json.dumps([asdict(reward) for reward in self.rewards]))
        for reward in cards:
            if not reward["parts"]:
                del reward["parts"]
        measured = {CALIBRATION: self.calibration.to_json()} if self.calibration else {}
        return {
            "version": VERSION,
            "base": self.base,
            "baseline": self.baseline,
            "template": self.template.model_dump(mode="json", exclude_defaults=False),
            "rewards": cards,
            "reservoir": [list(vector) for vector in self.reservoir],
            "context": self.context,
            "training": dict(self.training),
            **({HOSTED: self.hosted.to_json()} if self.hosted else {}),
            **measured,
        }


def _weighted_mean(zscores: Mapping[str, float], weights: Mapping[str, float]) -> float:
    if not any(weights.values()):
        raise ConfigError("every weight is 0, so no row is better than another; give one a weight above 0")
    return sum(weight * zscores[name] for name, weight in weights.items() if weight) / sum(weights.values())


def sum_of(parts: Sequence[Part], rewards: Mapping[str, float]) -> float | None:
    """Return the weighted sum of a row's oriented z-scores; None where it lacks one."""
    there = [part.weight * part.zscore(rewards[part.name]) for part in parts if part.name in rewards]
    return sum(there) if len(there) == len(parts) else None


def write_policy(folder: Path, policy: Policy) -> None:
    """Write policy.json into a policy's folder."""
    files.write_json(folder / FILE, policy.to_json())


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write into a policy's policy.json what was measured of it. All else stays as it stands, and so its digest."""
    path = folder / FILE
    files.write_json(path, {**files.read_json(path), CALIBRATION: calibration.to_json()})


def read_policy(folder: Path) -> Policy:
    """Read a policy's folder. Raises ConfigError where it is none."""
    path = folder / FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: no {FILE} in it; name the folder that `irlhf finetune` wrote")
    tree = files.read_json(path)
    if tree.get("version") != VERSION:
        given = tree.get("version")
        raise ConfigError(f"{path}: version {given}, but this irlhf reads version {VERSION}; fine-tune again")
    try:
        file = _File.model_validate(tree)
        policy = Policy(
            base=file.base,
            baseline=file.baseline.replace("untouched", "prompted"),  # its earlier name
            template=parse_template(file.template, str(path)),
            rewards=file.rewards,
            reservoir=file.reservoir,
            context=int(file.context),
            training=file.training,
            digest=digest(tree),
            hosted=read_remote_model(tree),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({_problem(error)}); fine-tune again") from error
    if tree.get(CALIBRATION) is None:
        return policy
    try:
        return replace(policy, calibration=_calibration(tree[CALIBRATION], policy))
    except ValueError as error:
        problem = f"the '{CALIBRATION}' in it is damaged ({_problem(error)})"
        raise DataError(f"{path}: {problem}; delete that key, then measure again with eval --calibrate") from error


def _calibration(tree: Any, policy: Policy) -> Calibration:
    """Return what was measured of a policy. Raises ValueError."""
    if policy.ranked:
        raise ValueError(f"the scale of {policy.ranked[0]} has none")
    parsed, known = _CALIBRATION.validate_python(tree), set(policy.names)
    if strange := set(parsed.reach) - known:
        raise ValueError(f"the reach of an unknown reward {min(strange)!r:.40}")
    if any(
        not entry.prompt_numbers or not entry.rewards or not {*entry.prompt_numbers, *entry.rewards} <= known
        for entry in parsed.achieved
    ):
        raise ValueError("a request that asks for nothing, brought nothing, or names an unknown reward")
    return parsed


def _problem(error: Exception) -> str:
    """Return what is wrong, and in a file of ours where, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, first['loc']))}: {message}" if first["loc"] else message


def find_policies(files: Iterable[Path], folders: Sequence[str | Path] = ()) -> dict[str, tuple[Path, Policy]]:
    """Return by digest the folder and the card of every policy named, or standing beside the files."""
    named = [Path(folder) for folder in folders]
    if not named:
        named = sorted({policy_file.parent for path in files for policy_file in path.parent.glob(f"*/{FILE}")})
    return {policy.digest: (folder, policy) for folder in named for policy in [read_policy(folder)]}


def check_known_policies(rows: Iterable[Example], known: Collection[str]) -> None:
    """Raise ConfigError where samples come from a policy, or a base model, that is not among the digests `known`."""
    missing = [row for row in rows if row.policy not in known]
    if not missing:
        return
    digest = missing[0].policy
    problem = f"the policy {digest} of these samples is not here; name its folder with --policy"
    if not any(row.target or row.prompt_numbers for row in missing if row.policy == digest):
        problem += " (they have no target: if a base model drew them, they are for finetune, not for this)"
    raise ConfigError(problem)


def read_weights(text: str, policy: Policy) -> dict[str, float]:
    """Read --weights: an expression, or a rewards.yaml. Raises ConfigError for an unknown reward."""
    if text.endswith((".yaml", ".yml")):
        weights = {name: reward.weight for name, reward in read_rewards(Path(text)).rewards.items()}
    else:
        weights = parse_weights(text) if text else {}
    for name in weights:
        policy.reward(name)
    return {name: weights[name] for name in policy.names if name in weights}


def digest(tree: Mapping[str, Any]) -> str:
    """Return the short name of a policy: 12 hex digits over policy.json, which holds the weights' digest.

    Measuring a policy makes no other policy of it, so samples drawn before are still its own.
    """
    trained = {key: value for key, value in tree.items() if key != CALIBRATION}
    return hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()[:12]


def _zscore(reward: float, mean: float, deviation: float, direction: str) -> float:
    z = (reward - mean) / deviation
    return -z if direction == "lower" else z
