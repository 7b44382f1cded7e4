"""policy.json: what travels with the weights, so that sampling spells rewards as training did."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from irlhf import files
from irlhf.errors import ConfigError, DataError
from irlhf.hosted import KEY as HOSTED
from irlhf.hosted import Hosted, read_hosted
from irlhf.records import Example, finite
from irlhf.registry import did_you_mean
from irlhf.rewards import check_name, read_rewards
from irlhf.scales import UNIT, Scale, interpolate, nearest
from irlhf.targets import parse_weights
from irlhf.templates import Template, parse_template

FILE = "policy.json"
METRICS = "metrics.jsonl"  # beside it, the training curve
VERSION = 1  # of the file's shape
TINY = "tiny"  # the built-in base model, which starts from random weights
RESERVOIR = 1000  # joint reward vectors of training rows that are kept
CALIBRATION = "calibration"  # the key of policy.json that `eval --calibrate` writes, and that its digest leaves out


@dataclass(frozen=True)
class Part:
    """One term of a sum of rewards: `weight` times its oriented z-score over the training rows."""

    name: str
    weight: float
    direction: str
    mean: float
    deviation: float

    def zscore(self, reward: float) -> float:
        """Return a raw reward in standard deviations above the training mean; more is better."""
        return _zscore(reward, self.mean, self.deviation, self.direction)


@dataclass(frozen=True)
class RewardCard:
    """One reward as the policy learnt it."""

    name: str
    weight: float
    scale: Scale
    mean: float  # of the raw rewards of the training rows, as are the next two
    deviation: float
    percentiles: Mapping[str, float]  # "p1" to "p99"
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

    low: float  # asking for less than this brings no less
    high: float  # asking for more than this brings no more
    xs: tuple[float, ...] = ()
    ys: tuple[float, ...] = ()

    def __call__(self, wanted: float) -> float:
        """Return the number to put into the prompt for a wanted actual."""
        asked = interpolate(wanted, self.ys, self.xs, self.low, self.high) if self.xs else wanted
        return min(self.high, max(self.low, asked))

    def to_json(self) -> dict[str, Any]:
        """Return the reach as policy.json keeps it."""
        return {"low": self.low, "high": self.high, "xs": list(self.xs), "ys": list(self.ys)}


@dataclass(frozen=True)
class Achieved:
    """A request, and the mean raw rewards that it brought."""

    asked: Mapping[str, float]  # in the units of the scales
    rewards: Mapping[str, float]
    n: int  # prompts


@dataclass(frozen=True)
class Calibration:
    """What a policy can reach and how to ask it, measured on prompts that it was not trained on."""

    reach: Mapping[str, Reach]  # of the rewards for which asking for more was shown to bring more
    achieved: tuple[Achieved, ...]
    decoding: Mapping[str, float]  # how the tokens of the samples were drawn; empty where they do not say
    samples: int
    prompts: int
    splits: Mapping[str, int]  # samples of each; "none" where the prompts have no split

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as policy.json keeps it."""
        return {
            "reach": {name: one.to_json() for name, one in self.reach.items()},
            "achieved": [{"asked": dict(one.asked), "rewards": dict(one.rewards), "n": one.n} for one in self.achieved],
            "decoding": dict(self.decoding),
            "samples": self.samples,
            "prompts": self.prompts,
            "splits": dict(self.splits),
        }


