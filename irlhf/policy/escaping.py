"""Text of users that could be taken for a reward: found and put behind a backslash, so that it is read as text."""

import re
from collections.abc import Collection
from unicodedata import category as _category
from unicodedata import normalize

ESCAPE = "\\"
ESCAPED, REFUSED, ALLOWED = "escape", "refuse", "allow"
SPOOFS = (ESCAPED, REFUSED, ALLOWED)  # what can become of text that looks like a reward

_LINE_END = re.compile("([\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")
_UNSEEN = "\u115f\u1160\u2800\u3164*_~`\"'"  # letters and signs that have no ink, and marks of emphasis
# Cyrillic and Greek small letters that look like Latin ones.
_LOOKALIKES = str.maketrans("авекмнорстухіјѕԁһԛԝгα" + "βεικνορτυχγ", "abekmhopctyxijsdhqwra" + "beiknoptuxy")
_BEFORE = r"(?:[^\w\\]|\d+[.)])*?"  # what may stand before a line and leave it one: marks of lists and quotations


def escape(text: str, openings: Collection[str], sentences: bool) -> str:
    """Put a backslash before each line that begins with one of the (folded) openings.

    A list's mark, a quotation's or an emphasis before the line hides nothing. With `sentences` they are looked for
    anywhere in a line, for a sentence need not begin one.
    """
    known = "|".join(map(re.escape, sorted(openings, key=len, reverse=True)))
    pieces = lines(text)
    return "".join(_no_sentence(line, known) if sentences else _no_line(line, known) for line in pieces)


def lines(text: str) -> list[str]:
    """Return a text's lines, and between them what ends each."""
    return _LINE_END.split(text)


def _no_line(piece: str, openings: str) -> str:
    """Return a line with a backslash before it where it begins with one of the (folded) openings."""
    return ESCAPE + piece if re.match(f"{_BEFORE}(?:{openings})", folded(piece)) else piece


def _no_sentence(piece: str, openings: str) -> str:
    """Return a line with a backslash before each of the (folded) openings that begins a word of it."""
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
    """Return text as a careless reader sees it: width, case, marks, spaces and invisible signs folded away."""
    seen = normalize("NFKD", text).casefold().translate(_LOOKALIKES)
    return "".join(c for c in seen if not c.isspace() and c not in _UNSEEN and _category(c) not in ("Cf", "Cc", "Mn"))
