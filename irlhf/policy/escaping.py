"""Find user text that imitates a reward line and escape it with a backslash."""

import re
from collections.abc import Collection
from unicodedata import category as _category
from unicodedata import normalize

ESCAPE = "\\"
ESCAPED, REFUSED, ALLOWED = "escape", "refuse", "allow"
SPOOFS = (ESCAPED, REFUSED, ALLOWED)  # what to do with text that looks like a reward line

_LINE_END = re.compile("([\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")
_UNSEEN = "\u115f\u1160\u2800\u3164*_~`\"'"  # invisible characters and marks of emphasis
# Cyrillic and Greek lower-case letters that look like Latin ones.
_LOOKALIKES = str.maketrans("авекмнорстухіјѕԁһԛԝгα" + "βεικνορτυχγ", "abekmhopctyxijsdhqwra" + "beiknoptuxy")
_BEFORE = r"(?:[^\w\\]|\d+[.)])*?"  # ignored before a reward line: list and quotation marks


def escape(text: str, openings: Collection[str], sentences: bool) -> str:
    """Return the text with a backslash before each line that starts with one of the (folded) openings.

    Marks of lists, quotations and emphasis before an opening are ignored. With `sentences`, openings are found anywhere
    in a line, because a sentence need not start one.
    """
    known = "|".join(map(re.escape, sorted(openings, key=len, reverse=True)))
    pieces = lines(text)
    return "".join(_escaped_sentences(line, known) if sentences else _escaped_line(line, known) for line in pieces)


def lines(text: str) -> list[str]:
    """Return the lines of a text, with their line breaks as separate items between them."""
    return _LINE_END.split(text)


def _escaped_line(piece: str, openings: str) -> str:
    """Return a line with a backslash before it if it starts with one of the (folded) openings."""
    return ESCAPE + piece if re.match(f"{_BEFORE}(?:{openings})", folded(piece)) else piece


def _escaped_sentences(piece: str, openings: str) -> str:
    """Return a line with a backslash before each (folded) opening that starts a word."""
    signs = [(sign, position) for position, character in enumerate(piece) for sign in folded(character)]
    starts = [match.start() for match in re.finditer(openings, "".join(sign for sign, _ in signs))]
    places = [signs[start][1] if start else 0 for start in starts]
    words = [
        position
        for position in places
        if not position or not (piece[position - 1].isalnum() or piece[position - 1] == ESCAPE)
    ]
    ends = zip([0, *words], [*words, len(piece)], strict=True)
    return ESCAPE.join(piece[start:end] for start, end in ends)


def folded(text: str) -> str:
    """Return text without differences in width, case, accents, lookalikes, spaces and invisible characters."""
    letters = normalize("NFKD", text).casefold().translate(_LOOKALIKES)
    return "".join(
        c for c in letters if not c.isspace() and c not in _UNSEEN and _category(c) not in ("Cf", "Cc", "Mn")
    )
