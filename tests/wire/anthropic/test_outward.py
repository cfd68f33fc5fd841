"""What of a chat completion an engine of this dialect gets as its vendor's models and schemas have it."""

import json
from typing import Any, Literal

import pytest
from anthropic import transform_schema
from openai import pydantic_function_tool
from pydantic import BaseModel, Field, SecretStr

from tests.wire.hub import asked
from tidegate.wire.anthropic.outward import STRICT_TOOLS_MAX, messages_body
from tidegate.wire.errors import BadRequest

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


def test_a_thought_that_another_vendor_has_sealed_is_set_aside() -> None:
    said = {"role": "assistant", "content": "4"}
    sealed = {"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", "format": "openai-responses-v1"}
    own = {"type": "reasoning.encrypted", "data": "eA==", "format": "anthropic-claude-v1"}
    blocks = outward({"messages": [*HI, said | {"reasoning_details": [sealed, own]}]})["messages"][1]["content"]
    assert blocks == [{"type": "redacted_thinking", "data": "eA=="}, {"type": "text", "text": "4"}]


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
        {"type": "string", "maxLength": 9, "format": "password"},
        {"type": "integer", "format": "int32"},
        {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "format": "uri"}]},
        {"type": "integer", "discriminator": "kind", "not": 1, "if": 2, "then": 3, "else": 4},
        {"type": "array", "items": {"type": "integer"}, "prefixItems": [1], "contains": 2, "minContains": 3},
        closed(n={"type": "integer"}) | {"propertyNames": 2, "minProperties": 3},
        {"enum": [1, 2]},
    ],
)
def test_what_the_vendor_takes_as_no_keyword_goes_where_its_sdk_puts_it(schema: dict[str, Any]) -> None:
    whole = closed(n=schema) | {"$defs": {"d": closed(n=schema)}}
    assert formatted(whole) == transform_schema(whole)


def test_a_member_by_the_name_of_a_bound_is_none() -> None:
    schema = closed(minimum={"type": "integer"}, maxItems={"type": "string"})
    assert formatted(schema) == schema
    assert formatted({"enum": [{"minimum": 1}]}) == {"enum": [{"minimum": 1}]}


def test_of_two_choices_between_schemas_one_is_told() -> None:
    both: dict[str, Any] = {"anyOf": [{"type": "integer"}, {"type": "null"}], "oneOf": [{"minimum": 1}]}
    assert formatted(both) == {"anyOf": both["anyOf"], "description": '{oneOf: [{"minimum":1}]}'}


def test_words_within_words_do_not_double_with_each_level() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"anyOf": [], "oneOf": [schema]}
    assert len(json.dumps(formatted(schema))) < 10 * len(json.dumps(schema))


def test_a_tuple_that_says_no_more_of_its_items_is_not_made_an_empty_one() -> None:
    assert "items" not in formatted({"type": "array", "prefixItems": [{"type": "string"}], "items": False})


def test_members_by_a_pattern_are_not_forbidden_by_leaving_the_pattern_out() -> None:
    with pytest.raises(BadRequest, match="patternProperties"):
        formatted(closed(n={"type": "integer"}) | {"patternProperties": {"^x": {"type": "string"}}})


def test_a_bound_that_is_a_switch_or_stands_by_no_text_is_told_all_the_same() -> None:
    told = formatted({"type": "array", "items": {"type": "string"}, "uniqueItems": True, "description": None})
    assert told == {"type": "array", "items": {"type": "string"}, "description": "{uniqueItems: true}"}


class _Cat(BaseModel):
    kind: Literal["cat"]
    secret: SecretStr


class _Dog(BaseModel):
    kind: Literal["dog"]
    age: int = Field(ge=1, description="In years.")


class _Pet(BaseModel):
    one: _Cat | _Dog = Field(discriminator="kind")
    home: tuple[float, float]


def strict_tool(parameters: Any, name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": True}}


def test_a_strict_tool_of_openais_sdk_has_a_schema_that_the_vendor_takes() -> None:
    (made,) = outward({"tools": [pydantic_function_tool(_Pet)]})["tools"]
    assert made["strict"] is True
    schema = made["input_schema"]
    assert schema["properties"]["one"]["anyOf"] == [{"$ref": "#/$defs/_Cat"}, {"$ref": "#/$defs/_Dog"}]
    assert schema["properties"]["one"]["description"].startswith("{discriminator: {")
    assert not {"oneOf", "discriminator"} & schema["properties"]["one"].keys()
    age = {"type": "integer", "title": "Age", "description": "In years.\n\n{minimum: 1}"}
    assert schema["$defs"]["_Dog"]["properties"]["age"] == age
    secret = schema["$defs"]["_Cat"]["properties"]["secret"]
    assert (secret["description"], "format" in secret) == ("{format: password}", False)
    home = schema["properties"]["home"]
    assert {"type", "title", "description"} == home.keys()
    assert "maxItems: 2" in home["description"]


def test_a_tool_that_is_not_strict_keeps_its_schema() -> None:
    bounded = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    for strict in (False, None):
        tool = {"type": "function", "function": {"name": "f", "parameters": bounded, "strict": strict}}
        (made,) = outward({"tools": [tool]})["tools"]
        assert made == {"name": "f", "input_schema": bounded} | ({} if strict is None else {"strict": False})


def test_a_strict_tool_of_members_that_have_no_names_is_not_strict_there() -> None:
    open = {"type": "object", "properties": {"m": {"type": "object", "additionalProperties": {"type": "integer"}}}}
    shut = closed(n={"type": "integer"})
    assert outward({"tools": [strict_tool(open), strict_tool(shut, "g")]})["tools"] == [
        {"name": "f", "input_schema": open},
        {"name": "g", "input_schema": shut, "strict": True},
    ]


@pytest.mark.parametrize(("more", "strict"), [(0, True), (1, None)])
def test_no_tool_is_strict_where_the_vendor_would_refuse_so_many(more: int, strict: bool | None) -> None:
    schema = closed(n={"type": "integer", "minimum": 1})
    tools = [strict_tool(schema, f"f{at}") for at in range(STRICT_TOOLS_MAX + more)]
    plain = {"type": "function", "function": {"name": "g", "parameters": schema}}
    made = outward({"tools": [*tools, plain]})["tools"]
    assert [tool.get("strict") for tool in made] == [strict] * len(tools) + [None]
    assert (made[0]["input_schema"] == schema) is not strict
