"""A JSON schema as the vendor takes it: an object has the members that are named, and no others, and how long or large
something is stands in its description."""

from typing import Any

import msgspec
from msgspec import Raw

from tidegate.wire.errors import UNREADABLE, BadRequest
from tidegate.wire.hub import encode

_CLOSED = "additionalProperties"
# Where schemas stand within one: by name, in a row, or one of either kind.
_BY_NAME = ("properties", "$defs", "definitions")
_WITHIN = ("anyOf", "oneOf", "prefixItems", "items")
# Beside these, members that are not named here may be named there.
_ELSEWHERE = ("allOf", "$ref")
# What the vendor refuses, and its SDKs write into the description, so that the model may heed it.
_BOUNDS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
)


def closed(schema: Raw) -> Raw:
    """The schema, closed where an object says nothing of members that it does not name, its bounds put into words.

    An answer by it is one by the schema that was given, but for the bounds, which are not enforced. Raises `BadRequest`
    where an object is to have such members.
    """
    try:
        read = msgspec.json.decode(schema)
        _close(read)
        _describe(read)
        return Raw(encode(read))
    except UNREADABLE:
        raise BadRequest("`response_format`: this endpoint cannot read the schema.", param="response_format") from None


def _close(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    for one in _inside(schema, _WITHIN):
        _close(one)
    if _is_object(schema) and not any(name in schema for name in _ELSEWHERE):
        if "properties" in schema:
            schema.setdefault(_CLOSED, False)
        if schema.get(_CLOSED) is not False:
            raise BadRequest(
                "`response_format`: this endpoint takes objects whose members are named, and no others; leave "
                "`additionalProperties` out, or false.",
                param="response_format",
            )


def _describe(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    for one in _inside(schema, (*_WITHIN, "allOf")):
        _describe(one)
    bounds = {name: schema.pop(name) for name in _BOUNDS if name in schema and not _is_taken(name, schema[name])}
    if bounds:
        told = schema.get("description")
        words = "{" + ", ".join([f"{name}: {encode(bound).decode()}" for name, bound in bounds.items()]) + "}"
        schema["description"] = f"{told}\n\n{words}" if isinstance(told, str) and told else words


def _is_taken(name: str, bound: Any) -> bool:
    return name == "minItems" and bound in (0, 1)


def _inside(schema: dict[str, Any], within: tuple[str, ...]) -> list[Any]:
    """The schemas that stand in one: by name, and in these places."""
    found: list[Any] = []
    for name in _BY_NAME:
        named = schema.get(name)
        found += named.values() if isinstance(named, dict) else ()
    for name in within:
        part = schema.get(name)
        found += part if isinstance(part, list) else (part,)
    return found


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema
