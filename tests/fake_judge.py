"""What servers that judge say, in the shapes of their protocols, for scripts of tests/fake_api.py."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fake_api import Asked, Reply
from helpers import Outcome, Row, call, read, write

KEY = "sk-canary-7f3a9c"
RUBRIC = "Judge how kind the reply is: {9} is kind."


def place(token: str, listed: Mapping[str, float]) -> Row:
    """Return a token of an answer with the probabilities of what might have stood there."""
    told = [{"token": one, "logprob": math.log(share), "bytes": None} for one, share in listed.items()]
    return {"token": token, "logprob": -0.1, "bytes": None, "top_logprobs": told}


def chat(text: str | None, *places: Row, **changes: Any) -> Row:
    """Return one answer of a chat model, with logprobs where places are given."""
    message = {"role": "assistant", "content": text, "refusal": changes.pop("refusal", None)}
    logprobs = {"content": list(places), "refusal": None} if places else None
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop", **changes}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": {"total_tokens": 9}}


def several(*texts: str) -> Row:
    """Return several answers of a chat model in one."""
    return {**chat(""), "choices": [one for text in texts for one in chat(text)["choices"]]}


def sure(digit: int) -> Row:
    """Return the answer of a judge that has no doubt."""
    return chat(str(digit), place(str(digit), {str(digit): 1.0}))


def shown(asked: Asked) -> Any:
    """Return what a judge was shown, as it reads it."""
    return json.loads(asked.body["messages"][-1]["content"])


def number_of(asked: Asked) -> int:
    """Return which of `toolbox.example`'s rows a request is about, whichever scorer asks."""
    said = re.findall(r"Answer (\d+)\.", json.dumps(asked.body))
    return int(said[-1])


def scored(rows: list[Row], *more: object, output: str = "out.jsonl", **spec: Any) -> Outcome:
    """Score rows with one reward called `a`."""
    return scored_all(rows, {"a": spec}, *more, output=output)


def scored_all(rows: list[Row], rewards: Any, *more: object, output: str = "out.jsonl") -> Outcome:
    """Score rows with these rewards."""
    write(Path("in.jsonl"), rows)
    Path("rewards.yaml").write_text(json.dumps({"rewards": rewards}))
    Path("rubric.md").write_text(RUBRIC) if not Path("rubric.md").exists() else None
    return call("score", "in.jsonl", "-r", "rewards.yaml", "-o", output, "-q", *more)


def rewards(output: str = "out.jsonl") -> list[float]:
    """Return the reward `a` of each row."""
    return [row["rewards"]["a"] for row in read(Path(output))]


def reasons(output: str = "out.jsonl") -> dict[str, str]:
    """Return why rows were set aside, by their ids."""
    return {row["where"]: row["reason"] for row in read(Path(output + ".rejected.jsonl"))}


def answers(*bodies: Any) -> list[Reply]:
    """Return a script of answers."""
    return [Reply(body) for body in bodies]
