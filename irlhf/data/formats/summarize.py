"""OpenAI's summarize_from_feedback: a post, two summaries, and the one that a person chose."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Format, Rejected, Row
from irlhf.data.formats.helpers import Candidate, columns, examples_of, objects, text

_PROMPT_PARTS = {"subreddit": "SUBREDDIT: r/", "title": "TITLE: ", "post": "POST: ", "article": "ARTICLE: "}


def _matches(fields: dict[str, Any]) -> bool:
    return isinstance(fields.get("info"), dict) and "summaries" in fields and "choice" in fields


def _read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both summaries, with the prompt of Stiennon et al. 2020 (arXiv 2009.01325)."""
    info, given, choice = row.fields.get("info"), objects(row, "summaries"), row.fields.get("choice")
    if not isinstance(info, dict) or not isinstance(info.get("post") or info.get("article"), str):
        raise DataError(f"{row.where}: no text in 'info.post' or 'info.article' (columns: {columns(row)})")
    if choice not in range(len(given)) or isinstance(choice, bool):
        raise DataError(f"{row.where}: 'choice' {choice!r:.40} is not the position of one of {len(given)} summaries")
    texts = {title: info.get(name) for name, title in _PROMPT_PARTS.items()}
    prompt = "\n".join(
        [*(f"{title}{part}" for title, part in texts.items() if isinstance(part, str) and part), "TL;DR:"]
    )
    candidates = [
        Candidate(prompt, text(Row(row.where, summary), "text"), CHOSEN if i == choice else REJECTED, _extra(summary))
        for i, summary in enumerate(given)
    ]
    yield from examples_of(row, source, candidates, {"summaries"})


def _extra(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the other columns of a summary. Its `policy` becomes `model`, because irlhf has a `policy` of its own."""
    rest = {name: value for name, value in summary.items() if name not in ("text", "policy")}
    return {**rest, "model": summary["policy"]} if "policy" in summary else rest


SUMMARIZE = Format(
    "summarize",
    fields='"info" of a post, "summaries" of text, "choice" that is 0 or 1',
    becomes="two rows per pair, labelled; the prompt is SUBREDDIT, TITLE and POST, and ends with TL;DR:",
    matches=_matches,
    read=_read,
)
