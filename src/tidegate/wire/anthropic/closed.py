"""A JSON schema as the vendor takes it: an object has the members that are named, and no others."""

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


def closed(schema: Raw) -> Raw:
    """The schema, closed where an object says nothing of members that it does not name.

    An answer by it is one by the schema that was given. Raises `BadRequest` where an object is to have such members.
    """
    try:
        read = msgspec.json.decode(schema)
        _close(read)
        return Raw(encode(read))
    except UNREADABLE:
        raise BadRequest("`response_format`: this endpoint cannot read the schema.", param="response_format") from None


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for one in schema:
            _close(one)
    if not isinstance(schema, dict):
        return
    for name in _BY_NAME:
        named = schema.get(name)
        _close(list(named.values()) if isinstance(named, dict) else None)
    for name in _WITHIN:
        _close(schema.get(name))
    if _is_object(schema) and not any(name in schema for name in _ELSEWHERE):
        if "properties" in schema:
            schema.setdefault(_CLOSED, False)
        if schema.get(_CLOSED) is not False:
            raise BadRequest(
                "`response_format`: this endpoint takes objects whose members are named, and no others; leave "
                "`additionalProperties` out, or false.",
                param="response_format",
            )


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema
