"""Write the training file of a hosted job, and check it with the rules of the provider before uploading."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Message, dumps
from irlhf.core.tool_calls import TOOLS
from irlhf.io.files import read_rows, whole_file
from irlhf.openai_api.providers import Provider
from irlhf.openai_api.token_count import TokenCounter
from irlhf.training.hosted.task import HostedData, Row, conversations

TRAINING, VALIDATING = "train.jsonl", "validation.jsonl"
LEFT_OUT = "left out: longer than the context"
SHARED = "validation rows left out: trained on as well"
EARLIER = "rows with earlier answers"
_FRAME = 4  # tokens around a message
_SHOWN = ("content", "tool_calls")  # keys of a message that the model reads
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")  # one of these fails the whole job


@dataclass(frozen=True)
class TrainingFile:
    """The written files and their counts."""

    training: Path
    validation: Path | None
    tokens: int  # of the training file, estimated
    counts: Counter[str]


def write_training_file(
    data: HostedData, folder: Path, context: int, host: Provider, count: TokenCounter
) -> TrainingFile:
    """Write the files into a folder. Raises DataError for rows that would fail the job."""
    counts: Counter[str] = Counter()
    try:
        lines = [*_lines(data.learnt, context, host, count, counts)]
        validation = [line for line, _ in _lines(data.held_out, context, host, count, Counter())]
    except _InvalidRows as invalid:
        raise DataError(f"{_location(data.source, invalid.name)}: {invalid}") from invalid
    tokens = sum(size for _, size in lines)
    if len(lines) < host.rows:
        raise DataError(f"{len(lines)} training rows, but the provider needs at least {host.rows}; add rows")
    known = {hashlib.sha256(line).digest() for line, _ in lines}
    new = [line for line in validation if hashlib.sha256(line).digest() not in known]
    counts[SHARED] = len(validation) - len(new)
    counts["training file"], counts["validation file"] = len(lines), len(new)
    _write(folder / TRAINING, [line for line, _ in lines])
    if new:
        _write(folder / VALIDATING, new)
    return TrainingFile(folder / TRAINING, folder / VALIDATING if new else None, tokens, +counts)


class _InvalidRows(Exception):
    """Rows that providers reject. `name` is the id of the first."""

    def __init__(self, names: Sequence[str], problem: str) -> None:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        super().__init__(f"row '{names[0]}'{more}: {problem}")
        self.name = names[0]


def _location(source: Path, name: str) -> str:
    """Return the location (path:line) of the row with an id; reads the file again."""
    return next((str(where) for where, row in read_rows(source) if str(row.get("id")) == name), str(source))


def _lines(
    rows: Iterable[Row], context: int, host: Provider, count: TokenCounter, counts: Counter[str]
) -> Iterator[tuple[bytes, int]]:
    """Yield each line that fits, and its estimated tokens. Raises _InvalidRows after the last row."""
    invalid_rows: dict[str, list[str]] = {}
    for name, line in rows:
        if problem := next(filter(None, map(_problem, conversations(line))), ""):
            invalid_rows.setdefault(problem, []).append(name)
            continue
        sizes = estimates(line, count)
        if max(sizes) > context:
            counts[LEFT_OUT] += 1
            continue
        if "messages" in line:
            counts[EARLIER] += any(message.get("role") == "assistant" for message in line["messages"][:-1])
        yield dumps(_with_weights(line) if host.weights and "messages" in line else line), sum(sizes)
    for problem, names in invalid_rows.items():
        raise _InvalidRows(names, problem)


def _with_weights(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line with weight 0 for earlier answers, which local training does not train on either."""
    messages = line["messages"]
    earlier = [{**message, "weight": 0} if message.get("role") == "assistant" else message for message in messages[:-1]]
    return {**line, "messages": [*earlier, messages[-1]]}


def estimates(line: Mapping[str, Any], count: TokenCounter) -> list[int]:
    """Return the approximate number of tokens of each conversation of a line."""
    tools = count(_text(line.get(TOOLS) or line.get("input", {}).get(TOOLS)))
    return [
        tools + sum(_FRAME + sum(count(_text(message.get(key))) for key in _SHOWN) for message in messages)
        for messages in conversations(line)
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value).decode() if value else ""


def _problem(messages: list[Message]) -> str:
    """Return the reason why a provider would reject a row, or ""."""
    last = messages[-1]
    if last.get("role") != "assistant":
        return f"its completion ends with a message of {last.get('role')}; it must end with one of the assistant"
    if not str(last.get("content") or "").strip() and not last.get("tool_calls"):
        return "its completion is empty; remove the row"
    for message in messages:
        if token := _SPECIAL.search(str(message.get("content") or "")):
            return f"{token[0]} looks like a special token, which fails the whole job; change the text"
    return ""


def _write(path: Path, lines: list[bytes]) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(b"".join(lines))
