"""A JSON schema as the vendor takes it: an object has the members that are named, and no others, and how long or large
something is stands in its description. And whether one is as OpenAI takes it, who wants more of it."""

from typing import Any

import msgspec
from msgspec import Raw

from tidegate.wire.errors import UNREADABLE, BadRequest
from tidegate.wire.hub import encode

_CLOSED = "additionalProperties"
_BY_PATTERN = "patternProperties"
# Where schemas stand within one: by name, in a row, or one of either kind.
_BY_NAME = ("properties", "$defs", "definitions")
_WITHIN = ("anyOf", "oneOf", "items")
# Beside these, members that are not named here may be named there.
_ELSEWHERE = ("allOf", "$ref")
# What the vendor refuses, or passes over, and its SDKs write into the description, so that the model may heed it.
_WORDS = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
        *("maxItems", "uniqueItems", "prefixItems", "contains", "minContains", "maxContains"),
        *("minProperties", "maxProperties", "propertyNames", "unevaluatedProperties"),
        *("dependentRequired", "dependentSchemas", "if", "then", "else", "not", "oneOf", "discriminator"),
    )
)
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
# What OpenAI does not take as strict: some keywords, and one of these formats.
_LOOSE = ("allOf", "oneOf")
_LOOSE_FORMAT = "uri"


def closed(schema: Raw) -> Raw:
    """The schema, closed where an object says nothing of members that it does not name, and what the vendor does not
    take put into words.

    An answer by it is one by the schema that was given, but for these words, which are not enforced, and for `oneOf`,
    of which several may hold. Raises `BadRequest` where an object is to have such members.
    """
    try:
        read = msgspec.json.decode(schema)
        _close(read)
        _describe(read)
        return Raw(encode(read))
    except UNREADABLE:
        raise BadRequest("`response_format`: this endpoint cannot read the schema.", param="response_format") from None


def is_strict(schema: Raw) -> bool:
    """Whether OpenAI takes the schema as strict: each object is closed, and requires all the members that it names."""
    try:
        return _is_strict(msgspec.json.decode(schema))
    except UNREADABLE:
        return False


def _is_strict(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return True
    if any(name in schema for name in _LOOSE) or schema.get("format") == _LOOSE_FORMAT:
        return False
    if _is_object(schema) and not (schema.get(_CLOSED) is False and _requires_all(schema)):
        return False
    return all(_is_strict(one) for one in _inside(schema, _WITHIN))


def _requires_all(schema: dict[str, Any]) -> bool:
    named, required = schema.get("properties", {}), schema.get("required", [])
    if not (isinstance(named, dict) and isinstance(required, list)):
        return False
    return len(named) == len(required) and set(named) == {name for name in required if isinstance(name, str)}


def _close(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    for one in _inside(schema, _WITHIN):
        _close(one)
    is_open = _BY_PATTERN in schema
    if _is_object(schema) and not any(name in schema for name in _ELSEWHERE):
        if "properties" in schema:
            schema.setdefault(_CLOSED, False)
        is_open = is_open or schema.get(_CLOSED) is not False
    if is_open:
        raise BadRequest(
            "`response_format`: this endpoint takes objects whose members are named, and no others; leave "
            f"`{_CLOSED}` out, or false, and `{_BY_PATTERN}` out.",
            param="response_format",
        )


def _describe(schema: Any) -> None:
    if not isinstance(schema, dict):
        return
    if "oneOf" in schema and "anyOf" not in schema:
        schema["anyOf"] = schema.pop("oneOf")
    if "prefixItems" in schema and schema.get("items") is False:
        del schema["items"]  # no others, where there would be none
    # As they came, before what stands within is described: words within words would double with each level.
    words = [f"{name}: {_word(schema.pop(name))}" for name in list(schema) if _is_word(name, schema[name])]
    if words:
        told = schema.get("description")
        said = "{" + ", ".join(words) + "}"
        schema["description"] = f"{told}\n\n{said}" if isinstance(told, str) and told else said
    for one in _inside(schema, (*_WITHIN, "allOf")):
        _describe(one)


def _is_word(name: str, value: Any) -> bool:
    if name == "minItems":
        return value not in (0, 1)
    return name in _WORDS or (name == "format" and value not in _FORMATS)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else encode(value).decode()


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
