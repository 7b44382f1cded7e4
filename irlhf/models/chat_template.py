"""The dial in the chat template: a policy's rewards, asked for by whoever serves its folder.

    constants of the policy      names, lines, spelling, what a careless reader takes for what
    rewards.jinja                writes the rewards into `messages` as `irlhf sample` does, and disarms all other text
    the base's chat template     as it is; it finds the new messages

Nothing of a user's template is run there: what it renders is taken apart into the pieces around values and lines.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files as package_files
from inspect import signature
from itertools import groupby, pairwise, product
from string import ascii_letters, digits
from typing import Any, NamedTuple
from unicodedata import decomposition

import jinja2
import jinja2.ext
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from irlhf.core.errors import ConfigError
from irlhf.models.special_tokens import specials_of
from irlhf.policy.escaping import folded
from irlhf.policy.policy_file import Policy, Reach
from irlhf.policy.scales import UNIT
from irlhf.policy.templates import Bound, RequestedValue, Template

_BEGIN = "{#- irlhf: this chat template knows the rewards"
_END = "{# irlhf: the base's own chat template follows #}\n"  # nothing of it trims the base's
_PROGRAM = "rewards.jinja"
_OWN = "irlhf"  # how the program's own variables begin
_ALL = "rewards"
_WRITTEN = "written"
# What Jinja, and those who hand the words of a call on to it, take for themselves.
_TAKEN = {_ALL, "self", "loop", "super", "caller", "varargs", "kwargs", "conversations", "messages"}
_TAKEN |= {"raise_exception", "strftime_now", "add_special_tokens", *jinja2.defaults.DEFAULT_NAMESPACE}
# How a served policy is drawn from unless the request says otherwise: generation_config.json.
_SERVED = {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0}
_PLAINEST = set(ascii_letters + digits + " ,:._-")
_PROBES = [i / 200 for i in range(-400, 601)]  # numbers that a template is tried with

# What a request hands on to the dial where `irlhf sample` has written the rewards into the messages.
AS_WRITTEN: Mapping[str, str] = {_ALL: _WRITTEN}

Rim = tuple[float, float, str]  # the middle of a spelling, a training row's number that is spelled so, the spelling


class UnsupportedTemplate(ConfigError):
    """A template whose lines are more than a value between two fixed texts."""


class Folds(NamedTuple):
    """What the characters beyond their own looks are read as, as far as a reward line could be read."""

    like: tuple[str, str]  # characters, and below each the one that it is read as
    wide: dict[str, str]  # those that are read as several
    unseen: str  # those that are not seen
    signs: str  # those of the openings that other text loses as unseen


class _Generation(jinja2.ext.Extension):
    """Reads `{% generation %}`, with which chat templates mark what an assistant wrote."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_JINJA = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
)


def with_rewards(policy: Policy, base: str, tokenizer: Any) -> str:
    """Return a chat template that asks the policy for rewards, and then runs the base's own.

    Raises UnsupportedTemplate.
    """
    constants = _constants(policy, tokenizer)
    named = ", ".join(f"{_literal(name)}: {name}" for name in keywords(policy.names, base, tokenizer))
    parts = [
        f"{_BEGIN}, for it was made of a policy of irlhf. What stands below follows its policy.json. -#}}",
        f"{{%- set {_OWN} = {_literal(constants)} -%}}",
        f"{{%- set {_OWN}_named = {{{named}}} -%}}",
        package_files("irlhf.models").joinpath(_PROGRAM).read_text(encoding="utf-8"),
    ]
    return "\n".join(parts) + _END + base


def without_rewards(chat_template: str) -> str:
    """Return the base's own chat template, of a policy's or of any other."""
    return chat_template.split(_END, 1)[1] if has_rewards(chat_template) else chat_template


def has_rewards(chat_template: str) -> bool:
    """Return whether a chat template is a policy's, which knows its rewards."""
    return chat_template.startswith(_BEGIN) and _END in chat_template


