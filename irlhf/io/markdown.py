"""Markdown that no name and no text of others can break: the cards of policies, reward models and data."""

import re
from collections.abc import Iterable
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import jinja2

from irlhf.core.console import CONTROL_CHARACTERS
from irlhf.io.files import whole_file

_JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_MARK = "\N{SYMBOL FOR SUBSTITUTE FORM TWO}"  # in place of a control character
# All signs but a hyphen, a point within a number and an underscore within a word could be read as Markdown.
_SIGN = re.compile(r"(?!-|(?<=\d)\.(?=\d)|(?<=[^\W_])_(?=[^\W_]))[^\w\s]|_(?![^\W_])|(?<![^\W_])_")

_NAME = re.compile(r"[\w.,:;{}()/-]+(?: [\w.,:;{}()/-]+)*")


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a page from one of the package's templates, whole or not at all. Raises OutputError."""
    source = (package_files("irlhf") / template).read_text(encoding="utf-8")
    page = _JINJA.from_string(source).render(**values) + "\n"
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def table_row(cells: Iterable[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def escaped(given: str) -> str:
    """Return text that Markdown and HTML show as it is, on one line: signs become character references."""
    clean = " ".join(CONTROL_CHARACTERS.sub(_MARK, given).split())
    return _SIGN.sub(lambda sign: f"&#{ord(sign[0])};", clean)


def code(given: str) -> str:
    """Return a name as code within a line, or escaped where it holds what could end that."""
    return f"`{given}`" if _NAME.fullmatch(given) else escaped(given)


def fenced(given: str, language: str = "text") -> str:
    """Return a block of code that its text cannot leave."""
    clean = CONTROL_CHARACTERS.sub(_MARK, given)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", clean)), default=0))
    return f"{fence}{language}\n{clean}\n{fence}"
