"""Write Markdown pages (model and data cards) in which names and user text are escaped."""

import re
from collections.abc import Iterable
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import jinja2

from irlhf.core.console import CONTROL_CHARACTERS
from irlhf.io.files import whole_file

_JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_MARK = "\N{SYMBOL FOR SUBSTITUTE FORM TWO}"  # replaces a control character
# Every sign could be Markdown, except a hyphen, a point within a number and an underscore within a word.
_SIGN = re.compile(r"(?!-|(?<=\d)\.(?=\d)|(?<=[^\W_])_(?=[^\W_]))[^\w\s]|_(?![^\W_])|(?<![^\W_])_")

_NAME = re.compile(r"[\w.,:;{}()/-]+(?: [\w.,:;{}()/-]+)*")


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template of the package to a file, completely or not at all. Raises OutputError."""
    source = (package_files("irlhf") / template).read_text(encoding="utf-8")
    page = _JINJA.from_string(source).render(**values) + "\n"
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def table_row(cells: Iterable[str]) -> str:
    """Return a table row."""
    return f"| {' | '.join(cells)} |"


def escaped(given: str) -> str:
    """Return text on one line that Markdown and HTML show unchanged: signs become character references."""
    clean = " ".join(CONTROL_CHARACTERS.sub(_MARK, given).split())
    return _SIGN.sub(lambda sign: f"&#{ord(sign[0])};", clean)


def code(given: str) -> str:
    """Return a name as inline code, or escaped if it has characters that could end the code."""
    return f"`{given}`" if _NAME.fullmatch(given) else escaped(given)


def fenced(given: str, language: str = "text") -> str:
    """Return a code block with a fence longer than any run of backticks in the text."""
    clean = CONTROL_CHARACTERS.sub(_MARK, given)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", clean)), default=0))
    return f"{fence}{language}\n{clean}\n{fence}"
