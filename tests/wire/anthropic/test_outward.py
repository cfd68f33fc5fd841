"""What of a chat completion an engine of this dialect gets as its vendor's models and schemas have it."""

import json
from typing import Any

import pytest
from anthropic import transform_schema

from tests.wire.hub import asked
from tidegate.wire.anthropic.outward import messages_body

HI = [{"role": "user", "content": "hi"}]
SAMPLING = {"temperature": 0.5, "top_p": 0.9, "top_k": 4}


def outward(fields: dict[str, Any], model: str = "theirs") -> dict[str, Any]:
    made: dict[str, Any] = json.loads(messages_body(asked({"messages": HI, **fields}), model=model, stream=False))
    return made


def formatted(schema: Any) -> Any:
    format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    return outward({"response_format": format})["output_config"]["format"]["schema"]


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("claude-opus-4-7", {}),
        ("claude-opus-4-8", {}),
        ("claude-opus-4-10", {}),
        ("anthropic/claude-opus-4.7", {}),
        ("us.anthropic.claude-opus-4-7-20260416-v1:0", {}),
        ("claude-opus-5", {}),
        ("claude-sonnet-5", {}),
        ("claude-fable-5", {}),
        ("claude-opus-4-6", SAMPLING),
        ("claude-sonnet-4-6", SAMPLING),
        ("claude-haiku-4-5-20251001", SAMPLING),
        ("claude-opus-4-20250514", SAMPLING),
        ("claude-sonnet-4-20250514", SAMPLING),
        ("claude-3-7-sonnet-20250219", SAMPLING),
        ("claude-3-5-haiku-latest", SAMPLING),
        ("minimax-m2", SAMPLING),
    ],
)
def test_models_that_sample_their_own_way_are_not_told_how(model: str, kept: dict[str, float]) -> None:
    made = outward(SAMPLING, model)
    assert {name: made[name] for name in SAMPLING if name in made} == kept


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 1, "maximum": 10},
        {"type": "number", "description": "A share.", "exclusiveMinimum": 0, "multipleOf": 0.25},
        {"type": "string", "minLength": 2, "maxLength": 9},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 3},
        {"type": "array", "items": {"type": "string"}, "maxItems": 5},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        {"allOf": [{"type": "integer", "maximum": 9}]},
        {"type": "string", "format": "date"},
        {"enum": [1, 2]},
    ],
)
def test_bounds_of_a_schema_go_where_the_vendors_sdk_puts_them(schema: dict[str, Any]) -> None:
    whole = closed(n=schema) | {"$defs": {"d": closed(n=schema)}}
    assert formatted(whole) == transform_schema(whole)


def test_a_member_by_the_name_of_a_bound_is_none() -> None:
    schema = closed(minimum={"type": "integer"}, maxItems={"type": "string"})
    assert formatted(schema) == schema
    assert formatted({"enum": [{"minimum": 1}]}) == {"enum": [{"minimum": 1}]}


def test_a_bound_that_is_a_switch_or_stands_by_no_text_is_told_all_the_same() -> None:
    told = formatted({"type": "array", "items": {"type": "string"}, "uniqueItems": True, "description": None})
    assert told == {"type": "array", "items": {"type": "string"}, "description": "{uniqueItems: true}"}
