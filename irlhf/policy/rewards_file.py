"""rewards.yaml: which rewards there are, who gives them, which way is better, how much each weighs."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from irlhf.core.errors import ConfigError
from irlhf.core.example import LARGEST
from irlhf.core.registry import did_you_mean
from irlhf.io.files import read_yaml

SUM = "reward"  # what the one line of `combine: sum` is called

_NAME = re.compile(r"[^\W\d][\w-]*")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScaleSpec(_Strict):
    """How a raw reward becomes the number in the prompt. `low` and `high` belong to `linear`."""

    kind: Literal["quantile", "within", "zscore", "linear", "none"] = "quantile"
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None


class Reward(_Strict):
    """One reward: who gives it, and what its numbers mean."""

    scorer: str = ""
    column: str = ""  # a number that the data holds already; dots lead inside objects
    description: str = ""  # what it means, for templates that say so in the prompt
    direction: Literal["higher", "lower"] = "higher"
    weight: FiniteFloat = Field(default=1.0, ge=0, le=LARGEST)
    scale: ScaleSpec = ScaleSpec()
    label: str = ""  # of a scorer that gives several numbers, the one to read
    read: Literal["", "logit", "probability", "difference"] = ""  # of a classifier; empty is the logit
    # What follows is the scorer's own: each takes some of them, and refuses the others.
    options: dict[str, Any] = Field(default_factory=dict)  # for your own module:callable
    input: Literal["", "chat", "pair", "completion"] = ""  # what a model is shown; empty is what suits it
    revision: str = ""  # of a model on the hub, or of your own code
    rubric: str = ""  # a file that tells a judge what is good, beside the rewards.yaml
    points: tuple[int, int] | None = None  # the fewest and the most that a judge gives
    votes: int = Field(default=0, ge=0, le=100)  # of a judge; 0 reads the expected points off its probabilities
    base_url: str = ""  # of a server, up to and with /v1
    api_key_env: str = ""  # the environment variable that holds the server's key
    timeout: FiniteFloat = Field(default=60.0, gt=0)  # seconds that a server has for an answer

    def for_scorer(self) -> dict[str, Any]:
        """Return what is set of the scorer's own keys."""
        given = self.model_dump(exclude_defaults=True)
        return {name: value for name, value in given.items() if name not in _OURS}

    @property
    def by_path(self) -> bool:
        """Whether the scorer is a reward model that is named by its folder."""
        return self.scorer.startswith(("./", "../", "/", "~"))

    @property
    def asks(self) -> str:
        """What two rewards have in common when one question to one scorer answers both."""
        return json.dumps([self.scorer, self.column, self.for_scorer()], sort_keys=True, default=str)


REACH = {"api_key_env", "timeout"}  # what says how a server is reached, and not what it says

# What says how a reward is read and used, and not who gives it.
_OURS = ("scorer", "column", "description", "direction", "weight", "scale", "label", "read")


class Rewards(_Strict):
    """A rewards.yaml. `gold` is asked by `score --gold` alone and never reaches a prompt."""

    rewards: dict[str, Reward] = Field(min_length=1)
    gold: dict[str, Reward] = Field(default_factory=dict)
    combine: Literal["separate", "sum"] = "separate"  # lines of their own, or one line of their weighted sum


def read_rewards(path: Path) -> Rewards:
    """Read a rewards.yaml. Raises ConfigError that names the key, with the nearest one known."""
    return parse_rewards(read_yaml(path), str(path))


def parse_rewards(tree: Mapping[str, Any], source: str) -> Rewards:
    """Check rewards given as a mapping; `source` is what an error calls them."""
    try:
        rewards = Rewards.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_problem(error)}") from error
    for section in (rewards.rewards, rewards.gold):
        for name, reward in section.items():
            _check(name, reward, source)
    for name, gold in rewards.gold.items():
        _check_gold(name, gold, rewards.rewards, source)
    if rewards.combine == "sum":
        _check_sum(rewards.rewards, source)
    return rewards


def check_name(name: str, source: str) -> None:
    """Refuse a name that a prompt line, a flag or a file could misread."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{source}: {name!r} cannot name a reward; use letters, digits, _ and -")


def _check(name: str, reward: Reward, source: str) -> None:
    check_name(name, source)
    if bool(reward.scorer) == bool(reward.column):
        raise ConfigError(f"{source}: {name} needs either `scorer:` or `column:`")
    _check_options(name, reward.options, source)
    given = reward.scale.low is not None, reward.scale.high is not None
    if any(given) and reward.scale.kind != "linear":
        raise ConfigError(f"{source}: {name}: low and high belong to a linear scale, not {reward.scale.kind}")
    if any(given) and not all(given):
        raise ConfigError(f"{source}: {name}: a linear scale takes both low and high, or neither")
    if reward.scale.low is not None and reward.scale.high is not None and reward.scale.low >= reward.scale.high:
        raise ConfigError(f"{source}: {name}: low must lie below high (direction says which is better)")


def _check_options(name: str, options: Mapping[str, Any], source: str) -> None:
    """Refuse what could not be written down beside the rows that come of it."""
    try:
        json.dumps(options, allow_nan=False, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        what = "plain numbers (no .nan, no .inf), and names that are text"
        raise ConfigError(f"{source}: {name}: options take {what}") from error


def _check_sum(rewards: Mapping[str, Reward], source: str) -> None:
    """Refuse what has no sum: it is one reward, with a name of its own."""
    if SUM in rewards:
        raise ConfigError(f"{source}: the line of `combine: sum` is called {SUM}; call the reward {SUM} otherwise")
    if not any(reward.weight for reward in rewards.values()):
        raise ConfigError(f"{source}: every weight is 0, so there is no sum; give one a weight above 0")


def _check_gold(name: str, gold: Reward, rewards: Mapping[str, Reward], source: str) -> None:
    """Refuse what eval could not hold beside the reward of the same name."""
    if name not in rewards:
        raise ConfigError(f"{source}: gold {name} measures no reward{did_you_mean(name, rewards)}")
    if "direction" in gold.model_fields_set and gold.direction != rewards[name].direction:
        way = rewards[name].direction
        raise ConfigError(f"{source}: gold {name}: {way} is better, as of its reward; negate it in a function of yours")


def _first_problem(error: ValidationError) -> str:
    # A misspelt key is also a missing one; its own name is the better hint.
    problem = min(error.errors(include_url=False), key=lambda entry: entry["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"]).replace("\n", "\\n")
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'{did_you_mean(str(problem['loc'][-1]), _known_keys(len(problem['loc'])))}"
    if key == "rewards" and problem["type"] == "missing":
        return "no `rewards:` in it"
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _known_keys(depth: int) -> list[str]:
    """Return the keys that may stand at a depth of the file: top, reward, scale."""
    models: dict[int, type[BaseModel]] = {1: Rewards, 3: Reward}
    return list(models.get(depth, ScaleSpec).model_fields)
