"""Read rewards.yaml: the rewards with their scorers, directions, weights and scales."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from irlhf.core.errors import ConfigError
from irlhf.core.example import LARGEST
from irlhf.core.registry import did_you_mean
from irlhf.io.files import read_yaml

SUM = "reward"  # name of the single reward of `combine: sum`

_NAME = re.compile(r"[^\W\d][\w-]*")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScaleSpec(_Strict):
    """The scale that maps a raw reward to the number in the prompt. `low` and `high` are for `linear` only."""

    kind: Literal["quantile", "within", "zscore", "linear", "none"] = "quantile"
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None


class Reward(_Strict):
    """One reward: its scorer and the meaning of its numbers."""

    scorer: str | list[str] = ""  # several make a pool
    pool: Literal["", "mean", "min", "mean-sd"] = ""  # how the rewards of a pool become one
    column: str = ""  # a number in the data; a dot selects a key inside an object
    description: str = ""  # the meaning, for templates that use it in the prompt
    direction: Literal["higher", "lower"] = "higher"
    weight: FiniteFloat = Field(default=1.0, ge=0, le=LARGEST)
    scale: ScaleSpec = ScaleSpec()
    label: str = ""  # the number to use if the scorer returns several
    read: Literal["", "logit", "probability", "difference"] = ""  # for classifiers; empty means logit
    # The keys below are passed to the scorer. Each scorer accepts some of them and rejects the others.
    options: dict[str, Any] = Field(default_factory=dict)  # for a module:callable
    input: str = ""  # the input format of a model, or a Jinja template; empty chooses the one that suits it
    revision: str = ""  # of a model on the hub, or of a Python function or command
    rubric: str = ""  # file with a judge's instructions, relative to the rewards.yaml
    points: tuple[int, int] | None = None  # lowest and highest points of a judge
    votes: int = Field(default=0, ge=0, le=100)  # for a judge; 0 uses the expectation over its probabilities
    base_url: str = ""  # of a server, including /v1
    api_key_env: str = ""  # name of the environment variable with the server's key
    timeout: FiniteFloat = Field(default=60.0, gt=0)  # seconds to wait for a server's answer

    def for_scorer(self) -> dict[str, Any]:
        """Return the keys for the scorer that are set."""
        given = self.model_dump(exclude_defaults=True)
        return {name: value for name, value in given.items() if name not in _OURS}

    @property
    def by_path(self) -> bool:
        """Whether the scorer is given by a folder's path."""
        return self.single.startswith(("./", "../", "/", "~"))

    @property
    def single(self) -> str:
        """The scorer, or an empty text if there are several or none."""
        return self.scorer if isinstance(self.scorer, str) else ""

    @property
    def members(self) -> list[str]:
        """The scorers of a pool, or none."""
        return self.scorer if isinstance(self.scorer, list) else []

    @property
    def numbers(self) -> dict[str, Any]:
        """The keys that decide the numbers of this reward."""
        unused = UNSCORED - ({"direction"} if self.pool in ("min", "mean-sd") else set())
        return self.model_dump(exclude_defaults=True, exclude=unused | REACH)

    @property
    def asks(self) -> str:
        """A key that is equal for two rewards if one request to one scorer answers both."""
        return json.dumps([self.scorer, self.column, self.for_scorer()], sort_keys=True, default=str)


REACH = {"api_key_env", "timeout"}  # keys that affect how a server is reached, not its answers
INPUTS = ("chat", "pair", "text", "completion", "transcript")
TEMPLATE = ".jinja"  # end of an input format's file, which is relative to the rewards.yaml
UNSCORED = {"description", "direction", "weight", "scale"}  # keys about the use of a reward, not its numbers

# Keys about the use of a reward, which are not passed to the scorer.
_OURS = ("scorer", "pool", "column", *UNSCORED, "label", "read")


class Rewards(_Strict):
    """The content of a rewards.yaml. `gold` is used by `score --gold` only and never appears in a prompt."""

    rewards: dict[str, Reward] = Field(min_length=1)
    gold: dict[str, Reward] = Field(default_factory=dict)
    combine: Literal["separate", "sum"] = "separate"  # one line per reward, or one line for their weighted sum


def read_rewards(path: Path) -> Rewards:
    """Return the rewards in a rewards.yaml. Raises ConfigError with all its mistakes."""
    path = path.expanduser()
    if not path.exists():
        raise ConfigError(f"{path}: no such file; `irlhf init FOLDER` writes an example")
    return parse_rewards(read_yaml(path), str(path))


def parse_rewards(tree: Mapping[str, Any], source: str) -> Rewards:
    """Return the validated rewards of a mapping; `source` names it in errors. Raises ConfigError with all mistakes."""
    problems: list[str] = []
    try:
        rewards = Rewards.model_validate(tree)
    except ValidationError as error:
        problems = _problems(error)
        rewards = _valid_part(tree)
    checks: list[tuple[Callable[..., None], tuple[Any, ...]]] = [
        (_check, each) for section in (rewards.rewards, rewards.gold) for each in section.items()
    ]
    if not problems:
        checks += [(_check_gold, (name, gold, rewards.rewards)) for name, gold in rewards.gold.items()]
        checks += [(_check_sum, (rewards.rewards,))] if rewards.combine == "sum" else []
    for check, values in checks:
        try:
            check(*values, source)
        except ConfigError as error:
            problems.append(str(error).removeprefix(f"{source}: "))
    refuse_all(problems, f"{source}: ")
    return rewards