def keywords(names: Sequence[str], base: str, tokenizer: Any) -> list[str]:
    """Return the rewards that can be asked for by their bare names; all others only in `rewards`.

    Raises UnsupportedTemplate.
    """
    try:
        used = jinja2.meta.find_undeclared_variables(_JINJA.parse(base))
    except jinja2.TemplateError as error:
        raise UnsupportedTemplate(f"the base's chat template cannot be read ({error})") from error
    if _ALL in used:
        raise UnsupportedTemplate(f"the base's chat template has a variable of its own called {_ALL}")
    taken = _TAKEN | used | set(signature(tokenizer.apply_chat_template).parameters)
    return [name for name in names if name not in taken and _is_variable(name)]


def _is_variable(name: str) -> bool:
    if not name.isidentifier() or name.startswith(_OWN) or name.endswith(("_token", "_tokens")):
        return False  # tokenizers hand their special tokens on by such names
    try:
        return jinja2.meta.find_undeclared_variables(_JINJA.parse(f"{{{{ {name} }}}}")) == {name}
    except jinja2.TemplateError:
        return False


def _constants(policy: Policy, tokenizer: Any) -> dict[str, Any]:
    template, names = policy.template, policy.names
    known = {opening for name in names for opening in template.openings(name)}
    openings = tuple(sorted(known, key=lambda opening: (-len(opening), opening)))
    folds, specials = folds_of(openings), specials_of(tokenizer, template, names)
    return {
        "written": _WRITTEN,
        "order": list(names),
        "place": template.position,
        "lines": _lines(template, names),
        "blocks": _blocks(template, names),
        "spelling": template.spelling.model_dump(mode="json"),
        "unit": [reward.name for reward in policy.rewards if reward.scale.kind in UNIT],
        "reach": {name: reach.to_json() for name, reach in _reach(policy).items()},
        "gaps": {name: _gaps(policy, name) for name in names},
        "openings": openings,
        "sentences": template.speaks(names),
        **folds._asdict(),
        "words": specials.words,
        "tokens": specials.lines,
        "spelt": specials.values,
    }


def _lines(template: Template, names: Sequence[str]) -> dict[str, dict[str, tuple[str, str]]]:
    """Return what stands around the value in each line. Raises UnsupportedTemplate."""
    values = {template.spelling(number) for number in _PROBES}
    lines: dict[str, dict[str, tuple[str, str]]] = {}
    for name in names:
        lines[name] = {str(kind): ends for kind, ends in template.ends(name).items()}
        for kind, value in product(template.kinds, values):
            before, behind = lines[name].get(kind, ("", ""))
            if before + value + behind != template.reward_line(name, value, kind):
                raise UnsupportedTemplate(f"its {kind} holds the value of {name} otherwise than once, as it is")
    return lines


def _blocks(template: Template, names: Sequence[str]) -> list[list[str]]:
    """Return what stands before, between and behind one line, two lines, and so on. Raises UnsupportedTemplate."""
    blocks = []
    for count in range(1, len(names) + 1):
        marks = [f"\N{OBJECT REPLACEMENT CHARACTER}{i}\N{OBJECT REPLACEMENT CHARACTER}" for i in range(count)]
        rest, pieces = template.block_of(marks), []
        for mark in marks:
            piece, _, rest = rest.partition(mark)
            pieces.append(piece)
        pieces.append(rest)
        for kind, number in product(template.kinds, (0.0, 0.5, 1.0)):
            lines = [template.reward_line(name, template.spelling(number), kind) for name in names[-count:]]
            joined = "".join(f"{piece}{line}" for piece, line in zip(pieces, [*lines, ""], strict=True))
            if joined != template.block_of(lines):
                raise UnsupportedTemplate("its block does more than put texts before, between and behind the lines")
        blocks.append(pieces)
    return blocks


def put(policy: Policy, name: str, wish: RequestedValue) -> RequestedValue:
    """Return what the dial puts into the prompt for a wish."""
    if isinstance(wish, Bound):
        return wish._replace(number=policy.shown(name, wish.number))
    reach = _reach(policy).get(name)
    return policy.shown(name, reach(wish) if reach else wish)


