"""Reward templates: format target rewards as lines of the prompt.

A template is a YAML file with settings and a few Jinja texts, which run in a sandbox:

    place: end                                  # end | start | system | both | none
    spelling: {kind: decimal, digits: 2}
    line: "{{ name }}: {{ value }}"             # one reward; {{ description }} is from rewards.yaml
    at_least: "{{ name }}: at least {{ value }}"  # threshold line, if the policy should learn them; also `at_most`
    block: "{{ lines | join('\\n') }}"           # all lines together

User text that looks like a reward line is escaped, so that the policy does not follow it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from irlhf.core.errors import ConfigError, DataError
from irlhf.core.example import Content, Message, as_messages
from irlhf.core.registry import did_you_mean
from irlhf.io.files import read_yaml
from irlhf.policy.escaping import escape, folded, lines

DEFAULT = "reward-end"
PLAIN = "plain"  # no reward in the prompt; used by trained baselines
INSTRUCTION = "instruction"  # plain English, for a base that was not trained on reward lines

_MOST_NUMBERS = 1000  # of a span; each is a token of a small base
_PART = "\n\n"  # between the reward block and the text beside it
_JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"  # placeholder for the value, to find the fixed parts of a line

Kind = Literal["line", "at_least", "at_most"]


class Bound(NamedTuple):
    """A threshold in the units of a scale: at least or at most `number`."""

    kind: Literal["at_least", "at_most"]
    number: float


RequestedValue = float | Bound  # the target in one reward line, in the units of the reward's scale


class Spelling(BaseModel):
    """The text form of a scaled number: `decimal`, `integer` (0-99), `bins` or `words`.

    `step` rounds a decimal to a multiple, so that a small model sees few distinct numbers. `span` clips a decimal to a
    range, so that an unbounded scale has few distinct numbers too. All kinds but `decimal` need a scale in [0, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["decimal", "integer", "bins", "words"] = "decimal"
    digits: int = Field(default=2, ge=0, le=6)
    step: float = Field(default=0.0, ge=0, le=0.5)
    span: tuple[float, float] | None = None
    count: int = Field(default=20, ge=2, le=1000)
    words: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_words(self) -> "Spelling":
        if self.kind == "words" and len(self.words) < 2:
            raise ValueError("the spelling `words` needs a list of at least two words, from worst to best")
        return self

    @model_validator(mode="after")
    def _has_a_span(self) -> "Spelling":
        if self.span is None:
            return self
        if self.kind != "decimal" or not math.isfinite(sum(self.span)) or self.span[0] >= self.span[1]:
            raise ValueError("`span` needs the lowest and the highest number of a decimal, as in [-3, 3]")
        if (self.span[1] - self.span[0]) * self._points > _MOST_NUMBERS:
            raise ValueError(f"`span` has more than {_MOST_NUMBERS:,} numbers; use a larger `step`")
        return self

    @property
    def _points(self) -> float:
        """Number of distinct spellings per unit."""
        return 1 / self.step if self.step else 10**self.digits

    def __call__(self, number: float) -> str:
        """Return the text of a scaled number."""
        if self.kind == "decimal":
            held = min(self.span[1], max(self.span[0], number)) if self.span else number
            rounded = round(held / self.step) * self.step if self.step else held
            spelled = f"{rounded:.{self.digits}f}"
            return spelled if float(spelled) else spelled.lstrip("-")  # no "-0.00"
        if self.kind == "integer":
            return str(round(_clipped(number) * 99))
        if self.kind == "bins":
            return f"bin{min(int(_clipped(number) * self.count), self.count - 1) + 1:02d}"
        return self.words[min(int(_clipped(number) * len(self.words)), len(self.words) - 1)]

    def centre(self, number: float) -> float:
        """Return the centre of the range of numbers with the same spelling as `number`."""
        if self.kind == "decimal":
            return float(self(number))
        if self.kind == "integer":
            return int(self(number)) / 99
        count = self.count if self.kind == "bins" else len(self.words)
        return (min(int(_clipped(number) * count), count - 1) + 0.5) / count

    def vocabulary(self) -> list[str]:
        """Return all spellings of numbers in the span, or in [0, 1], lowest first."""
        low, high = self.span or (0.0, 1.0)
        points = round((high - low) * self._points)
        counts = {"decimal": points, "integer": 99, "bins": self.count, "words": len(self.words)}
        steps = counts[self.kind]
        return list(dict.fromkeys(self(low + i / steps * (high - low)) for i in range(steps + 1)))


class Template(BaseModel):
    """A reward template read from YAML.

    `bounded` is the share of training lines with a threshold, if the template has threshold lines. `descriptions` gives
    the meaning of each reward; finetune adds those of rewards.yaml. With `tokens`, each possible reward line becomes a
    single new token; the default is True for the built-in `tiny` and False for other bases.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    position: Literal["end", "start", "system", "both", "none"] = Field(default="end", alias="place")
    spelling: Spelling = Spelling()
    line: str = "{{ name }}: {{ value }}"
    at_least: str = ""
    at_most: str = ""
    bounded: float = Field(default=0.5, ge=0, lt=1)
    block: str = "{{ lines | join('\n') }}"
    descriptions: dict[str, str] = Field(default_factory=dict)
    tokens: bool | None = None

    @cached_property
    def _lines(self) -> dict[Kind, jinja2.Template]:
        texts: dict[Kind, str] = {"line": self.line, "at_least": self.at_least, "at_most": self.at_most}
        return {kind: _JINJA.from_string(text) for kind, text in texts.items() if text}

    @cached_property
    def _block(self) -> jinja2.Template:
        return _JINJA.from_string(self.block)

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of lines in this template: `line`, and those for thresholds."""
        return list(self._lines)

    @property
    def describes(self) -> bool:
        """Whether a line contains the description of its reward."""
        return any("description" in text for text in (self.line, self.at_least, self.at_most))

    def __reduce__(self) -> tuple[Any, ...]:
        return Template.model_validate, (self.model_dump(),)  # compiled Jinja texts cannot be pickled

    def reward_line(self, name: str, value: str, kind: Kind = "line") -> str:
        """Return the line of one reward; `value` is already text."""
        return self._lines[kind].render(name=name, value=value, description=self.descriptions.get(name, name))

    def ends(self, name: str) -> dict[Kind, tuple[str, str]]:
        """Return the text before and after the value, for each kind of line that contains it once."""
        pieces = {kind: self.reward_line(name, _MARK, kind).split(_MARK) for kind in self.kinds}
        return {kind: (parts[0], parts[1]) for kind, parts in pieces.items() if len(parts) == 2}

    def vocabulary(self, names: Sequence[str]) -> list[str]:
        """Return all reward lines of numbers in the span, or in [0, 1]; empty for a plain template."""
        if self.position == "none":
            return []
        values = self.spelling.vocabulary()
        return [self.reward_line(name, value, kind) for name in names for kind in self.kinds for value in values]

    def reward_block(self, requested: Mapping[str, RequestedValue]) -> str:
        """Return the block of reward lines for the prompt; empty if nothing is requested."""
        if not requested or self.position == "none":
            return ""
        return self.block_of([self._spelled(name, wish) for name, wish in requested.items()])

    def block_of(self, lines: Sequence[str]) -> str:
        """Return the block of the given reward lines."""
        return self._block.render(lines=list(lines))

    def render(self, prompt: Content, requested: Mapping[str, RequestedValue], names: Sequence[str]) -> list[Message]:
        """Return the prompt as messages that include the requested rewards (in the units of their scales).

        `names` lists all rewards of the policy: text that looks like one of their lines is escaped in every message.
        An empty list escapes nothing. Raises DataError if the prompt has no user turn for the rewards.
        """
        messages = [self._escaped(message, names) for message in as_messages(prompt)]
        block = self.reward_block(requested)
        if not block:
            return messages
        if self.position == "system":
            return _in_system(messages, block)
        last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if last is None:
            raise DataError("the prompt has no user turn, which the rewards are added to")
        parts = [messages[last]["content"]]
        if self.position in ("start", "both"):
            parts.insert(0, block)
        if self.position in ("end", "both"):
            parts.append(block)
        messages[last] = {**messages[last], "content": _PART.join(parts)}
        return messages

    def escape(self, text: str, names: Sequence[str]) -> str:
        """Return the text with a backslash before everything that looks like a reward line.

        If the block writes rewards as sentences, they are found anywhere in a line.
        """
        if self.position == "none" or not names:
            return text
        known = [self.openings(name) for name in names]
        return escape(text, {opening for each in known for opening in each}, any(map(self._speaks, names)))

    def forged(self, prompt: Content, names: Sequence[str]) -> bool:
        """Return whether the text of a message looks like a reward line."""
        messages = as_messages(prompt)
        return [self._escaped(message, names) for message in messages] != list(map(dict, messages))

    def openings(self, name: str) -> set[str]:
        """Return the folded beginnings of this reward's line, alone and inside the block."""
        return {opening for kind in self.kinds for opening in self._openings(name, kind)}

    def speaks(self, names: Sequence[str]) -> bool:
        """Return whether the block writes rewards as sentences, which may start anywhere in a line."""
        return any(map(self._speaks, names))

    def _openings(self, name: str, kind: Kind) -> set[str]:
        line = self.reward_line(name, _MARK, kind)
        pieces = lines(line) + lines(self._block.render(lines=[line]))
        return {folded(piece.split(_MARK, 1)[0]) for piece in pieces if _MARK in piece}

    def _speaks(self, name: str) -> bool:
        """Return whether the reward's line has another beginning inside the block, as a part of a sentence."""
        return any(len(self._openings(name, kind)) > 1 for kind in self.kinds)

    def _spelled(self, name: str, wish: RequestedValue) -> str:
        if isinstance(wish, Bound):
            return self.reward_line(name, self.spelling(wish.number), wish.kind)
        return self.reward_line(name, self.spelling(wish))

    def _escaped(self, message: Message, names: Sequence[str]) -> Message:
        body = message.get("content")
        return {**message, "content": self.escape(body, names)} if isinstance(body, str) else dict(message)


def find_template(name: str) -> Template:
    """Return a built-in template by name, or a user's template by path. Raises ConfigError."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return parse_template(read_yaml(path), str(path))
    shipped = shipped_templates()
    if name not in shipped:
        raise ConfigError(f"no template '{name}'{did_you_mean(name, shipped)}; a template file must end in .yaml")
    return parse_template(read_yaml(shipped[name]), name)


def shipped_templates() -> dict[str, Path]:
    """Return the paths of the built-in templates by name, from the wheel or from the source checkout."""
    inside = Path(str(package_files("irlhf"))) / "templates"
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "templates"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def parse_template(tree: Mapping[str, Any], source: str) -> Template:
    """Return the template in a mapping, after rendering an example. Raises ConfigError."""
    try:
        template = Template.model_validate(tree)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"]) or "spelling"
        fields = (Spelling if len(problem["loc"]) > 1 else Template).model_fields
        known = [field.alias or name for name, field in fields.items()]
        hint = did_you_mean(key.rsplit(".", 1)[-1], known) if problem["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{source}: {key}: {problem['msg']}{hint}") from error
    try:
        tried = [template.reward_line("reward", "0.50", kind) for kind in template.kinds]
        tried_block = template.reward_block({"reward": 0.5})
        openings = template.openings("reward")
    except Exception as error:  # a template can fail with any exception
        raise ConfigError(f"{source}: {type(error).__name__}: {error}") from error
    reaches = all("0.50" in line for line in tried) and template.spelling(0.5) in tried_block
    if template.position != "none" and not reaches:
        raise ConfigError(f"{source}: the value does not appear in the prompt; use {{{{ value }}}} and {{{{ lines }}}}")
    if template.position != "none" and len(set(tried)) < len(tried):
        raise ConfigError(f"{source}: at_least, at_most and line must differ; state the threshold in the text")
    if template.position != "none" and "" in openings:
        raise ConfigError(f"{source}: a line starts with the value; start it with the name, so that it can be escaped")
    return template


def _in_system(messages: list[Message], block: str) -> list[Message]:
    if messages[0]["role"] in ("system", "developer"):
        joined = _PART.join([messages[0]["content"], block])
        return [{**messages[0], "content": joined}, *messages[1:]]
    return [{"role": "system", "content": block}, *messages]


def _clipped(number: float) -> float:
    return min(1.0, max(0.0, number))