def refuse_all(problems: Sequence[str], start: str = "") -> None:
    """Raise ConfigError with all these mistakes, if there are any."""
    if problems:
        count = f"{len(problems)} mistakes: " if len(problems) > 1 else ""
        raise ConfigError(f"{start}{count}{'; '.join(problems)}")


def _valid_part(tree: Mapping[str, Any]) -> Rewards:
    """Return the rewards of an invalid file that are valid by themselves."""
    sections: dict[str, dict[str, Reward]] = {"rewards": {}, "gold": {}}
    for section, valid in sections.items():
        given = tree.get(section)
        for name, spec in given.items() if isinstance(given, dict) else ():
            with suppress(ValidationError):
                valid[str(name)] = Reward.model_validate(spec)
    return Rewards.model_construct(rewards=sections["rewards"], gold=sections["gold"])


def check_name(name: str, source: str) -> None:
    """Raise ConfigError for a name that is not safe in a prompt line, an option or a file."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{source}: {name!r} is not a valid name of a reward; use letters, digits, _ and -")


def _check(name: str, reward: Reward, source: str) -> None:
    check_name(name, source)
    if bool(reward.scorer) == bool(reward.column):
        raise ConfigError(f"{source}: {name} needs either `scorer:` or `column:`")
    _check_pool(name, reward, source)
    if reward.input and reward.input not in INPUTS and not reward.input.endswith(TEMPLATE):
        known = did_you_mean(reward.input, (*INPUTS, f"FILE{TEMPLATE}"))
        raise ConfigError(f"{source}: {name}: unknown input {reward.input!r}{known}")
    _check_options(name, reward.options, source)
    given = reward.scale.low is not None, reward.scale.high is not None
    if any(given) and reward.scale.kind != "linear":
        raise ConfigError(f"{source}: {name}: low and high are for a linear scale, not {reward.scale.kind}")
    if any(given) and not all(given):
        raise ConfigError(f"{source}: {name}: a linear scale needs both low and high, or neither")
    if reward.scale.low is not None and reward.scale.high is not None and reward.scale.low >= reward.scale.high:
        raise ConfigError(f"{source}: {name}: low must be less than high (use direction if lower is better)")


def _check_pool(name: str, reward: Reward, source: str) -> None:
    if bool(reward.members) != bool(reward.pool):
        fix = "add `pool: mean`, min or mean-sd" if reward.members else "list the scorers, as in `scorer: [a, b]`"
        raise ConfigError(f"{source}: {name}: several scorers and `pool:` belong together; {fix}")
    if reward.members and len({*reward.members}) < max(2, len(reward.members)):
        raise ConfigError(f"{source}: {name}: a pool needs two different scorers or more")


def _check_options(name: str, options: Mapping[str, Any], source: str) -> None:
    """Raise ConfigError for options that the run's manifest cannot store as JSON: NaN, or keys of several types."""
    try:
        json.dumps(options, allow_nan=False, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {name}: options need finite numbers, and text as names") from error


def _check_sum(rewards: Mapping[str, Reward], source: str) -> None:
    """Raise ConfigError for rewards that cannot be summed."""
    if SUM in rewards:
        raise ConfigError(f"{source}: `combine: sum` uses the name {SUM}; rename the reward {SUM}")
    if not any(reward.weight for reward in rewards.values()):
        raise ConfigError(f"{source}: all weights are 0, so there is no sum; set at least one above 0")


def _check_gold(name: str, gold: Reward, rewards: Mapping[str, Reward], source: str) -> None:
    """Raise ConfigError for a gold reward that eval cannot compare with the reward of the same name."""
    if name not in rewards:
        raise ConfigError(f"{source}: gold {name} has no reward of the same name{did_you_mean(name, rewards)}")
    if "direction" in gold.model_fields_set and gold.direction != rewards[name].direction:
        way = rewards[name].direction
        raise ConfigError(
            f"{source}: gold {name}: {way} must be better, as for its reward; negate it in a Python function"
        )


def _problems(error: ValidationError) -> list[str]:
    """Return all problems of a file. A misspelt key hides the missing key that it causes."""
    entries = error.errors(include_url=False)
    misspelt = {entry["loc"][:-1] for entry in entries if entry["type"] == "extra_forbidden"}
    shown = [entry for entry in entries if entry["type"] != "missing" or entry["loc"][:-1] not in misspelt]
    return [_problem(entry) for entry in shown]


def _problem(entry: Any) -> str:
    key = ".".join(str(part) for part in entry["loc"]).replace("\n", "\\n")
    if entry["type"] == "extra_forbidden":
        return f"unknown key '{key}'{did_you_mean(str(entry['loc'][-1]), _known_keys(len(entry['loc'])))}"
    if key == "rewards" and entry["type"] == "missing":
        return "missing key `rewards:`"
    if entry["type"] == "model_type" and len(entry["loc"]) == 2:
        return f"{key} needs its settings in braces, such as {{scorer: length}} or {{column: helpfulness}}"
    if isinstance(entry["input"], bool):
        word = "true" if entry["input"] else "false"
        return f"{key} is {word}, because YAML reads yes, no, on and off so; write the word in quotation marks"
    return f"{key}: {entry['msg'][0].lower()}{entry['msg'][1:]}"


def _known_keys(depth: int) -> list[str]:
    """Return the valid keys at a depth of the file: top level, reward, scale."""
    models: dict[int, type[BaseModel]] = {1: Rewards, 3: Reward}
    return list(models.get(depth, ScaleSpec).model_fields)