def _gaps(policy: Policy, name: str) -> list[tuple[Rim, Rim]]:
    """Return between which numbers of training rows lie spellings that no row has."""
    spelling, known = policy.template.spelling, policy.known(name)
    if not known:
        return []
    alike = [list(numbers) for _, numbers in groupby(known, spelling)]
    rims = [
        [(spelling.centre(number), number, spelling(number)) for number in (numbers[0], numbers[-1])]
        for numbers in alike
    ]
    gaps = [(below[1], above[0]) for below, above in pairwise(rims)]
    between = [gap for gap in gaps if spelling((gap[0][0] + gap[1][0]) / 2) not in (gap[0][2], gap[1][2])]
    first, last = rims[0][0], rims[-1][1]
    return [((-1.0, *first[1:]), first), *between, (last, (2.0, *last[1:]))]


def _reach(policy: Policy) -> Mapping[str, Reach]:
    """Return what was measured of each reward, where it was measured as a served policy is drawn from."""
    measured = policy.calibration
    if measured is None or any(measured.decoding.get(name, number) != number for name, number in _SERVED.items()):
        return {}
    return measured.reach


@cache
def folds_of(openings: tuple[str, ...]) -> Folds:
    """Return how characters are read, of those that are not read as they are and could be part of a reward line.

    All others that `folded` changes are letters of no opening, or are recognised in rewards.jinja by their kind.
    """
    inner = {opening[i:j] for opening in openings for i in range(len(opening)) for j in range(i + 1, len(opening) + 1)}
    first = {opening[:end] for opening in openings for end in range(1, len(opening) + 1)}
    last = {opening[start:] for opening in openings for start in range(len(opening))}

    def belongs(seen: str) -> bool:
        parts = [(seen[:i], seen[i:]) for i in range(len(seen) + 1)]
        around = any(before in last or behind in first for before, behind in parts)
        return seen in inner or around or any(opening in seen for opening in openings)

    read = {
        character: seen
        for character, seen in _folding().items()
        if character.isascii() or not seen or belongs(seen) or _stands_before(character, seen)
    }
    single = {character: seen for character, seen in read.items() if len(seen) == 1}
    return Folds(
        like=("".join(single), "".join(single.values())),
        wide={character: seen for character, seen in read.items() if len(seen) > 1},
        unseen="".join(character for character, seen in read.items() if not seen),
        signs="".join(sorted({sign for opening in openings for sign in opening if not sign.isascii()})),
    )


def _stands_before(character: str, seen: str) -> bool:
    """Return whether it is read as marks or digits, as of a list, and does not look so by itself."""
    marks = all(sign.isdecimal() or not sign.isalnum() for sign in seen)
    ends_a_number = seen.startswith((".", ")"))
    return marks and (character.isalnum() or ends_a_number or "\\" in seen or any(sign.isdecimal() for sign in seen))


@cache
def _folding() -> dict[str, str]:
    """Return all characters that are not read as they are, but those that rewards.jinja knows to be unseen."""
    folding = {}
    for code in (*range(0xD800), *range(0xE000, 0x30000)):
        character = chr(code)
        # Whole CJK planes are read as they are, and looked at no further.
        if (
            code < 0x3200
            or "\uac00" <= character <= "\ud7a3"
            or decomposition(character)
            or character.casefold() != character
        ):
            seen = folded(character)
            if seen != character and (seen or character.isascii() or not _is_unseen(character)):
                folding[character] = seen
    return folding


def _is_unseen(character: str) -> bool:
    """Return what rewards.jinja sees of a character without tables: spaces, controls and marks are not seen."""
    mark = f"a{character}".isidentifier() and not character.isalnum()
    return character.isspace() or not character.isprintable() or mark


def _literal(value: object) -> str:
    """Return a constant as Jinja reads it. In texts all but the plainest signs are spelled by their numbers."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(character if character in _PLAINEST else _number(character) for character in value) + '"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(character)}" for key, character in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + "".join(f"{_literal(character)}, " for character in value) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value)


def _number(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
