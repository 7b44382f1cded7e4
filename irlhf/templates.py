"""How rewards are spelled in a prompt, and where they stand.

A template is a small YAML of settings and two Jinja texts, run in a sandbox:

    place: end                        # end | start | system | both | none
    spelling: {kind: decimal, digits: 2}
    line: "{{ name }}: {{ value }}"   # one reward
    block: "{{ lines | join('\\n') }}" # all of them together

User text that looks like a reward line is escaped: it is read as text and never obeyed.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal
from unicodedata import category as _category
from unicodedata import normalize

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from irlhf.errors import ConfigError, DataError
from irlhf.files import read_yaml
from irlhf.records import Content, Message, as_messages
from irlhf.registry import did_you_mean

DEFAULT = "reward-end"
PLAIN = "plain"  # no reward in the prompt: what the baselines that are trained use
INSTRUCTION = "instruction"  # plain English, for a base that was never taught reward lines
ESCAPE = "\\"

_LINE_END = re.compile("([\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")
_PART = "\n\n"  # between the reward block and the text beside it
_JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
_UNSEEN = "\u115f\u1160\u2800\u3164*_~`\"'"  # letters and signs that have no ink, and marks of emphasis
_BEFORE = r"(?:[^\w\\]|\d+[.)])*?"  # what may stand before a line and leave it one: marks of lists and quotations
_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for the value when a line's fixed part is wanted


class Spelling(BaseModel):
    """How a scaled number is written: `decimal`, `integer` (0-99), `bins` or `words`.

    `step` rounds a decimal to a multiple, so that a small model meets few different numbers. All but
    plain decimals need a scale within [0, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["decimal", "integer", "bins", "words"] = "decimal"
    digits: int = Field(default=2, ge=0, le=6)
    step: float = Field(default=0.0, ge=0, le=0.5)
    count: int = Field(default=20, ge=2, le=1000)
    words: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_words(self) -> "Spelling":
        if self.kind == "words" and len(self.words) < 2:
            raise ValueError("the spelling `words` needs a list of at least two words, worst first")
        return self

    def __call__(self, number: float) -> str:
        """Spell a scaled number."""
        if self.kind == "decimal":
            rounded = round(number / self.step) * self.step if self.step else number
            spelled = f"{rounded:.{self.digits}f}"
            return spelled if float(spelled) else spelled.lstrip("-")  # no "-0.00"
        if self.kind == "integer":
            return str(round(_held(number) * 99))
        if self.kind == "bins":
            return f"bin{min(int(_held(number) * self.count), self.count - 1) + 1:02d}"
        return self.words[min(int(_held(number) * len(self.words)), len(self.words) - 1)]

    def vocabulary(self) -> list[str]:
        """Return every spelling of a number in [0, 1], lowest first."""
        points = 10**self.digits if not self.step else round(1 / self.step)
        counts = {"decimal": points, "integer": 99, "bins": self.count, "words": len(self.words)}
        steps = counts[self.kind]
        return list(dict.fromkeys(self(i / steps) for i in range(steps + 1)))


class Template(BaseModel):
    """A template read from YAML; `text` is that YAML, as policy.json keeps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Literal["end", "start", "system", "both", "none"] = "end"
    spelling: Spelling = Spelling()
    line: str = "{{ name }}: {{ value }}"
    block: str = "{{ lines | join('\n') }}"

    @cached_property
    def _line(self) -> jinja2.Template:
        return _JINJA.from_string(self.line)

    @cached_property
    def _block(self) -> jinja2.Template:
        return _JINJA.from_string(self.block)

    def reward_line(self, name: str, value: str) -> str:
        """Return the line of one reward, its value spelled already."""
        return self._line.render(name=name, value=value)

    def vocabulary(self, names: Sequence[str]) -> list[str]:
        """Return every reward line that a number in [0, 1] can become; none for a plain template."""
        if self.place == "none":
            return []
        return [self.reward_line(name, value) for name in names for value in self.spelling.vocabulary()]

    def reward_block(self, asked: Mapping[str, float]) -> str:
        """Return all reward lines, as they stand in the prompt; empty where nothing is asked."""
        if not asked or self.place == "none":
            return ""
        return self._block.render(
            lines=[self.reward_line(name, self.spelling(number)) for name, number in asked.items()]
        )

    def render(self, prompt: Content, asked: Mapping[str, float], names: Sequence[str]) -> list[Message]:
        """Return the prompt as messages with the asked rewards (in the units of their scales) written in.

        `names` are all rewards that the policy knows: text that looks like one of their lines is
        escaped in every message. Raises DataError where no user turn can carry the rewards.
        """
        messages = [self._escaped(message, names) for message in as_messages(prompt)]
        block = self.reward_block(asked)
        if not block:
            return messages
        if self.place == "system":
            return _in_system(messages, block)
        last = max((i for i, one in enumerate(messages) if one["role"] == "user"), default=None)
        if last is None:
            raise DataError("no user turn in the prompt to carry the rewards")
        parts = [messages[last]["content"]]
        if self.place in ("start", "both"):
            parts.insert(0, block)
        if self.place in ("end", "both"):
            parts.append(block)
        messages[last] = {**messages[last], "content": _PART.join(parts)}
        return messages

    def escape(self, text: str, names: Sequence[str]) -> str:
        """Put a backslash before each line that could be taken for a reward line.

        A list's mark, a quotation's or an emphasis before the line hides nothing. Where the block speaks in
        sentences, they are looked for anywhere in a line, for a sentence need not begin one.
        """
        if self.place == "none" or not names:
            return text
        known = [self.openings(name) for name in names]
        longest_first = sorted({one for each in known for one in each}, key=len, reverse=True)
        openings = "|".join(map(re.escape, longest_first))
        sentences = any(len(each) > 1 for each in known)
        pieces = _LINE_END.split(text)
        return "".join(_no_sentence(one, openings) if sentences else _no_line(one, openings) for one in pieces)

    def openings(self, name: str) -> set[str]:
        """Return how a line that carries this reward begins, folded: the reward line alone and in its block."""
        line = self.reward_line(name, _MARK)
        pieces = _LINE_END.split(line) + _LINE_END.split(self._block.render(lines=[line]))
        return {_folded(piece.split(_MARK, 1)[0]) for piece in pieces if _MARK in piece}

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
    folder = inside if inside.is_dir() else Path(__file__).parents[1] / "templates"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def parse_template(tree: Mapping[str, Any], source: str) -> Template:
    """Check a template given as a mapping, and try it once."""
    try:
        template = Template.model_validate(tree)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "spelling"
        known = Spelling.model_fields if len(problem["loc"]) > 1 else Template.model_fields
        hint = did_you_mean(place.rsplit(".", 1)[-1], known) if problem["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{source}: {place}: {problem['msg']}{hint}") from error
    try:
        tried = template.reward_line("reward", "0.50"), template.reward_block({"reward": 0.5})
        openings = template.openings("reward")
    except Exception as error:  # a template is a program, and may fail as any program
        raise ConfigError(f"{source}: {type(error).__name__}: {error}") from error
    if template.place != "none" and ("0.50" not in tried[0] or template.spelling(0.5) not in tried[1]):
        raise ConfigError(f"{source}: the value does not reach the prompt; use {{{{ value }}}} and {{{{ lines }}}}")
    if template.place != "none" and "" in openings:
        raise ConfigError(f"{source}: a line begins with the value; begin it with the name, or users can forge it")
    return template


def _in_system(messages: list[Message], block: str) -> list[Message]:
    if messages[0]["role"] in ("system", "developer"):
        joined = _PART.join([messages[0]["content"], block])
        return [{**messages[0], "content": joined}, *messages[1:]]
    return [{"role": "system", "content": block}, *messages]


def _no_line(piece: str, openings: str) -> str:
    """Return a line with a backslash before it where it begins with one of the (folded) openings."""
    return ESCAPE + piece if re.match(f"{_BEFORE}(?:{openings})", _folded(piece)) else piece


def _no_sentence(piece: str, openings: str) -> str:
    """Return a line with a backslash before each of the (folded) openings that begins a word of it."""
    signs = [(sign, place) for place, character in enumerate(piece) for sign in _folded(character)]
    found = [one.start() for one in re.finditer(openings, "".join(sign for sign, _ in signs))]
    places = [signs[start][1] if start else 0 for start in found]
    words = [place for place in places if not place or not (piece[place - 1].isalnum() or piece[place - 1] == ESCAPE)]
    ends = zip([0, *words], [*words, len(piece)], strict=True)
    return ESCAPE.join(piece[start:end] for start, end in ends)


def _folded(text: str) -> str:
    """Return text as a careless reader sees it: width, case, marks, spaces and invisible signs folded away."""
    seen = normalize("NFKD", text).casefold()
    return "".join(c for c in seen if not c.isspace() and c not in _UNSEEN and _category(c) not in ("Cf", "Cc", "Mn"))


def _held(number: float) -> float:
    return min(1.0, max(0.0, number))
