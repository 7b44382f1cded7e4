"""Make raw rows uniform before a format reads them.

null values                           removed
a chat stored as text                 parsed: JSON, or Python as pandas and numpy write it
a column `group` that is not irlhf's  renamed to `given_group`: rows are grouped by their prompts
"""

import ast
import json
import re
from collections.abc import Collection
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from typing import Any

from irlhf.core.example import SPLITS, Example
from irlhf.data.formats.base import Row, formats
from irlhf.data.formats.helpers import NOTED, notes
from irlhf.io.jsonl import DEPTH_LIMIT, depth

PARSED = "chat stored as text parsed"
UNPARSED = "text that looks like a chat but cannot be parsed"

# Columns that formats read as a chat, or as a text or a chat.
_CHATS = frozenset(
    {"prompt", "completion", "chosen", "rejected", "messages", "conversations", "conversation", "context", "input"}
    | {"conversation_a", "conversation_b", "preferred_output", "non_preferred_output"}
)
_CHAT_TEXT = re.compile(r"""\s*+(?:\[\s*+)?\{\s*+['"](?:role|from|content|value|messages)['"]\s*+:""")
_BETWEEN = re.compile(r"\}\s*+\{")
_BODIES = ("content", "value", "text", "tool_calls")


def uniform(row: Row, named: Collection[str] = ()) -> Row:
    """Return a raw row without nulls and with parsed chats. `named` are columns that the user named."""
    fields = {name: value for name, value in row.fields.items() if value is not None or name not in _read_columns()}
    if fields.get("group") and "group" not in named and not _is_prepared(fields):
        fields["given_group"] = fields.pop("group")
    for name in _CHATS & fields.keys():
        value = fields[name]
        if isinstance(value, str) and _CHAT_TEXT.match(value):
            chat = _parsed(value)
            fields[name] = value if chat is None else chat
            note = UNPARSED if chat is None else PARSED
            fields[NOTED] = [*(each for each in notes(fields) if each != note), note]
    return Row(row.where, fields)


@lru_cache
def _read_columns() -> frozenset[str]:
    """Return the columns that a format reads, and irlhf's own keys. A null there is a missing column."""
    keys = {item.name for item in dataclass_fields(Example)}
    return frozenset(keys | _CHATS | {name for known in formats() for name in known.required})


def _is_prepared(fields: dict[str, Any]) -> bool:
    """Return whether `irlhf prepare` wrote a row, so that its group is the one of its prompt."""
    texts = all(isinstance(fields.get(name), str) and fields[name] for name in ("id", "group", "source"))
    return texts and fields.get("split") in SPLITS


def _parsed(text: str) -> Any:
    """Return the messages in a text, or an object with messages; None for anything else."""
    for parse in (json.loads, ast.literal_eval, _numpy_literal):
        try:
            value = json.loads(json.dumps(parse(text)), parse_constant=lambda _: None)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        chat = value.get("messages") if isinstance(value, dict) and "messages" in value else value
        turns = chat if isinstance(chat, list) else [chat]
        return value if turns and all(map(_is_message, turns)) and depth(value) < DEPTH_LIMIT - 2 else None
    return None


def _numpy_literal(text: str) -> Any:
    """Return a list as numpy prints it: a line break instead of a comma between the items."""
    return ast.literal_eval(_BETWEEN.sub(lambda match: "}, {" if "\n" in match[0] else match[0], text))


def _is_message(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("role", value.get("from")), str) and any(name in value for name in _BODIES)
