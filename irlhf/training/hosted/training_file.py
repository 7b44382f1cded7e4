"""The training file that is handed to a host, checked as the host would, before anything is sent."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Message, dumps
from irlhf.io.files import read_rows, whole_file
from irlhf.openai_api.providers import Provider
from irlhf.training.hosted.task import HostedData, Row, conversations

TRAINING, VALIDATING = "train.jsonl", "validation.jsonl"
LEFT_OUT = "left out: longer than the context"
SHARED = "validation rows left out: trained on as well"
EARLIER = "rows with earlier answers"
_CHARACTERS = 4  # a token, in English; other scripts have fewer
_FRAME = 4  # tokens around a message
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")  # a host fails the whole job for one


@dataclass(frozen=True)
class TrainingFile:
    """The files as they were written."""

    training: Path
    validation: Path | None
    tokens: int  # of the training file, estimated
    counts: Counter[str]


def write_training_file(data: HostedData, folder: Path, context: int, host: Provider) -> TrainingFile:
    """Write the files into a folder. Raises DataError for rows that would fail the job."""
    counts: Counter[str] = Counter()
    try:
        lines = [*_lines(data.learnt, context, host, counts)]
        validation = [line for line, _ in _lines(data.held_out, context, host, Counter())]
    except _Unfit as unfit:
        raise DataError(f"{_location(data.source, unfit.name)}: {unfit}") from unfit
    tokens = sum(size for _, size in lines)
    if len(lines) < host.rows:
        raise DataError(f"{len(lines)} training rows, and the host takes no fewer than {host.rows}; give it more")
    known = {hashlib.sha256(line).digest() for line, _ in lines}
    fresh = [line for line in validation if hashlib.sha256(line).digest() not in known]
    counts[SHARED] = len(validation) - len(fresh)
    counts["training file"], counts["validation file"] = len(lines), len(fresh)
    _write(folder / TRAINING, [line for line, _ in lines])
    if fresh:
        _write(folder / VALIDATING, fresh)
    return TrainingFile(folder / TRAINING, folder / VALIDATING if fresh else None, tokens, +counts)


class _Unfit(Exception):
    """Rows that no host takes. `name` is the id of the first."""

    def __init__(self, names: Sequence[str], problem: str) -> None:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        super().__init__(f"row '{names[0]}'{more}: {problem}")
        self.name = names[0]


def _location(source: Path, name: str) -> str:
    """Return where the row of an id stands, which nobody kept while all was well."""
    return next((str(where) for where, row in read_rows(source) if str(row.get("id")) == name), str(source))


def _lines(rows: Iterable[Row], context: int, host: Provider, counts: Counter[str]) -> Iterator[tuple[bytes, int]]:
    """Yield each line that fits, and its tokens; a row that no host takes stops it, with the number of all like it."""
    wrong: dict[str, list[str]] = {}
    for name, line in rows:
        if problem := next(filter(None, map(_problem, conversations(line))), ""):
            wrong.setdefault(problem, []).append(name)
            continue
        sizes = [estimate(messages) for messages in conversations(line)]
        if max(sizes) > context:
            counts[LEFT_OUT] += 1
            continue
        if "messages" in line:
            counts[EARLIER] += any(message.get("role") == "assistant" for message in line["messages"][:-1])
        yield dumps(_weighed(line) if host.weights and "messages" in line else line), sum(sizes)
    for problem, names in wrong.items():
        raise _Unfit(names, problem)


def _weighed(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line that says that earlier answers are not to be learnt, as training here does not learn them."""
    messages = line["messages"]
    earlier = [{**message, "weight": 0} if message.get("role") == "assistant" else message for message in messages[:-1]]
    return {"messages": [*earlier, messages[-1]]}


def estimate(messages: list[Message]) -> int:
    """Return about how many tokens messages are: no host tells its tokenizer."""
    texts = (message.get("content") or json.dumps(message.get("tool_calls")) for message in messages)
    return sum(_FRAME + len(str(text)) // _CHARACTERS for text in texts)


def _problem(messages: list[Message]) -> str:
    """Return what a host would have against a row."""
    last = messages[-1]
    if last.get("role") != "assistant":
        return f"its completion ends with a message of {last.get('role')}, and a host learns the assistant's"
    if not str(last.get("content") or "").strip() and not last.get("tool_calls"):
        return "its completion is empty; leave it out"
    for message in messages:
        if token := _SPECIAL.search(str(message.get("content") or "")):
            return f"{token[0]} in it looks like a special token, for which hosts fail the whole job; mend the text"
    return ""


def _write(path: Path, lines: list[bytes]) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(b"".join(lines))
