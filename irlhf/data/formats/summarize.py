"""OpenAI's summarize_from_feedback: a post, two summaries of it, and which one a person chose."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import CHOSEN, REJECTED, Example
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, columns, objects, text

FIELDS = '"info" of a post, "summaries" of text, "choice" that is 0 or 1'
BECOMES = "two rows a pair, labelled; the prompt is SUBREDDIT, TITLE and POST, and ends with TL;DR:"

_PARTS = {"subreddit": "SUBREDDIT: r/", "title": "TITLE: ", "post": "POST: ", "article": "ARTICLE: "}


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row compares two summaries."""
    return isinstance(row.get("info"), dict) and "summaries" in row and "choice" in row


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield both summaries."""
    info, given, choice = row.fields.get("info"), objects(row, "summaries"), row.fields.get("choice")
    if not isinstance(info, dict) or not isinstance(info.get("post") or info.get("article"), str):
        raise DataError(f"{row.where}: no text in 'info.post' or 'info.article' (columns: {columns(row)})")
    if choice not in range(len(given)) or isinstance(choice, bool):
        raise DataError(f"{row.where}: 'choice' {choice!r:.40} names none of {len(given)} summaries")
    parts = [f"{title}{info[name]}" for name, title in _PARTS.items() if isinstance(info.get(name), str) and info[name]]
    prompt = "\n".join([*parts, "TL;DR:"])
    sides = [
        Candidate(prompt, text(Row(row.where, summary), "text"), CHOSEN if i == choice else REJECTED, _own(summary))
        for i, summary in enumerate(given)
    ]
    yield from answers(row, source, sides, {"summaries"})


def _own(summary: dict[str, Any]) -> dict[str, Any]:
    """Return what else is said of a summary; the model that wrote it, as `policy` is another thing here."""
    rest = {name: value for name, value in summary.items() if name not in ("text", "policy")}
    return {**rest, "model": summary["policy"]} if "policy" in summary else rest
