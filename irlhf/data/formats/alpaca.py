"""Alpaca's instructions, and LLaMA-Factory's: with an input, a system message, a history, a ranking or a verdict."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Content, Example, Message
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, text
from irlhf.data.formats.pairwise import pair

FIELDS = '"instruction" and "output" (or chosen and rejected), perhaps input, system, history, kto_tag'
BECOMES = "one row, the input a line below the instruction; with chosen and rejected two rows a pair"

_LIKED = "kto_tag"
_PROMPT = ("instruction", "input", "system", "history")


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds an instruction and what came of it."""
    return "instruction" in row and ("output" in row or {CHOSEN, REJECTED} <= row.keys())


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the output, or both sides of a ranking."""
    prompt = _prompt(row)
    rest = {name: value for name, value in row.fields.items() if name not in _PROMPT}
    if CHOSEN in rest and REJECTED in rest:
        yield from pair(Row(row.where, {**rest, "prompt": prompt}), source)
        return
    liked = rest.get(_LIKED)
    label = (CHOSEN if liked else REJECTED) if isinstance(liked, bool) else ""
    side = Candidate(prompt, text(row, "output"), label)
    yield from answers(Row(row.where, rest), source, [side], {"output"})


def _prompt(row: Row) -> Content:
    instruction = text(row, "instruction")
    given = text(row, "input") if row.fields.get("input") is not None else ""
    question = f"{instruction}\n{given}" if given and instruction else instruction or given
    system = text(row, "system") if row.fields.get("system") is not None else ""
    before = [*([{"role": "system", "content": system}] if system else []), *_history(row)]
    return [*before, {"role": "user", "content": question}] if before else question


def _history(row: Row) -> list[Message]:
    turns: list[Message] = []
    history = row.fields.get("history") or []
    for turn in history if isinstance(history, list) else [history]:
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            raise DataError(f"{row.where}: 'history' is no list of a question and an answer each")
        turns += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    return turns
