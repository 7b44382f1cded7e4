"""How rewards are spelled in a prompt, and where they stand.

A template is a small YAML of settings and a few Jinja texts, run in a sandbox:

    place: end                                  # end | start | system | both | none
    spelling: {kind: decimal, digits: 2}
    line: "{{ name }}: {{ value }}"             # one reward; {{ description }} is what rewards.yaml says of it
    at_least: "{{ name }}: at least {{ value }}"  # a threshold, where the policy shall learn them; so `at_most`
    block: "{{ lines | join('\\n') }}"           # all of them together

User text that looks like a reward line is escaped: it is read as text and never obeyed.
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
PLAIN = "plain"  # no reward in the prompt: what the baselines that are trained use
INSTRUCTION = "instruction"  # plain English, for a base that was never taught reward lines

_MOST_NUMBERS = 1000  # of a span: each is a token of a small base
_PART = "\n\n"  # between the reward block and the text beside it
_JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for the value when a line's fixed part is wanted

Kind = Literal["line", "at_least", "at_most"]


class Bound(NamedTuple):
    """A threshold in the units of a scale: at least, or at most, this much is asked for."""

    kind: Literal["at_least", "at_most"]
    number: float


RequestedValue = float | Bound  # what one line of a prompt asks for, in the units of its reward's scale


class Spelling(BaseModel):
    """How a scaled number is written: `decimal`, `integer` (0-99), `bins` or `words`.

    `step` rounds a decimal to a multiple, so that a small model meets few different numbers, and `span` holds it
    between two ends, so that an unbounded scale has few of them too. All but decimals need a scale within [0, 1].
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
            raise ValueError("the spelling `words` needs a list of at least two words, worst first")
        return self

    @model_validator(mode="after")
    def _has_a_span(self) -> "Spelling":
        if self.span is None:
            return self
        if self.kind != "decimal" or not math.isfinite(sum(self.span)) or self.span[0] >= self.span[1]:
            raise ValueError("`span` is the lowest and the highest number that decimals spell, as in [-3, 3]")
        if (self.span[1] - self.span[0]) * self._points > _MOST_NUMBERS:
            raise ValueError(f"`span` holds more than {_MOST_NUMBERS:,} numbers; take a larger `step`")
        return self

    @property
    def _points(self) -> float:
        """How many numbers lie between 0 and 1."""
        return 1 / self.step if self.step else 10**self.digits

    def __call__(self, number: float) -> str:
        """Spell a scaled number."""
        if self.kind == "decimal":
            held = min(self.span[1], max(self.span[0], number)) if self.span else number
            rounded = round(held / self.step) * self.step if self.step else held
            spelled = f"{rounded:.{self.digits}f}"
            return spelled if float(spelled) else spelled.lstrip("-")  # no "-0.00"
        if self.kind == "integer":
            return str(round(_held(number) * 99))
        if self.kind == "bins":
            return f"bin{min(int(_held(number) * self.count), self.count - 1) + 1:02d}"
        return self.words[min(int(_held(number) * len(self.words)), len(self.words) - 1)]

    def centre(self, number: float) -> float:
        """Return the number that a spelling stands for, as the middle of what is spelled so."""
        if self.kind == "decimal":
            return float(self(number))
        if self.kind == "integer":
            return int(self(number)) / 99
        count = self.count if self.kind == "bins" else len(self.words)
        return (min(int(_held(number) * count), count - 1) + 0.5) / count

    def vocabulary(self) -> list[str]:
        """Return every spelling of a number in the span, or in [0, 1], lowest first."""
        low, high = self.span or (0.0, 1.0)
        points = round((high - low) * self._points)
        counts = {"decimal": points, "integer": 99, "bins": self.count, "words": len(self.words)}
        steps = counts[self.kind]
        return list(dict.fromkeys(self(low + i / steps * (high - low)) for i in range(steps + 1)))


