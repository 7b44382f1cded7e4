"""OpenAssistant's flat files: one row a message, the messages of a tree one after another, parents first."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from irlhf.core.errors import DataError
from irlhf.core.example import Example
from irlhf.data.formats import oasst_trees
from irlhf.data.formats.base import Rejected, Row
from irlhf.io.jsonl import DEPTH_LIMIT

FIELDS = '"message_id", "message_tree_id", "text", "role", and parent_id'
BECOMES = oasst_trees.BECOMES

_TREE = "message_tree_id"
_LEVELS = DEPTH_LIMIT // 2  # a message and its list of replies are two levels of an object
_ROWS = "rows"  # of one tree, in the row that `gathered` makes of them


def matches(row: dict[str, Any]) -> bool:
    """Return whether the row is a message of a tree."""
    return {"message_id", _TREE, "text", "role"} <= row.keys()


def gathered(rows: Iterator[Row]) -> Iterator[Row]:
    """Make one row of the messages of each tree; one tree is in memory at a time."""
    for _, family in groupby(rows, _tree):
        tree = list(family)
        yield Row(tree[0].where, {_ROWS: [row.fields for row in tree]})


def read(row: Row, source: str) -> Iterator[Example | Rejected]:
    """Yield the replies of the tree. A message whose parent does not stand before it is set aside."""
    roots: list[dict[str, Any]] = []
    nodes: dict[str, dict[str, Any]] = {}
    levels: dict[str | None, int] = {None: 0}
    for fields in row.fields.get(_ROWS, [row.fields]):
        node = {name: value for name, value in fields.items() if name not in (_TREE, "tree_state")} | {"replies": []}
        name, parent = fields.get("message_id"), fields.get("parent_id")
        if not isinstance(name, str) or name in nodes:
            raise DataError(f"{row.where}: a message of the tree has no 'message_id' of its own")
        if parent is not None and (not isinstance(parent, str) or parent not in nodes):
            yield Rejected("the message that this one replies to does not stand before it in its tree", fields)
            continue
        levels[name] = levels[parent] + 1
        if levels[name] > _LEVELS:
            yield Rejected(f"over {_LEVELS} messages lead to this one", fields)
            continue
        nodes[name] = node
        if parent is None:
            roots.append({**{key: fields[key] for key in (_TREE, "tree_state") if key in fields}, "prompt": node})
        else:
            nodes[parent]["replies"].append(node)
    for root in roots:
        yield from oasst_trees.read(Row(row.where, root), source)


def _tree(row: Row) -> str:
    """Return what the rows of one tree share; a row without a tree stands alone."""
    tree = row.fields.get(_TREE)
    return f"{row.where if tree is None else tree}"
