"""A tool that is chosen by its name, before engines that pass over the name."""

import msgspec
from msgspec import Raw

from tidegate.wire.errors import UNREADABLE
from tidegate.wire.openai import Call

_REQUIRED = Raw(b'"required"')


class _Function(msgspec.Struct):
    name: str


class _Tool(msgspec.Struct):
    """A tool, or the choice of one."""

    function: _Function


def of_one_tool(call: Call) -> Call:
    """The call with the tool that is chosen by its name as the only one, and one that has to be called."""
    choice, tools = call.fields.get("tool_choice"), call.fields.get("tools")
    if choice is None or tools is None:
        return call
    try:
        name = msgspec.json.decode(choice, type=_Tool).function.name
        named = [tool for tool in msgspec.json.decode(tools, type=list[Raw]) if _name(tool) == name]
    except UNREADABLE:  # another choice, or other tools
        return call
    if not named:
        return call
    fields = {**call.fields, "tools": Raw(msgspec.json.encode(named)), "tool_choice": _REQUIRED}
    return msgspec.structs.replace(call, fields=fields)


def _name(tool: Raw) -> str:
    return msgspec.json.decode(tool, type=_Tool).function.name