@dataclass(frozen=True)
class Policy:
    """All that `sample` and `eval` need to know of a policy besides its weights."""

    base: str
    template: Template
    rewards: tuple[RewardCard, ...]
    reservoir: tuple[tuple[float, ...], ...]  # raw rewards of training rows, in the order of `rewards`
    context: int  # tokens that prompt and completion may fill together
    baseline: str = ""  # plain, chosen, top: trained without rewards; untouched: not trained, merely asked
    training: Mapping[str, Any] = field(default_factory=dict)  # settings, seed, rows, digests, versions
    calibration: Calibration | None = None  # once it is measured
    digest: str = ""  # of the file without the calibration; not in it
    hosted: Hosted | None = None  # where the weights are, if not in the folder

    @property
    def blind(self) -> bool:
        """Whether its prompts hold no reward, so that it is held to targets that it was not shown."""
        return self.template.place == "none"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rewards, in the order of their lines."""
        return tuple(card.name for card in self.rewards)

    def reward(self, name: str) -> RewardCard:
        """Return one reward. Raises ConfigError for a name that the policy does not know."""
        for card in self.rewards:
            if card.name == name:
                return card
        raise ConfigError(f"the policy knows no reward '{name}'{did_you_mean(name, self.names)}")

    def weighted(self, rewards: Mapping[str, float], weights: Mapping[str, float]) -> float:
        """Return the weighted mean of a row's oriented z-scores: 0 is the mean of the training data."""
        if not any(weights.values()):
            raise ConfigError("every weight is 0, so no row is better than another; give one a weight above 0")
        total = sum(weight * self.reward(name).zscore(rewards[name]) for name, weight in weights.items() if weight)
        return total / sum(weights.values())

    def own(self, rewards: Mapping[str, float]) -> dict[str, float]:
        """Return a row's raw rewards by the names of the policy's lines; those that it does not know are left out."""
        read = {card.name: card.read(rewards) for card in self.rewards}
        return {name: number for name, number in read.items() if number is not None}

    def scaled(self, rewards: Mapping[str, float]) -> dict[str, float]:
        """Return a row's raw rewards in the units of the prompt; those that it does not know are left out."""
        return {name: self.reward(name).scale(number) for name, number in self.own(rewards).items()}

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
        numbers = scale.ys if scale.kind == "quantile" else {scale(vector[column]) for vector in self.reservoir}
        return sorted(numbers)

    @cached_property
    def _known(self) -> dict[str, tuple[list[float], set[str]]]:
        """Those numbers of each reward, and how they are spelled."""
        known = {name: self.known(name) for name in self.names}
        return {name: (mine, set(map(self.template.spelling, mine))) for name, mine in known.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the policy as it stands in policy.json."""
        cards = [
            {
                "name": card.name,
                "weight": card.weight,
                "scale": card.scale.to_json(),
                "mean": card.mean,
                "deviation": card.deviation,
                "percentiles": dict(card.percentiles),
                **({"parts": [asdict(part) for part in card.parts]} if card.parts else {}),
            }
            for card in self.rewards
        ]
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
        raise ConfigError(f"{path}: version {tree.get('version')}, but this irlhf reads version {VERSION}")
    try:
        policy = Policy(
            base=_text(tree["base"]),
            baseline=_text(tree["baseline"]),
            template=parse_template(tree["template"], str(path)),
            rewards=tuple(_card(one) for one in tree["rewards"]),
            reservoir=tuple(_vector(vector, len(tree["rewards"])) for vector in tree["reservoir"]),
            context=int(_number(tree["context"])),
            training=dict(tree["training"]),
            digest=digest(tree),
            hosted=read_hosted(tree),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); fine-tune again") from error
    if tree.get(CALIBRATION) is None:
        return policy
    try:
        return replace(policy, calibration=_calibration(tree[CALIBRATION], set(policy.names)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        told = f"the '{CALIBRATION}' in it is damaged ({error})"
        raise DataError(f"{path}: {told}; delete that key, then measure again with eval --calibrate") from error


def find_policies(files: Iterable[Path], folders: Sequence[str | Path] = ()) -> dict[str, tuple[Path, Policy]]:
    """Return by digest the folder and the card of every policy named, or standing beside the files."""
    named = [Path(one) for one in folders]
    if not named:
        named = sorted({card.parent for path in files for card in path.parent.glob(f"*/{FILE}")})
    return {policy.digest: (folder, policy) for folder in named for policy in [read_policy(folder)]}


def check_found(rows: Iterable[Example], known: Collection[str]) -> None:
    """Raise ConfigError where samples come from a policy, or a base model, that is not among the digests `known`."""
    missing = [row for row in rows if row.policy not in known]
    if not missing:
        return
    digest = missing[0].policy
    problem = f"the policy {digest} of these samples is not here; name its folder with --policy"
    if not any(row.target or row.asked for row in missing if row.policy == digest):
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


def _card(tree: Mapping[str, Any]) -> RewardCard:
    check_name(_text(tree["name"]), FILE)
    mean, deviation, weight = (_number(tree[key]) for key in ("mean", "deviation", "weight"))
    if deviation <= 0:
        raise ValueError("a deviation that is not above 0")
    percentiles = {name: _number(one) for name, one in tree["percentiles"].items()}
    parts = tuple(_part(one) for one in tree.get("parts", ()))
    return RewardCard(tree["name"], weight, _scale(tree["scale"]), mean, deviation, percentiles, parts)


def _part(tree: Mapping[str, Any]) -> Part:
    weight, mean, deviation = (_number(tree[key]) for key in ("weight", "mean", "deviation"))
    if deviation <= 0 or tree["direction"] not in ("higher", "lower"):
        raise ValueError("a part of a sum that no training measured")
    return Part(_text(tree["name"]), weight, tree["direction"], mean, deviation)


def _scale(tree: Mapping[str, Any]) -> Scale:
    kind, xs, ys = tree["kind"], _vector(tree["xs"]), _vector(tree["ys"])
    fitted = {
        "quantile": lambda: len(xs) == len(ys) > 1,
        "zscore": lambda: len(xs) == 2 and xs[1] > 0,
        "linear": lambda: len(xs) == 2 and xs[1] > xs[0],
        "none": lambda: not xs,
    }[kind]()
    if not fitted or tree["direction"] not in ("higher", "lower"):
        raise ValueError("a scale that no training fitted")
    return Scale(kind, tree["direction"], xs, ys)


def _calibration(tree: Mapping[str, Any], known: Set[str]) -> Calibration:
    reach = {name: _reach(one) for name, one in tree["reach"].items()}
    if strange := set(reach) - known:
        raise ValueError(f"the reach of an unknown reward {min(strange)!r:.40}")
    return Calibration(
        reach=reach,
        achieved=tuple(_achieved(one, known) for one in tree["achieved"]),
        decoding={name: _number(one) for name, one in tree["decoding"].items()},
        samples=_count(tree["samples"]),
        prompts=_count(tree["prompts"]),
        splits={name: _count(one) for name, one in tree["splits"].items()},
    )


def _reach(tree: Mapping[str, Any]) -> Reach:
    low, high, xs, ys = _number(tree["low"]), _number(tree["high"]), _vector(tree["xs"]), _vector(tree["ys"])
    if low >= high:
        raise ValueError(f"a reach from {low:g} to {high:g}")
    if len(xs) != len(ys) or len(xs) == 1 or any(a >= b for knots in (xs, ys) for a, b in pairwise(knots)):
        raise ValueError("a map that does not rise")
    return Reach(low, high, xs, ys)


def _achieved(tree: Mapping[str, Any], known: Set[str]) -> Achieved:
    asked, rewards = ({name: _number(one) for name, one in tree[key].items()} for key in ("asked", "rewards"))
    if not asked or not rewards or not {*asked, *rewards} <= known:
        raise ValueError("a request that asks for nothing, brought nothing, or names an unknown reward")
    return Achieved(asked, rewards, _count(tree["n"]))


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _vector(values: Sequence[Any], length: int = -1) -> tuple[float, ...]:
    if length not in (-1, len(values)):
        raise ValueError(f"{len(values)} numbers where {length} are due")
    return tuple(_number(one) for one in values)


def _number(value: Any) -> float:
    if not finite(value):
        raise ValueError(f"{value!r:.40} is no number")
    number: float = value  # as it was written: an integer stays one, or the digest of what is written back differs
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value
