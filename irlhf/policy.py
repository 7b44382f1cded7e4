"""policy.json: what travels with the weights, so that sampling spells rewards as training did."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from irlhf import files
from irlhf.errors import ConfigError, DataError
from irlhf.records import finite
from irlhf.registry import did_you_mean
from irlhf.rewards import check_name, read_rewards
from irlhf.scales import Scale
from irlhf.targets import parse_weights
from irlhf.templates import Template, parse_template

FILE = "policy.json"
METRICS = "metrics.jsonl"  # beside it, the training curve
VERSION = 1  # of the file's shape
TINY = "tiny"  # the built-in base model, which starts from random weights
RESERVOIR = 1000  # joint reward vectors of training rows that are kept


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
class Policy:
    """All that `sample` and `eval` need to know of a policy besides its weights."""

    base: str
    template: Template
    rewards: tuple[RewardCard, ...]
    reservoir: tuple[tuple[float, ...], ...]  # raw rewards of training rows, in the order of `rewards`
    context: int  # tokens that prompt and completion may fill together
    baseline: str = ""  # plain, chosen, top: trained without rewards; untouched: not trained, merely asked
    training: Mapping[str, Any] = field(default_factory=dict)  # settings, seed, rows, digests, versions
    digest: str = ""  # of the file; not in it

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
        return {
            "version": VERSION,
            "base": self.base,
            "baseline": self.baseline,
            "template": self.template.model_dump(mode="json", exclude_defaults=False),
            "rewards": cards,
            "reservoir": [list(vector) for vector in self.reservoir],
            "context": self.context,
            "training": dict(self.training),
        }


def sum_of(parts: Sequence[Part], rewards: Mapping[str, float]) -> float | None:
    """Return the weighted sum of a row's oriented z-scores; None where it lacks one."""
    there = [part.weight * part.zscore(rewards[part.name]) for part in parts if part.name in rewards]
    return sum(there) if len(there) == len(parts) else None


def write_policy(folder: Path, policy: Policy) -> None:
    """Write policy.json into a policy's folder."""
    files.write_json(folder / FILE, policy.to_json())


def read_policy(folder: Path) -> Policy:
    """Read a policy's folder. Raises ConfigError where it is none."""
    path = folder / FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: no {FILE} in it; name the folder that `irlhf finetune` wrote")
    tree = files.read_json(path)
    if tree.get("version") != VERSION:
        raise ConfigError(f"{path}: version {tree.get('version')}, but this irlhf reads version {VERSION}")
    try:
        return Policy(
            base=_text(tree["base"]),
            baseline=_text(tree["baseline"]),
            template=parse_template(tree["template"], str(path)),
            rewards=tuple(_card(one) for one in tree["rewards"]),
            reservoir=tuple(_vector(vector, len(tree["rewards"])) for vector in tree["reservoir"]),
            context=int(_number(tree["context"])),
            training=dict(tree["training"]),
            digest=digest(tree),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); fine-tune again") from error


def find_policies(files: Iterable[Path], folders: Sequence[str | Path] = ()) -> dict[str, tuple[Path, Policy]]:
    """Return by digest the folder and the card of every policy named, or standing beside the files."""
    named = [Path(one) for one in folders]
    if not named:
        named = sorted({card.parent for path in files for card in path.parent.glob(f"*/{FILE}")})
    return {policy.digest: (folder, policy) for folder in named for policy in [read_policy(folder)]}


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
    """Return the short name of a policy: 12 hex digits over policy.json, which holds the weights' digest."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


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
