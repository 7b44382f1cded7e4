"""Chat templates that accept target rewards, so that any server of a policy folder can request them.

    constants of the policy      names, lines, spelling, character foldings
    rewards.jinja                writes the targets into `messages` as `irlhf sample` does, and escapes all other text
    the base's chat template     unchanged; it renders the new messages
    the opening of an answer     an empty think block, for example, where the base's chat template leaves it out

The chat template does not run the user's reward template. Its output is split into the texts around values and lines.
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
from irlhf.policy.turn_format import TurnFormat

_BEGIN = "{#- irlhf: this chat template knows the rewards"
_END = "{# irlhf: the base's own chat template follows #}\n"  # does not trim the whitespace of the base's template
_TAIL = "{#+ irlhf: what the base's chat template writes before an answer, but not behind a prompt. #}"
_PROGRAM = "rewards.jinja"
_OWN = "irlhf"  # prefix of the variables of rewards.jinja
_ALL = "rewards"
_WRITTEN = "written"
# Names reserved by Jinja, transformers and servers.
_RESERVED = {_ALL, "self", "loop", "super", "caller", "varargs", "kwargs", "conversations", "messages"}
_RESERVED |= {"raise_exception", "strftime_now", "add_special_tokens", *jinja2.defaults.DEFAULT_NAMESPACE}
# Default decoding of a served policy, see generation_config.json.
_SERVED = {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0}
_PLAINEST = set(ascii_letters + digits + " ,:._-")
_PROBES = [i / 200 for i in range(-400, 601)]  # numbers used to test a template

# Chat template arguments for messages that already contain the rewards.
AS_WRITTEN: Mapping[str, str] = {_ALL: _WRITTEN}

Rim = tuple[float, float, str]  # centre of a spelling, a training row's number with this spelling, the spelling


class UnsupportedTemplate(ConfigError):
    """The reward template cannot be expressed in a chat template."""


class Folds(NamedTuple):
    """Characters that could be read as part of a reward line, and their foldings."""

    like: tuple[str, str]  # characters, and the single characters that they are read as
    wide: dict[str, str]  # characters that are read as several characters
    unseen: str  # invisible characters
    signs: str  # non-ASCII characters of the openings


class _Generation(jinja2.ext.Extension):
    """Parses `{% generation %}`, which marks assistant text in chat templates."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


_JINJA = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
)


def with_rewards(policy: Policy, base: str, tokenizer: Any) -> str:
    """Return a chat template that accepts target rewards and then runs the base's chat template.

    Raises UnsupportedTemplate.
    """
    constants = {**_constants(policy, tokenizer), "developer": knows_developers(base)}
    named = ", ".join(f"{_literal(name)}: {name}" for name in keywords(policy.names, base, tokenizer))
    parts = [
        f"{_BEGIN} of an irlhf policy. The constants below follow its policy.json. -#}}",
        f"{{%- set {_OWN} = {_literal(constants)} -%}}",
        f"{{%- set {_OWN}_named = {{{named}}} -%}}",
        package_files("irlhf.models").joinpath(_PROGRAM).read_text(encoding="utf-8"),
    ]
    return "\n".join(parts) + _END + base


def with_opening(chat_template: str, turns: TurnFormat | None) -> str:
    """Return a chat template whose prompts end where an answer begins, see TurnFormat.opening."""
    if turns is None or not turns.before_answer:
        return chat_template
    # Jinja drops a line break at the very end of a template, which is no longer there.
    cut, newline = (chat_template[:-1], "\n") if chat_template.endswith("\n") else (chat_template, "")
    added = f"{{{{ {_literal(turns.before_answer)} if add_generation_prompt else '' }}}}"
    return f"{cut}{_TAIL}{added}{newline}"


def without_rewards(chat_template: str) -> str:
    """Return the chat template of the base model, with everything removed that irlhf adds."""
    base = chat_template.split(_END, 1)[1] if has_rewards(chat_template) else chat_template
    base, tail, added = base.partition(_TAIL)
    return base + ("\n" if tail and added.endswith("\n") else "")


def knows_developers(chat_template: str) -> bool:
    """Return whether a chat template knows the role `developer`. For others, irlhf writes `system`."""
    return "developer" in chat_template


def has_rewards(chat_template: str) -> bool:
    """Return whether a chat template accepts target rewards."""
    return chat_template.startswith(_BEGIN) and _END in chat_template