class Template(BaseModel):
    """A template read from YAML.

    `bounded` is the share of training lines that name a threshold, where the template has a line for them.
    `descriptions` say what rewards mean; finetune adds what rewards.yaml says. With `tokens` every reward line
    there can be becomes one token of its own; left open, those of the built-in `tiny` do, and of no other base.
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
        """The kinds of line that a policy of this template learns: `line`, and those of thresholds."""
        return list(self._lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return Template.model_validate, (self.model_dump(),)  # into another process without the compiled texts

    def reward_line(self, name: str, value: str, kind: Kind = "line") -> str:
        """Return the line of one reward, its value spelled already."""
        return self._lines[kind].render(name=name, value=value, description=self.descriptions.get(name, name))

    def ends(self, name: str) -> dict[Kind, tuple[str, str]]:
        """Return what stands before and behind the value in each kind of line that holds it once."""
        pieces = {kind: self.reward_line(name, _MARK, kind).split(_MARK) for kind in self.kinds}
        return {kind: (parts[0], parts[1]) for kind, parts in pieces.items() if len(parts) == 2}

    def vocabulary(self, names: Sequence[str]) -> list[str]:
        """Return every reward line that a number in the span, or in [0, 1], can become; none for a plain template."""
        if self.position == "none":
            return []
        values = self.spelling.vocabulary()
        return [self.reward_line(name, value, kind) for name in names for kind in self.kinds for value in values]

    def reward_block(self, requested: Mapping[str, RequestedValue]) -> str:
        """Return all reward lines, as they stand in the prompt; empty where nothing is asked."""
        if not requested or self.position == "none":
            return ""
        return self.block_of([self._spelled(name, wish) for name, wish in requested.items()])

    def block_of(self, lines: Sequence[str]) -> str:
        """Return reward lines together."""
        return self._block.render(lines=list(lines))

    def render(self, prompt: Content, requested: Mapping[str, RequestedValue], names: Sequence[str]) -> list[Message]:
        """Return the prompt as messages with the asked rewards (in the units of their scales) written in.

        `names` are all rewards that the policy knows: text that looks like one of their lines is
        escaped in every message (name none to leave it). Raises DataError where no user turn can carry the rewards.
        """
        messages = [self._escaped(message, names) for message in as_messages(prompt)]
        block = self.reward_block(requested)
        if not block:
            return messages
        if self.position == "system":
            return _in_system(messages, block)
        last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if last is None:
            raise DataError("no user turn in the prompt to carry the rewards")
        parts = [messages[last]["content"]]
        if self.position in ("start", "both"):
            parts.insert(0, block)
        if self.position in ("end", "both"):
            parts.append(block)
        messages[last] = {**messages[last], "content": _PART.join(parts)}
        return messages

    def escape(self, text: str, names: Sequence[str]) -> str:
        """Put a backslash before all that could be taken for a reward line.

        Where the block speaks in sentences, they are looked for anywhere in a line.
        """
        if self.position == "none" or not names:
            return text
        known = [self.openings(name) for name in names]
        return escape(text, {opening for each in known for opening in each}, any(map(self._speaks, names)))

    def forged(self, prompt: Content, names: Sequence[str]) -> bool:
        """Return whether some message's text could be taken for a reward line."""
        messages = as_messages(prompt)
        return [self._escaped(message, names) for message in messages] != list(map(dict, messages))

    def openings(self, name: str) -> set[str]:
        """Return how a line that carries this reward begins, folded: the reward line alone and in its block."""
        return {opening for kind in self.kinds for opening in self._openings(name, kind)}

    def speaks(self, names: Sequence[str]) -> bool:
        """Return whether the block speaks in sentences, so that a line need not begin where one begins in a text."""
        return any(map(self._speaks, names))

    def _openings(self, name: str, kind: Kind) -> set[str]:
        line = self.reward_line(name, _MARK, kind)
        pieces = lines(line) + lines(self._block.render(lines=[line]))
        return {folded(piece.split(_MARK, 1)[0]) for piece in pieces if _MARK in piece}

    def _speaks(self, name: str) -> bool:
        """Return whether a line begins otherwise in its block than alone, as a part of a sentence."""
        return any(len(self._openings(name, kind)) > 1 for kind in self.kinds)

    def _spelled(self, name: str, wish: RequestedValue) -> str:
        if isinstance(wish, Bound):
            return self.reward_line(name, self.spelling(wish.number), wish.kind)
        return self.reward_line(name, self.spelling(wish))

    def _escaped(self, message: Message, names: Sequence[str]) -> Message:
        body = message.get("content")
        return {**message, "content": self.escape(body, names)} if isinstance(body, str) else dict(message)


def find_template(name: str) -> Template:
    """Return a shipped template by name, or a user's own by path. Raises ConfigError."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return parse_template(read_yaml(path), str(path))
    shipped = shipped_templates()
    if name not in shipped:
        raise ConfigError(f"no template '{name}'{did_you_mean(name, shipped)}; a file of your own ends in .yaml")
    return parse_template(read_yaml(shipped[name]), name)


def shipped_templates() -> dict[str, Path]:
    """Return the templates that come with irlhf: inside the wheel, or beside the package in a checkout."""
    inside = Path(str(package_files("irlhf"))) / "templates"
    folder = inside if inside.is_dir() else Path(__file__).parents[2] / "templates"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def parse_template(tree: Mapping[str, Any], source: str) -> Template:
    """Check a template given as a mapping, and try it once."""
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
    except Exception as error:  # a template is a program, and may fail as any program
        raise ConfigError(f"{source}: {type(error).__name__}: {error}") from error
    reaches = all("0.50" in line for line in tried) and template.spelling(0.5) in tried_block
    if template.position != "none" and not reaches:
        raise ConfigError(f"{source}: the value does not reach the prompt; use {{{{ value }}}} and {{{{ lines }}}}")
    if template.position != "none" and len(set(tried)) < len(tried):
        raise ConfigError(f"{source}: at_least and at_most read as another line does; say what they ask for")
    if template.position != "none" and "" in openings:
        raise ConfigError(f"{source}: a line begins with the value; begin it with the name, or users can forge it")
    return template


def _in_system(messages: list[Message], block: str) -> list[Message]:
    if messages[0]["role"] in ("system", "developer"):
        joined = _PART.join([messages[0]["content"], block])
        return [{**messages[0], "content": joined}, *messages[1:]]
    return [{"role": "system", "content": block}, *messages]


def _held(number: float) -> float:
    return min(1.0, max(0.0, number))
