"""OpenAssistant's trees: a prompt, its replies, their replies, each rank 0 where it is the best of its siblings."""

from collections.abc import Iterator
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example, Message, keys_of
from irlhf.data.formats.base import Rejected, Row
from irlhf.data.formats.helpers import Candidate, answers, kept, number, preferred, tied

FIELDS = '"message_tree_id", "prompt" of text and replies'
BECOMES = (
    "one row for every reply of the assistant, with the path to it; rank 0 is chosen, its siblings rejected;"
    " rank, labels.NAME and detoxify.NAME kept"
)

_ROLES = {"prompter": "user", "assistant": "assistant"}
_USED = ("text", "role", "replies", "parent_id", "message_id")


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row holds a tree."""
    prompt = row.get("prompt")
    return "message_tree_id" in row and isinstance(prompt, dict) and "text" in prompt


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every reply of the assistant with the path that leads to it."""
    root = row.fields.get("prompt")
    if not isinstance(root, dict):
        raise DataError(f"{row.where}: 'prompt' is no message with replies")
    rest = kept(row, {"prompt"})
    waiting: list[tuple[dict[str, Any], list[Message]]] = [(root, [])]
    examples = 0
    while waiting:
        node, before = waiting.pop()
        path = [*before, message(row, node)]
        replies = node.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(example, dict) for example in replies):
            raise DataError(f"{row.where}: 'replies' is no list of messages")
        whole = [example for example in replies if example.get("deleted") is not True]
        if len(whole) < len(replies):
            examples += 1
            yield Rejected("a message was deleted, and what follows it", {**row.fields, "prompt": node})
        for example in siblings(Row(row.where, rest), source, path, (node, whole)):
            examples += 1
            yield example
        waiting += [(example, path) for example in reversed(whole)]
    if not examples:
        yield Rejected("a tree without an answer of the assistant", row.fields)


def message(row: Row, node: dict[str, Any]) -> Message:
    """Return one node as a message."""
    role, words = node.get("role"), node.get("text")
    named = isinstance(node.get("message_id"), str)
    if not named or not isinstance(role, str) or role not in _ROLES or not isinstance(words, str):
        lacking = f"message_id, text and a role of {', '.join(_ROLES)}"
        raise DataError(f"{row.where}: a message of the tree must have {lacking} (its keys: {keys_of(node)})")
    return {"role": _ROLES[role], "content": words}


def siblings(
    row: Row, source: str, path: list[Message], family: tuple[dict[str, Any], list[dict[str, Any]]]
) -> Iterator[Example | Rejected]:
    """Yield the assistant's replies to one message, labelled by rank."""
    parent, replies = family
    spoken = [reply for reply in replies if reply.get("role") == "assistant"]
    ranks = [None if (rank := number(reply.get("rank"))) is None else -rank for reply in spoken]
    noted = tied(ranks)
    for reply, label in zip(spoken, preferred(ranks), strict=True):
        side = Candidate(path, message(row, reply)["content"], label, _own(reply), noted)
        given = {"id": reply["message_id"], "group": parent["message_id"]}
        yield from answers(Row(row.where, {**row.fields, **given}), source, [side], ())


def _own(reply: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in reply.items() if name not in _USED}
    return {**own, "labels": _numbers(reply["labels"])} if "labels" in reply else own


def _numbers(labels: object) -> object:
    """Return labels as one number a name; flat files keep them in parallel lists, trees in objects of a value."""
    if not isinstance(labels, dict):
        return labels
    names, values = labels.get("name"), labels.get("value")
    if isinstance(names, list) and isinstance(values, list):
        return {str(name): value for name, value in zip(names, values, strict=False)}
    return {
        name: label["value"] if isinstance(label, dict) and "value" in label else label
        for name, label in labels.items()
    }
