"""Alpaca's instructions, and LLaMA-Factory's with a system message, a history, a ranking or a KTO label."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Content, Example, Message
from irlhf.data.formats.base import Format, Rejected, Row
from irlhf.data.formats.helpers import Candidate, examples_of, label_of, text
from irlhf.data.formats.pairwise import pair

_PROMPT_COLUMNS = ("instruction", "input", "history")


def _matches(fields: dict[str, Any]) -> bool:
    return "instruction" in fields and ("output" in fields or {CHOSEN, REJECTED} <= fields.keys())


def _read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the output, or both sides of a ranking."""
    prompt = _prompt(row)
    rest = {name: value for name, value in row.fields.items() if name not in _PROMPT_COLUMNS}
    if CHOSEN in rest and REJECTED in rest:
        yield from pair(Row(row.where, {**rest, "prompt": prompt}), source)
        return
    candidate = Candidate(prompt, text(row, "output"), label_of(rest.get("kto_tag")))
    yield from examples_of(Row(row.where, rest), source, [candidate], {"output"})


def _prompt(row: Row) -> Content:
    instruction = text(row, "instruction")
    given = text(row, "input") if row.fields.get("input") is not None else ""
    question = f"{instruction}\n{given}" if given and instruction else instruction or given
    before = _history(row)
    return [*before, {"role": "user", "content": question}] if before else question


def _history(row: Row) -> list[Message]:
    turns: list[Message] = []
    history = row.fields.get("history") or []
    for turn in history if isinstance(history, list) else [history]:
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            raise DataError(f"{row.where}: 'history' is not a list of pairs of a question and an answer")
        turns += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    return turns


ALPACA = Format(
    "alpaca",
    fields='"instruction" and "output" (or chosen and rejected), optionally input, system, history, kto_tag',
    becomes="one row, the input on a line below the instruction; with chosen and rejected two rows per pair",
    matches=_matches,
    read=_read,
)