def keywords(names: Sequence[str], base: str, tokenizer: Any) -> list[str]:
    """Return the rewards that can be requested as arguments of their own; others only in `rewards`.

    Raises UnsupportedTemplate.
    """
    try:
        used = jinja2.meta.find_undeclared_variables(_JINJA.parse(base))
    except jinja2.TemplateError as error:
        raise UnsupportedTemplate(f"the base's chat template cannot be parsed ({error})") from error
    if _ALL in used:
        raise UnsupportedTemplate(f"the base's chat template already uses a variable named {_ALL}")
    reserved = _RESERVED | used | set(signature(tokenizer.apply_chat_template).parameters)
    return [name for name in names if name not in reserved and _is_variable(name)]


def _is_variable(name: str) -> bool:
    if not name.isidentifier() or name.startswith(_OWN) or name.endswith(("_token", "_tokens")):
        return False  # tokenizers pass their special tokens under such names
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
    """Return the texts before and after the value in each line, by name and kind. Raises UnsupportedTemplate."""
    values = {template.spelling(number) for number in _PROBES}
    lines: dict[str, dict[str, tuple[str, str]]] = {}
    for name in names:
        lines[name] = {str(kind): ends for kind, ends in template.ends(name).items()}
        for kind, value in product(template.kinds, values):
            before, behind = lines[name].get(kind, ("", ""))
            if before + value + behind != template.reward_line(name, value, kind):
                raise UnsupportedTemplate(f"its {kind} does not contain the value of {name} exactly once, unchanged")
    return lines


def _blocks(template: Template, names: Sequence[str]) -> list[list[str]]:
    """Return the texts before, between and after one line, two lines, and so on. Raises UnsupportedTemplate."""
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
                raise UnsupportedTemplate("its block changes the lines instead of adding fixed texts around them")
        blocks.append(pieces)
    return blocks


def put(policy: Policy, name: str, wish: RequestedValue) -> RequestedValue:
    """Return the target that the chat template writes into the prompt for a requested target."""
    if isinstance(wish, Bound):
        return wish._replace(number=policy.shown(name, wish.number))
    reach = _reach(policy).get(name)
    return policy.shown(name, reach(wish) if reach else wish)


def _gaps(policy: Policy, name: str) -> list[tuple[Rim, Rim]]:
    """Return the intervals between numbers of training rows that contain spellings without a training row."""
    spelling, known = policy.template.spelling, policy.known(name)
    if not known:
        return []
    same_spelling = [list(numbers) for _, numbers in groupby(known, spelling)]
    rims = [
        [(spelling.centre(number), number, spelling(number)) for number in (numbers[0], numbers[-1])]
        for numbers in same_spelling
    ]
    gaps = [(below[1], above[0]) for below, above in pairwise(rims)]
    between = [gap for gap in gaps if spelling((gap[0][0] + gap[1][0]) / 2) not in (gap[0][2], gap[1][2])]
    first, last = rims[0][0], rims[-1][1]
    return [((-1.0, *first[1:]), first), *between, (last, (2.0, *last[1:]))]


def _reach(policy: Policy) -> Mapping[str, Reach]:
    """Return the calibration of each reward, if it was measured with the default decoding of a server."""
    measured = policy.calibration
    if measured is None or any(measured.decoding.get(name, number) != number for name, number in _SERVED.items()):
        return {}
    return measured.reach


@cache
def folds_of(openings: tuple[str, ...]) -> Folds:
    """Return the foldings of the characters that could be part of a reward line.

    Other characters changed by `folded` are in no opening, or rewards.jinja recognizes them by their category.
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
    """Return whether a character folds to list markers (punctuation or digits) and is not one itself."""
    marks = all(sign.isdecimal() or not sign.isalnum() for sign in seen)
    ends_a_number = seen.startswith((".", ")"))
    return marks and (character.isalnum() or ends_a_number or "\\" in seen or any(sign.isdecimal() for sign in seen))


@cache
def _folding() -> dict[str, str]:
    """Return the foldings of all characters that `folded` changes, except those invisible to rewards.jinja."""
    folding = {}
    for code in (*range(0xD800), *range(0xE000, 0x30000)):
        character = chr(code)
        # CJK planes do not fold; skipping them saves time.
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
    """Return whether rewards.jinja treats a character as invisible: spaces, controls and combining marks."""
    mark = f"a{character}".isidentifier() and not character.isalnum()
    return character.isspace() or not character.isprintable() or mark


def _literal(value: object) -> str:
    """Return a constant as a Jinja literal. In strings, unusual characters are written as escapes."""
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
