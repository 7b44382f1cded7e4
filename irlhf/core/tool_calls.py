"""Tools and tool calls of conversations, in the form of OpenAI's API."""

import json
from collections.abc import Mapping, Sequence
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
    """Return a message with the arguments of its tool calls as objects (`parsed`), or as JSON text.

    An empty list of calls is removed, because chat templates and APIs take it for a call.
    """
    calls = calls_of(message)
    if calls:
        return {**message, "tool_calls": [_converted(call, parsed) for call in calls]}
    return {key: value for key, value in message.items() if key != "tool_calls"} if "tool_calls" in message else message


def with_short_ids(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages whose tool calls and results have ids of nine digits: their number in the conversation.

    A result without an id of an earlier call belongs to the first call without a result.
    """
    ids: dict[str, str] = {}  # of calls without a result, by their own id or else by their new one
    count, changed = 0, []
    for message in messages:
        calls = []
        for call in calls_of(message):
            count += 1
            short = f"{count:09}"
            ids[str(call.get("id") or short)] = short
            calls.append({**call, "id": short})
        given: dict[str, Any] = {"tool_calls": calls} if calls else {}
        if message["role"] == "tool" and ids:
            own = message.get("tool_call_id")
            given = {"tool_call_id": ids.pop(own if own in ids else next(iter(ids)))}
        changed.append({**message, **given})
    return changed


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
