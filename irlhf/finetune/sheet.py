"""The training file that is handed to a host, checked as the host would, before anything is sent."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from irlhf.engines.hosts import HostCard
from irlhf.errors import DataError
from irlhf.files import whole_file
from irlhf.finetune.rows import VALIDATION_ROWS, TrainingSet
from irlhf.policy import Policy
from irlhf.records import Example, Message, dumps

if TYPE_CHECKING:
    from irlhf.finetune import FinetuneSettings

TRAINING, VALIDATING = "train.jsonl", "validation.jsonl"
LEFT_OUT = "left out: longer than the context"
SHARED = "validation rows left out: trained on as well"
EARLIER = "rows with earlier answers"
_CHARACTERS = 4  # a token, in English; other scripts have fewer
_FRAME = 4  # tokens around a message
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")  # a host fails the whole job for one


@dataclass(frozen=True)
class Sheet:
    """The files as they were written."""

    training: Path
    validation: Path | None
    tokens: int  # of the training file, estimated
    counts: Counter[str]


def write_sheet(
    training: TrainingSet, policy: Policy, folder: Path, settings: "FinetuneSettings", host: HostCard
) -> Sheet:
    """Write the files into a folder. Raises DataError for rows that would fail the job."""
    counts: Counter[str] = Counter()
    learnt = training.messages(policy, training.learnt(policy, settings), settings)
    lines = [*_lines(learnt, policy.context, host, counts)]
    tokens = sum(size for _, size in lines)
    if len(lines) < host.rows:
        raise DataError(f"{len(lines)} training rows, and the host takes no fewer than {host.rows}; score more of them")
    known = {hashlib.sha256(line).digest() for line, _ in lines}
    held = training.messages(policy, training.validation[:VALIDATION_ROWS], settings)
    validation = [line for line, _ in _lines(held, policy.context, host, Counter())]
    fresh = [line for line in validation if hashlib.sha256(line).digest() not in known]
    counts[SHARED] = len(validation) - len(fresh)
    counts["training file"], counts["validation file"] = len(lines), len(fresh)
    _write(folder / TRAINING, [line for line, _ in lines])
    if fresh:
        _write(folder / VALIDATING, fresh)
    return Sheet(folder / TRAINING, folder / VALIDATING if fresh else None, tokens, +counts)


def _lines(
    rows: Iterable[tuple[Example, list[Message]]], context: int, host: HostCard, counts: Counter[str]
) -> Iterator[tuple[bytes, int]]:
    """Yield each line that fits, and its tokens; a row that no host takes stops it, with the number of all like it."""
    wrong: dict[str, list[str]] = {}
    for example, messages in rows:
        if problem := _problem(messages):
            wrong.setdefault(problem, []).append(example.id)
            continue
        size = estimate(messages)
        if size > context:
            counts[LEFT_OUT] += 1
            continue
        counts[EARLIER] += any(one.get("role") == "assistant" for one in messages[:-1])
        yield dumps({"messages": _weighed(messages) if host.weights else messages}), size
    for problem, ids in wrong.items():
        more = f" and {len(ids) - 1:,} more" if len(ids) > 1 else ""
        raise DataError(f"row '{ids[0]}'{more}: {problem}")


def _weighed(messages: list[Message]) -> list[Message]:
    """Return messages that say that earlier answers are not to be learnt, as training here does not learn them."""
    earlier = [{**one, "weight": 0} if one.get("role") == "assistant" else one for one in messages[:-1]]
    return [*earlier, messages[-1]]


def estimate(messages: list[Message]) -> int:
    """Return about how many tokens messages are: no host tells its tokenizer."""
    texts = (one.get("content") or json.dumps(one.get("tool_calls")) for one in messages)
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
