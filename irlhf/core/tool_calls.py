"""Tools and tool calls of conversations, in the form of OpenAI's API."""

import json
from collections.abc import Mapping
from typing import Any

from irlhf.core.errors import DataError

TOOLS = "tools"  # row key
TOOL_KEYS = (TOOLS, "parallel_tool_calls")  # row keys that belong to a prompt


def tools_of(row: Mapping[str, Any]) -> list[Any]:
    """Return the tools in the extra keys of a row: a list of objects, or such a list as JSON text.

    A bare function becomes {"type": "function", "function": …}. Raises DataError.
    """
    given = row.get(TOOLS)
    if isinstance(given, str):
        try:
            given = json.loads(given) if given.strip() else None
        except ValueError as error:
            raise DataError("'tools' is text that is not valid JSON; fix or remove it") from error
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(tool, dict) for tool in given):
        raise DataError("'tools' is not a list of objects; fix or remove it")
    return [{"type": "function", "function": tool} if "name" in tool else tool for tool in given]


def name_of(tool: Mapping[str, Any]) -> Any:
    """Return the name of a tool, or of the function in a tool call."""
    function = tool.get("function", tool)
    return function.get("name") if isinstance(function, dict) else None


def calls_of(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tool calls of a message."""
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def with_arguments(message: dict[str, Any], *, parsed: bool) -> dict[str, Any]:
    """Return a message with the arguments of its tool calls as objects (`parsed`), or as JSON text."""
    calls = calls_of(message)
    return {**message, "tool_calls": [_converted(call, parsed) for call in calls]} if calls else message


def _converted(call: Mapping[str, Any], parsed: bool) -> dict[str, Any]:
    if isinstance(call.get("function"), dict):
        return {**call, "function": _converted(call["function"], parsed)}
    return {**call, "arguments": _arguments(call["arguments"], parsed)} if "arguments" in call else dict(call)


def _arguments(value: Any, parsed: bool) -> Any:
    if not parsed:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    try:
        tree = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return tree if isinstance(tree, dict) else value
