"""OpenAssistant's message trees, as one row a tree or as one row a message.

A reply of rank 0 is the best of its siblings.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example, Message, keys_of
from irlhf.data.formats.base import Format, Rejected, Row, has_keys
from irlhf.data.formats.helpers import Candidate, examples_of, labels_by_score, scores_of_ranks, tie_note
from irlhf.io.jsonl import DEPTH_LIMIT

_ROLES = {"prompter": "user", "assistant": "assistant"}
_USED = ("text", "role", "replies", "parent_id", "message_id")
_TREE = "message_tree_id"
_LEVELS = DEPTH_LIMIT // 2  # a message and its list of replies are two levels of nesting
_ROWS = "rows"  # the key of a gathered row that lists the messages of a tree
_BECOMES = (
    "one row for every reply of the assistant, with the path to it; rank 0 is chosen, its siblings are rejected;"
    " rank, labels.NAME and detoxify.NAME kept"
)


def _is_tree(fields: dict[str, Any]) -> bool:
    prompt = fields.get("prompt")
    return _TREE in fields and isinstance(prompt, dict) and "text" in prompt


def _read_tree(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield every reply of the assistant with the path to it as the prompt. Deleted messages are rejected."""
    root = row.fields.get("prompt")
    if not isinstance(root, dict):
        raise DataError(f"{row.where}: 'prompt' is not a message with replies")
    rest = Row(row.where, {name: value for name, value in row.fields.items() if name != "prompt"})
    waiting: list[tuple[dict[str, Any], list[Message]]] = [(root, [])]
    count = 0
    while waiting:
        node, before = waiting.pop()
        path = [*before, _message(row, node)]
        replies = node.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
            raise DataError(f"{row.where}: 'replies' is not a list of messages")
        present = [reply for reply in replies if reply.get("deleted") is not True]
        if len(present) < len(replies):
            count += 1
            yield Rejected("a message was deleted, so its replies are rejected too", {**row.fields, "prompt": node})
        for example in _siblings(rest, source, path, parent=node, replies=present):
            count += 1
            yield example
        waiting += [(reply, path) for reply in reversed(present)]
    if not count:
        yield Rejected("the tree has no answer of the assistant", row.fields)


def _message(row: Row, node: dict[str, Any]) -> Message:
    role, text = node.get("role"), node.get("text")
    named = isinstance(node.get("message_id"), str)
    if not named or not isinstance(role, str) or role not in _ROLES or not isinstance(text, str):
        needed = f"message_id, text and a role of {', '.join(_ROLES)}"
        raise DataError(f"{row.where}: a message of the tree must have {needed} (its keys: {keys_of(node)})")
    return {"role": _ROLES[role], "content": text}


def _siblings(
    row: Row, source: str, path: list[Message], *, parent: Mapping[str, Any], replies: Sequence[dict[str, Any]]
) -> Iterator[Example | Rejected]:
    """Yield the assistant's replies to one message, labelled by rank."""
    answers = [reply for reply in replies if reply.get("role") == "assistant"]
    scores = scores_of_ranks(reply.get("rank") for reply in answers)
    for reply, label in zip(answers, labels_by_score(scores), strict=True):
        candidate = Candidate(path, _message(row, reply)["content"], label, _extra(reply), tie_note(scores))
        fields = {**row.fields, "id": reply["message_id"]}
        yield from examples_of(Row(row.where, fields), source, [candidate], (), parent["message_id"])


def _extra(reply: dict[str, Any]) -> dict[str, Any]:
    extra = {name: value for name, value in reply.items() if name not in _USED}
    return {**extra, "labels": _label_numbers(reply["labels"])} if "labels" in reply else extra


def _label_numbers(labels: object) -> object:
    """Return labels as numbers by name. Flat files have parallel lists of names and values, trees have objects."""
    if not isinstance(labels, dict):
        return labels
    names, values = labels.get("name"), labels.get("value")
    if isinstance(names, list) and isinstance(values, list):
        return {str(name): value for name, value in zip(names, values, strict=False)}
    return {
        name: label["value"] if isinstance(label, dict) and "value" in label else label
        for name, label in labels.items()
    }


def _gather(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield one row for the messages of each tree. Only one tree is in memory at a time."""
    for _, group in groupby(rows, _tree_id):
        tree = list(group)
        yield Row(tree[0].where, {_ROWS: [row.fields for row in tree]})


def _tree_id(row: Row) -> str:
    """Return the tree of a message; a row without one is a tree by itself."""
    tree = row.fields.get(_TREE)
    return f"{row.where if tree is None else tree}"


def _read_messages(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the replies of a gathered tree. A message whose parent does not come before it is rejected."""
    roots: list[dict[str, Any]] = []
    nodes: dict[str, dict[str, Any]] = {}
    levels: dict[str | None, int] = {None: 0}
    for fields in row.fields.get(_ROWS, [row.fields]):
        node = {name: value for name, value in fields.items() if name not in (_TREE, "tree_state")} | {"replies": []}
        name, parent = fields.get("message_id"), fields.get("parent_id")
        if not isinstance(name, str) or name in nodes:
            raise DataError(f"{row.where}: a message of the tree has no 'message_id', or that of another message")
        if parent is not None and (not isinstance(parent, str) or parent not in nodes):
            yield Rejected("the parent of this message does not come before it in the tree", fields)
            continue
        levels[name] = levels[parent] + 1
        if levels[name] > _LEVELS:
            yield Rejected(f"more than {_LEVELS} messages lead to this one", fields)
            continue
        nodes[name] = node
        if parent is None:
            roots.append({**{key: fields[key] for key in (_TREE, "tree_state") if key in fields}, "prompt": node})
        else:
            nodes[parent]["replies"].append(node)
    for root in roots:
        yield from _read_tree(Row(row.where, root), source)


OASST_TREES = Format(
    "oasst-trees",
    fields='"message_tree_id", "prompt" of text and replies',
    becomes=_BECOMES,
    matches=_is_tree,
    read=_read_tree,
)
OASST = Format(
    "oasst",
    fields='"message_id", "message_tree_id", "text", "role", and parent_id; messages of a tree follow each other',
    becomes=_BECOMES,
    matches=has_keys("message_id", _TREE, "text", "role"),
    read=_read_messages,
    gather=_gather,
)
