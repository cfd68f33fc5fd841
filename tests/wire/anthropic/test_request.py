"""Requests of the Messages API, to the hub and back."""

import hashlib
import json
import re
from contextlib import suppress
from typing import Any

import pytest
from anthropic.types import TextBlock, ToolUseBlock, message_count_tokens_params, message_create_params
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, structs

from tests.wire.hub import (
    asked,
    calling,
    conversations,
    fields_of,
    image_part,
    json_values,
    meaning,
    objects,
    one_text,
    optional,
    schemas,
    texts,
    tools,
    words,
)
from tidegate.core.model import Capability
from tidegate.wire.anthropic.client import counted
from tidegate.wire.anthropic.outward import OUTPUT_TOKENS_DEFAULT, OUTWARD, messages_body
from tidegate.wire.anthropic.request import keeps_long, parse
from tidegate.wire.anthropic.shapes import FIELDS
from tidegate.wire.errors import BadRequest
from tidegate.wire.fate import Fate, top_level
from tidegate.wire.instructions import led
from tidegate.wire.intake import estimated_tokens
from tidegate.wire.tokens import TokenRatio

BROKEN = {"id": "1", "function": {"name": "f", "arguments": "no"}}
HI = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "url", "url": "https://example.org/a.png"}
CLOSED = {"additionalProperties": False}


def parsed(**fields: Any) -> dict[str, Any]:
    return fields_of(parse(body(**fields)))


def user_turn(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def user_says(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [user_turn(*blocks)]}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 9, "messages": HI, **fields}).encode()


def refused(data: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(data)
    return caught.value


def outward(fields: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(messages_body(asked(fields), model="theirs", stream=False))
    return made


# --- laws -----------------------------------------------------------------------------------------------------------

# The vendor takes no text without a word.
spoken = texts.filter(str.strip)
text_blocks = spoken.map(lambda text: {"type": "text", "text": text})
image_blocks = st.sampled_from(
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/ü.png"}},
    ]
)
said = spoken | st.lists(text_blocks | image_blocks, min_size=1, max_size=3)
results = st.builds(lambda id, content: {"type": "tool_result", "tool_use_id": id, "content": content}, words, said)
uses = st.builds(
    lambda id, name, given: {"type": "tool_use", "id": id, "name": name, "input": given}, words, words, objects
)
user = st.builds(
    lambda content: {"role": "user", "content": content},
    spoken
    | st.builds(
        lambda first, rest: first + rest,
        st.lists(results, min_size=1, max_size=2),
        st.lists(text_blocks | image_blocks, max_size=2),
    )
    | st.lists(text_blocks | image_blocks, min_size=1, max_size=2),
)
assistant = st.builds(
    lambda content: {"role": "assistant", "content": content},
    spoken
    | st.builds(
        lambda first, rest: first + rest,
        st.lists(text_blocks, min_size=1, max_size=2),
        st.lists(uses, max_size=2),
    )
    | st.lists(uses, min_size=1, max_size=2),
)
# Where they are strict, vendors take closed ones alone.
closed_schemas = schemas.map(lambda schema: {**schema, **CLOSED})
own_tools = st.lists(
    st.builds(
        lambda name, schema, more: {"name": name, "input_schema": schema, **more},
        words,
        closed_schemas,
        optional(description=texts, strict=st.booleans()),
    ),
    min_size=1,
    max_size=2,
)
choices = st.builds(
    lambda choice, more: {**choice, **(more if choice["type"] != "none" else {})},
    st.sampled_from([{"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "tool", "name": "f"}]),
    optional(disable_parallel_tool_use=st.booleans()),
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    messages = [draw(user)]
    for answer, question in draw(st.lists(st.tuples(assistant, user), max_size=2)):
        messages += [answer, question]
    return {
        "model": "m",
        "max_tokens": draw(st.integers(1, 10**6)),
        "messages": messages,
        "stream": draw(st.booleans()),
        **draw(
            optional(
                system=spoken | st.lists(text_blocks, min_size=1, max_size=2),
                stop_sequences=st.lists(spoken, max_size=3),
                temperature=st.floats(0, 1),
                top_p=st.floats(0, 1),
                top_k=st.integers(0, 100),
                metadata=st.builds(lambda user_id: {"user_id": user_id}, texts),
                output_config=optional(
                    effort=st.sampled_from(["low", "medium", "high", "xhigh", "max"]),
                    format=closed_schemas.map(lambda schema: {"type": "json_schema", "schema": schema}),
                ).filter(bool),
            )
        ),
        **draw(calling(tools=own_tools, tool_choice=choices)),
    }


def carried(content: Any) -> Any:
    """The same content, whose texts without an image are one."""
    if isinstance(content, str):
        return content
    said = [block for block in content if block["type"] in ("text", "image")]
    if all(block["type"] == "text" for block in said) and said:
        said = [{"type": "text", "text": one_text(said)}]
        if len(said) == len(content) or not any(block["type"].startswith("tool_") for block in content):
            return said[0]["text"]
    results = [{**b, "content": carried(b["content"])} for b in content if b["type"] == "tool_result"]
    return results + said + [block for block in content if block["type"] == "tool_use"]


def without_whole_top_p(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if (name, value) != ("top_p", 1)}


@pytest.mark.parametrize(("top_p", "sent"), [(1, None), (1.0, None), (0.9, 0.9), (0, 0)])
def test_a_top_p_that_says_nothing_is_left_out(top_p: float, sent: float | None) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "top_p": top_p}
    made = json.loads(messages_body(asked(body), model="m", stream=False))
    assert (made["temperature"], made.get("top_p")) == (0.5, sent)


@pytest.mark.lengthy
@given(bodies())
def test_what_both_dialects_can_say_comes_back(sent: dict[str, Any]) -> None:
    call = structs.replace(parse(json.dumps(sent).encode()), native=None)
    if "system" in sent:
        sent["system"] = carried(sent["system"])
    for message in sent["messages"]:
        message["content"] = carried(message["content"])
    assert json.loads(messages_body(call, model="m", stream=sent["stream"])) == without_whole_top_p(sent)


hub_bodies = st.builds(
    lambda messages, more, called: {"messages": messages, "max_tokens": 7, **more, **called},
    conversations(spoken),
    optional(
        stop=st.lists(spoken, min_size=1, max_size=2),
        temperature=st.floats(0, 1),
        top_p=st.floats(0, 1),
        top_k=st.integers(1, 50),
        user=texts,
        reasoning_effort=st.sampled_from(["low", "medium", "high", "xhigh", "max"]),
    ),
    calling(
        tools=tools(closed_schemas),
        tool_choice=st.sampled_from(["auto", "required", "none", {"type": "function", "function": {"name": "f"}}]),
    ),
)


@pytest.mark.lengthy
@given(hub_bodies)
def test_what_the_hub_says_comes_back_from_the_other_dialect(sent: dict[str, Any]) -> None:
    back = fields_of(parse(messages_body(asked(sent), model="theirs", stream=False)))
    assert meaning(back.pop("messages")) == meaning(sent["messages"])
    rest = {name: value for name, value in sent.items() if name != "messages"}
    assert back == {"model": "theirs", "stream": False, **without_whole_top_p(rest)}


@given(bodies(), st.booleans())
def test_an_engine_of_the_same_dialect_gets_the_request_as_it_was(sent: dict[str, Any], stream: bool) -> None:
    sent |= {"thinking": {"type": "enabled", "budget_tokens": 2000}, "tidegate": {"class": "batch"}}
    sent["context_management"] = {"edits": [{"type": "clear_thinking_20251015"}]}
    sent["output_config"] = {**sent.get("output_config", {}), "task_budget": {"type": "tokens", "total": 20_000}}
    sent["messages"].append(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "cache_control": {"ttl": "1h"}},
                {"type": "mid_conv_system", "content": [{"type": "text", "text": "b"}]},
            ],
        }
    )
    made = json.loads(messages_body(parse(json.dumps(sent).encode()), model="theirs", stream=stream))
    del sent["tidegate"]
    assert made == {**sent, "model": "theirs", "stream": stream}


def later(said: Any, told: dict[str, Any]) -> Any:
    """The same from a client that is ahead of us: each object of the dialect's has more in it."""
    if isinstance(said, list):
        return [later(one, told) for one in said]
    if not isinstance(said, dict):
        return said
    # What a schema is of, is anybody's.
    whole = ("input", "input_schema", "schema")
    return told | {name: value if name in whole else later(value, told) for name, value in said.items()}


@given(bodies(), json_values)
def test_what_a_later_version_says_goes_to_its_vendor_as_it_came_and_is_asked_of_nobody_else(
    sent: dict[str, Any], value: Any
) -> None:
    said = later(sent, {"of_2027": value})
    call, plain = parse(json.dumps(said).encode()), parse(json.dumps(sent).encode())
    assert fields_of(call) == fields_of(plain)
    assert json.loads(messages_body(call, model="m", stream=sent["stream"])) == said | {"model": "m"}
    known = json.loads(messages_body(call.as_known(), model="m", stream=sent["stream"]))
    assert known == json.loads(messages_body(plain, model="m", stream=sent["stream"])), "and may be left out"


def test_what_a_later_version_says_of_a_block_is_kept_beside_what_its_vendor_does_not_take_back() -> None:
    use = {"type": "tool_use", "id": "functions.f:0", "name": "f", "input": {"far": 1.0}, "later": 1}
    thought = {"type": "thinking", "thinking": "a", "signature": "", "later": 1}
    call = parse(body(messages=[*HI, {"role": "assistant", "content": [thought, use], "later": 1}]))
    (_, said), (_, known) = (
        json.loads(messages_body(one, model="m", stream=False))["messages"] for one in (call, call.as_known())
    )
    (made,) = said["content"]
    assert made == use | {"id": made["id"]} != use
    assert said == {"role": "assistant", "content": [made], "later": 1}
    del made["later"]
    assert known == {"role": "assistant", "content": [made]}


def hinted(place: str, control: object) -> dict[str, Raw]:
    """The fields of a request with such a hint there; at a `function` and a `call` a chat has it."""
    block = {"type": "text", "text": "a", "cache_control": control}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [block]}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"cache_control": {"ttl": "1h"}}}
    called = {"id": "t", "function": {"name": "f"}} | ({"cache_control": control} if place == "call" else {})
    said = {"message": [block], "result": [result]}.get(place, [{"type": "text", "text": '"ttl":"1h"'}])
    fields: dict[str, object] = {
        "messages": [
            {"role": "assistant", "content": [call]},
            {"role": "assistant", "tool_calls": [called]},
            {"role": "user", "content": said},
        ],
        "system": [block] if place == "system" else "be brief",
        "tools": [{"name": "f", "input_schema": {}} | ({"cache_control": control} if place == "tool" else {})],
    }
    if place == "function":
        fields["tools"] = [{"type": "function", "function": {"name": "f", "cache_control": control}}]
    if place == "request":
        fields["cache_control"] = control
    return {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}


@pytest.mark.parametrize("place", ["message", "result", "call", "system", "tool", "function", "request"])
def test_wherever_it_is_asked_a_longer_stay_in_the_cache_than_the_usual_is_seen(place: str) -> None:
    for longer in ({"ttl": "1h"}, {"type": "ephemeral", "ttl": "1h"}, {"ttl": 3600}):
        assert keeps_long(hinted(place, longer))
    for usual in (None, {}, {"type": "ephemeral"}, {"ttl": None}, {"ttl": "5m"}):
        assert not keeps_long(hinted(place, usual))


@pytest.mark.parametrize("name", [rb"\u0074tl", rb"t\u0074l", rb"tt\u006c", rb"tt\u006C"])
def test_it_is_seen_however_it_is_spelled(name: bytes) -> None:
    assert keeps_long({"cache_control": Raw(b'{"%b":"1h"}' % name)})


def test_what_only_looks_like_it_is_not() -> None:
    assert not keeps_long(hinted("nowhere", None))


def test_it_is_seen_however_deep_it_is() -> None:
    for depth in range(1, 1000, 25):
        part = b'{"cache_control":{"ttl":"1h"}}'
        nested = b'{"content":[' * depth + part + b"]}" * depth
        assert keeps_long({"messages": Raw(b"[%b]" % nested)})


@pytest.mark.parametrize("parts", [b'["a"]', b'{"parts":["a"]}', b'[{"content":{"a":1}}]'])
def test_a_message_of_another_shape_that_says_nothing_of_it_asks_for_no_longer_stay(parts: bytes) -> None:
    assert not keeps_long({"messages": Raw(b'[{"role":"user","content":%b}]' % parts)})


names = st.sampled_from(["model", "messages", "role", "content", "type", "text", "max_tokens", "system", "tools"])
scalars = st.none() | st.text() | st.integers() | st.floats(allow_nan=False)
junk = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner))


@given(junk.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_no_body_breaks_it(data: bytes) -> None:
    with suppress(BadRequest):
        parse(data)


@pytest.mark.lengthy
@given(st.dictionaries(st.sampled_from(sorted(top_level(OUTWARD, *Fate))), junk), conversations())
def test_no_chat_breaks_the_way_out(fields: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    with suppress(BadRequest):
        outward({"messages": messages, **fields, "model": "m"})


# --- what is carried ------------------------------------------------------------------------------------------------


def test_results_of_tools_are_messages_of_their_own_before_what_the_user_says() -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "4"}]}
    made = parsed(messages=[{"role": "user", "content": [result, {"type": "text", "text": "and?"}]}])["messages"]
    assert made == [
        {"role": "tool", "tool_call_id": "t1", "content": "4"},
        {"role": "user", "content": "and?"},
    ]


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_blocks_of_text_alone_are_one_string_whoever_says_them(role: str) -> None:
    one, other = {"type": "text", "text": "a\n"}, {"type": "text", "text": "b"}
    said = parsed(messages=[*HI, {"role": role, "content": [one]}, {"role": role, "content": [one, other]}])
    assert [message["content"] for message in said["messages"]] == ["hi", "a\n", "a\n\n\nb"]


def test_what_a_tool_gives_is_a_string_unless_it_shows_an_image() -> None:
    text, image = {"type": "text", "text": "4"}, {"type": "image", "source": IMAGE}
    told, shown, silent = (
        parsed(messages=[{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": given}]}])
        for given in ([text], [text, image], [])
    )
    assert told["messages"][0]["content"] == "4"
    assert [part["type"] for part in shown["messages"][0]["content"]] == ["text", "image_url"]
    assert silent["messages"][0]["content"] == ""


def test_a_system_of_blocks_is_one_text_and_none_where_it_says_nothing() -> None:
    blocks = [{"type": "text", "text": "be brief"}, {"type": "text", "text": "be kind"}]
    assert parsed(system=blocks)["messages"] == [{"role": "system", "content": "be brief\n\nbe kind"}, *HI]
    for empty in ([], "", [{"type": "text", "text": ""}]):
        assert parsed(system=empty)["messages"] == HI


def test_what_claude_code_has_for_the_vendor_alone_goes_nowhere_else() -> None:
    rest = [{"type": "text", "text": "be brief"}, {"type": "text", "text": "be kind"}]
    bills = [{"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch={at};"} for at in ("1a", "2b")]
    one, other = (parse(body(system=[bill, *rest])) for bill in bills)
    assert fields_of(one) == parsed(system=rest)
    assert one.prompt == other.prompt, "the next one is found where this was"
    assert json.loads(messages_body(one, model="m", stream=False))["system"] == [bills[0], *rest]
    assert parsed(system=bills[:1])["messages"] == HI
    # Elsewhere they are the client's own words.
    assert "cch=1a" in parsed(system=[*rest, bills[0]])["messages"][0]["content"]


def test_where_the_cache_is_to_end_changes_no_byte_of_the_prompt() -> None:
    marked = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    turns = [*HI, {"role": "assistant", "content": "4"}]
    last, before = (parse(body(messages=messages)).prompt for messages in ([*turns, *HI], [*HI]))
    assert parse(body(messages=[*turns, user_turn(marked)])).prompt == last
    assert parse(body(**user_says(marked))).prompt == before


def test_who_has_a_longer_name_than_openai_takes_is_known_by_its_digest() -> None:
    name = '{"device_id":"%s","session_id":"ü"}' % ("d" * 64)
    digest = hashlib.sha256(name.encode()).hexdigest()
    assert parsed(metadata={"user_id": name})["user"] == digest
    assert len(digest) == 64
    assert parsed(metadata={"user_id": "u" * 64})["user"] == "u" * 64


def test_thinking_goes_on_as_text_and_its_seal_to_its_maker_alone() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
        {"type": "text", "text": "4"},
    ]
    sent = body(messages=[*HI, {"role": "assistant", "content": blocks}])
    message = fields_of(parse(sent))["messages"][1]
    assert message == {"role": "assistant", "content": "4", "reasoning_content": "hm"}
    assert json.loads(messages_body(parse(sent), model="m", stream=False))["messages"][1]["content"] == blocks


def test_a_sealed_thought_of_the_hub_goes_back_to_its_maker_and_an_open_one_does_not() -> None:
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": "c2ln"},
        {"type": "reasoning.encrypted", "data": "eA=="},
        {"type": "reasoning.text", "text": "open"},
    ]
    message = {"role": "assistant", "content": "4", "reasoning_content": "hm", "reasoning_details": details}
    assert outward({"messages": [*HI, message]})["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "eA=="},
        {"type": "text", "text": "4"},
    ]


def test_what_the_vendors_sdk_dumps_of_an_answer_can_be_sent_back() -> None:
    answer = [TextBlock(type="text", text="4"), ToolUseBlock(type="tool_use", id="t1", name="f", input={})]
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "4", "toolset_name": None}
    image = {"type": "image", "source": IMAGE, "transformations": None}
    messages = [
        *HI,
        {"role": "assistant", "content": [block.model_dump() for block in answer]},
        {"role": "user", "content": [result, image]},
    ]
    tools = [{"name": "f", "input_schema": {}, "allowed_callers": ["direct"]}]
    call = parse(body(messages=messages, tools=tools))
    assert [message["role"] for message in fields_of(call)["messages"]] == ["user", "assistant", "tool", "user"]
    made = json.loads(messages_body(call, model="theirs", stream=False))
    assert (made["messages"], made["tools"]) == (messages, tools)


def test_what_openais_sdk_has_parsed_can_be_sent_back() -> None:
    function = {"name": "f", "arguments": "{}", "parsed_arguments": {"city": "Rome"}}
    call = {"id": "1", "type": "function", "function": function}
    said = {"role": "assistant", "content": "{}", "parsed": {"a": 1}, "tool_calls": [call]}
    assert outward({"messages": [*HI, said]})["messages"][1]["content"] == [
        {"type": "text", "text": "{}"},
        {"type": "tool_use", "id": "1", "name": "f", "input": {}},
    ]


def test_the_older_name_of_the_format_is_read_too() -> None:
    format = {"type": "json_schema", "schema": {"type": "object"}}
    newer = parsed(output_config={"format": format})
    assert parsed(output_format=format) == newer
    assert parsed(output_format=format, output_config={"effort": "low"}) == {**newer, "reasoning_effort": "low"}
    assert parsed(output_format={"type": "json_schema", "schema": {}}, output_config={"format": format}) == newer
    made = json.loads(messages_body(parse(body(output_format=format)), model="m", stream=False))
    assert made["output_format"] == format


WHOLE: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "string", "format": "date"}, "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
    "required": ["b", "a"],
    **CLOSED,
}


def strict_of(schema: dict[str, Any]) -> tuple[Any, Any]:
    """Whether OpenAI is to be strict with an answer by this schema, and with a tool of it."""
    tool = {"name": "f", "input_schema": schema, "strict": True}
    made = parsed(output_config={"format": {"type": "json_schema", "schema": schema}}, tools=[tool])
    format, function = made["response_format"]["json_schema"], made["tools"][0]["function"]
    assert (format.pop("schema"), function.pop("parameters")) == (schema, schema)
    return format.get("strict"), function.get("strict")


@pytest.mark.parametrize(
    "schema",
    [
        WHOLE,
        {"type": "object", "properties": {}, **CLOSED},
        {**WHOLE, "$defs": {"d": WHOLE}, "properties": {"a": {"$ref": "#/$defs/d"}, "b": WHOLE}},
        {**WHOLE, "properties": {"a": {**WHOLE, "type": ["object", "null"]}, "b": {}}},
        {**WHOLE, "properties": {"a": {"type": "array", "items": WHOLE}, "b": {"const": 1}}},
    ],
)
def test_a_schema_whose_objects_are_closed_and_require_all_is_strict_at_openai(schema: dict[str, Any]) -> None:
    assert strict_of(schema) == (True, True)


OPTIONAL = {**WHOLE, "required": ["a"]}


@pytest.mark.parametrize(
    "schema",
    [
        OPTIONAL,
        {name: value for name, value in WHOLE.items() if name != "required"},
        {name: value for name, value in WHOLE.items() if name != "additionalProperties"},
        {**WHOLE, "required": ["a", "b", "c"]},
        {**WHOLE, "required": "ab"},
        {**WHOLE, "required": ["a", {}]},
        {**WHOLE, "properties": []},
        {**WHOLE, "additionalProperties": True},
        {**WHOLE, "$defs": {"d": OPTIONAL}},
        {**WHOLE, "properties": {"a": OPTIONAL, "b": {}}},
        {**WHOLE, "properties": {"a": {"anyOf": [OPTIONAL, {"type": "null"}]}, "b": {}}},
        {**WHOLE, "properties": {"a": {"type": "array", "items": OPTIONAL}, "b": {}}},
        {**WHOLE, "properties": {"a": {"allOf": [WHOLE]}, "b": {}}},
        {**WHOLE, "properties": {"a": {"oneOf": [WHOLE]}, "b": {}}},
        {**WHOLE, "properties": {"a": {"type": "string", "format": "uri"}, "b": {}}},
    ],
)
def test_another_schema_is_not_which_openai_would_refuse(schema: dict[str, Any]) -> None:
    assert strict_of(schema) == (None, None)


def test_a_tool_that_says_it_is_not_strict_is_not() -> None:
    for schema in (WHOLE, OPTIONAL):
        tool = {"name": "f", "input_schema": schema, "strict": False}
        assert parsed(tools=[tool])["tools"][0]["function"]["strict"] is False


def test_to_fill_its_cache_is_asked_of_the_vendor_and_for_one_token_of_others() -> None:
    call = parse(body(max_tokens=0))
    assert fields_of(call)["max_tokens"] == call.output_tokens_max == 1
    assert json.loads(messages_body(call, model="m", stream=False))["max_tokens"] == 0


def test_needs_are_seen_through_the_translation() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org"}}
    tool = {"name": "f", "input_schema": {"type": "object"}}
    wanted = {"format": {"type": "json_schema", "schema": {}}}
    call = parse(body(messages=[{"role": "user", "content": [image]}], tools=[tool], output_config=wanted, stream=True))
    assert set(call.needs) == {Capability.CHAT, Capability.VISION, Capability.TOOLS, Capability.JSON_SCHEMA}
    assert (call.stream, call.output_tokens_max, call.media) == (True, 9, 1)


def test_our_own_settings_are_read_and_not_passed_on() -> None:
    call = parse(body(tidegate={"class": "batch"}))
    assert call.knobs is not None
    assert "tidegate" not in fields_of(call)


SYSTEM = {"role": "system", "content": "be brief"}
TOLD = {"type": "text", "text": "<system>\nbe brief\n</system>"}
WORD = {"type": "text", "text": "hi"}
HELLO = {"role": "assistant", "content": "hello"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
GIVEN = {"role": "tool", "tool_call_id": "1", "content": "4"}
USE: dict[str, Any] = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": "4"}


MARKED = TOLD["text"]
BLANK = {"role": "system", "content": [{"type": "text", "text": ""}]}
IN_BLOCKS = {"type": "mid_conv_system", "content": [{"type": "text", "text": "be brief"}]}
IMAGED = {"type": "image", "source": IMAGE}


@pytest.mark.parametrize(
    ("messages", "made"),
    [
        ([*HI, SYSTEM], [("user", f"hi\n\n{MARKED}")]),
        ([*HI, SYSTEM, SYSTEM, HELLO], [("user", f"hi\n\n{MARKED}\n\n{MARKED}"), ("assistant", "hello")]),
        ([user_turn(WORD, IN_BLOCKS), HELLO], [("user", f"hi\n\n{MARKED}"), ("assistant", "hello")]),
        ([*HI, SYSTEM, *HI], [("user", f"hi\n\n{MARKED}"), ("user", "hi")]),
        ([*HI, HELLO, SYSTEM, *HI], [("user", "hi"), ("assistant", "hello"), ("user", f"{MARKED}\n\nhi")]),
        ([*HI, HELLO, SYSTEM], [("user", "hi"), ("assistant", "hello"), ("user", MARKED)]),
        ([*HI, HELLO, SYSTEM, HELLO],
         [("user", "hi"), ("assistant", "hello"), ("user", MARKED), ("assistant", "hello")]),
        ([*HI, USE, user_turn(RESULT), SYSTEM, HELLO],
         [("user", "hi"), ("assistant", None), ("tool", "4"), ("user", MARKED), ("assistant", "hello")]),
        ([*HI, USE, user_turn(RESULT, IN_BLOCKS)],
         [("user", "hi"), ("assistant", None), ("tool", "4"), ("user", MARKED)]),
        ([*HI, USE, SYSTEM, user_turn(RESULT, WORD)],
         [("user", "hi"), ("assistant", None), ("tool", "4"), ("user", f"{MARKED}\n\nhi")]),
        ([*HI, BLANK, HELLO], [("user", "hi"), ("assistant", "hello")]),
        ([SYSTEM, *HI], [("system", "be kind\n\nbe brief"), ("user", "hi")]),
    ],
)  # fmt: skip
def test_instructions_in_mid_conversation_are_marked_words_of_the_user_to_all_engines(
    messages: list[dict[str, Any]], made: list[tuple[str, Any]]
) -> None:
    """Templates of some models want what the system says at the beginning, and turns that alternate."""
    said = parsed(messages=messages, system="be kind")["messages"]
    assert [(message["role"], message["content"]) for message in said] == (
        made if made[0][0] == "system" else [("system", "be kind"), *made]
    )


def test_they_stand_behind_what_the_user_shows() -> None:
    (said,) = parsed(messages=[user_turn(IMAGED), SYSTEM])["messages"]
    assert [part["type"] for part in said["content"]] == ["image_url", "text"]
    assert said["content"][1]["text"] == MARKED


@pytest.mark.parametrize(
    ("messages", "made"),
    [
        ([*HI, SYSTEM], [user_turn(WORD, TOLD)]),
        ([*HI, SYSTEM, HELLO], [user_turn(WORD, TOLD), HELLO]),
        ([*HI, HELLO, SYSTEM, *HI], [*HI, HELLO, user_turn(TOLD, WORD)]),
        ([*HI, HELLO, SYSTEM, SYSTEM], [*HI, HELLO, user_turn(TOLD, TOLD)]),
        ([*HI, CALLED, GIVEN, SYSTEM, *HI], [*HI, USE, user_turn(RESULT, TOLD, WORD)]),
        ([*HI, CALLED, SYSTEM, GIVEN, HELLO], [*HI, USE, user_turn(RESULT, TOLD), HELLO]),
        ([*HI, {"role": "system", "content": " "}, HELLO], [*HI, HELLO]),
    ],
)
def test_instructions_in_mid_conversation_are_marked_words_of_the_user_to_the_vendor(
    messages: list[dict[str, Any]], made: list[dict[str, Any]]
) -> None:
    assert outward({"messages": messages})["messages"] == made


@given(conversations(spoken), st.lists(st.integers(1, 8), max_size=3))
def test_with_them_the_prompt_is_the_beginning_of_the_next_one(
    messages: list[dict[str, Any]], places: list[int]
) -> None:
    for place in places:
        messages.insert(place, SYSTEM)
    before = led([*messages, HELLO])
    assert led([*messages, HELLO, SYSTEM, *HI]) == [*before, {"role": "user", "content": f"{MARKED}\n\nhi"}]
    assert [message["role"] for message in before[1:]].count("system") == 0


@given(conversations(spoken), st.lists(st.integers(1, 8), max_size=3))
def test_turns_before_an_answer_stay_as_they_are_when_the_conversation_goes_on(
    messages: list[dict[str, Any]], places: list[int]
) -> None:
    for place in places:
        messages.insert(place, SYSTEM)
    messages.append(HELLO)
    before = outward({"messages": messages})["messages"]
    after = outward({"messages": [*messages, SYSTEM, *HI]})["messages"]
    assert after == [*before, user_turn(TOLD, WORD)]


def test_several_instructions_before_all_else_are_one_system() -> None:
    messages = [{"role": "developer", "content": "a"}, {"role": "system", "content": "b"}, *HI]
    assert outward({"messages": messages})["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_a_bound_is_made_up_where_the_hub_has_none() -> None:
    assert outward({"messages": HI})["max_tokens"] == OUTPUT_TOKENS_DEFAULT
    assert outward({"messages": HI, "max_tokens": 5, "max_completion_tokens": 6})["max_tokens"] == 6


def test_an_empty_call_has_no_arguments() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
    made = outward({"messages": [*HI, {"role": "assistant", "content": "", "tool_calls": [call]}]})
    assert made["messages"][1]["content"] == [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]


@pytest.mark.parametrize(
    ("told", "known"), [("image/jpg", "image/jpeg"), ("image/PNG", "image/png"), ("IMAGE/JPG", "image/jpeg")]
)
def test_an_image_goes_on_by_the_name_that_the_vendor_knows(told: str, known: str) -> None:
    made = outward(user_says(image_part(f"data:{told};base64,/9j/")))
    source = {"type": "base64", "media_type": known, "data": "/9j/"}
    assert made["messages"][0]["content"] == [{"type": "image", "source": source}]


NESTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": ["object", "null"], "properties": {"b": {"$ref": "#/$defs/c"}}},
        "d": {"type": "array", "items": {"type": "object", "properties": {}, **CLOSED}},
        "e": {"anyOf": [{"properties": {"additionalProperties": {"type": "string"}}}, {"type": "null"}]},
    },
    "$defs": {"c": {"type": "object", "properties": {"n": {"const": 12345678901234567890123}}}},
}


def formatted(schema: Any) -> Any:
    format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    return outward({"messages": HI, "response_format": format})["output_config"]["format"]["schema"]


def test_objects_of_a_schema_are_closed_as_the_vendor_wants_them() -> None:
    made = formatted(NESTED)
    properties = {
        "a": {**NESTED["properties"]["a"], **CLOSED},
        "d": NESTED["properties"]["d"],
        "e": {"anyOf": [{**NESTED["properties"]["e"]["anyOf"][0], **CLOSED}, {"type": "null"}]},
    }
    assert made == {**NESTED, "properties": properties, "$defs": {"c": {**NESTED["$defs"]["c"], **CLOSED}}, **CLOSED}


def test_what_is_said_of_an_object_in_several_places_is_left_as_it_is() -> None:
    part = {"type": "object", "properties": {"a": {"type": "string"}}}
    for schema in ({"type": "object", "allOf": [part, part]}, {"$ref": "#/$defs/a", "properties": {}}):
        assert formatted(schema) == schema


@pytest.mark.parametrize(
    "open",
    [
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object"},
        {"type": "array", "items": {"type": "object"}},
    ],
)
def test_an_object_of_members_that_have_no_names_is_asked_of_another_endpoint(open: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        formatted({"type": "object", "properties": {"a": open}})
    assert caught.value.param == "response_format"
    assert "`response_format`" in caught.value.message


def test_a_schema_that_is_nested_deeply_breaks_nothing() -> None:
    schema = b'{"items":' * 900 + b"{}" + b"}" * 900
    format = Raw(b'{"type":"json_schema","json_schema":{"name":"n","schema":%b}}' % schema)
    call = asked({"messages": HI})
    with suppress(BadRequest):
        messages_body(structs.replace(call, fields={**call.fields, "response_format": format}), model="m", stream=False)
    with suppress(BadRequest):
        parse(body(output_config=0).replace(b"0}", b'{"format":{"type":"json_schema","schema":%b}}}' % schema))


@pytest.mark.parametrize("parameters", [{}, {"properties": {}}, {"type": "object", "properties": {}}, None])
def test_a_schema_of_parameters_has_its_type(parameters: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    assert outward({"messages": HI, "tools": [tool]})["tools"] == [
        {"name": "f", "input_schema": {"type": "object", **(parameters or {})}}
    ]


def test_half_a_surrogate_pair_in_arguments_is_replaced() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": r'{"a":"\ud83d"}'}}
    made = outward({"messages": [*HI, {"role": "assistant", "content": None, "tool_calls": [call]}]})
    assert made["messages"][1]["content"][0]["input"] == {"a": "\ufffd"}


def test_tokens_are_counted_without_a_bound_and_said_to_be_an_estimate() -> None:
    data = json.dumps({"model": "m", "messages": [{"role": "user", "content": "word " * 400}]}).encode()
    tokens = estimated_tokens(parse(data, counting=True), TokenRatio())
    assert 400 <= tokens <= 600
    assert json.loads(counted(tokens)) == {"input_tokens": tokens, "estimated": True}


# --- what is not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"max_tokens": None}, "max_tokens", "`max_tokens`: is missing"),
        ({"max_tokens": -1}, "max_tokens", "whole number from 0"),
        ({"messages": []}, "messages", "non-empty"),
        ({"messages": [{"role": "user"}]}, "messages", "`messages[0].content`: is missing"),
        ({"messages": [{"role": "poet", "content": "a"}]}, "messages", "`messages[0].role`"),
        (user_says({"type": "document"}), "messages", "`messages[0].content[0].type`"),
        (user_says({"type": "text", "text": "a", "citation": []}), "messages",
         "`messages[0].content[0].citation` is not known here: did you mean `citations`?"),
        (
            user_says({"type": "text", "text": "a"}, {"type": "tool_result", "tool_use_id": "1"}),
            "messages",
            "`messages[0].content[1]`: a tool_result stands behind",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools", "`tools[0].type`"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice", "`tool_choice.name`: is missing"),
        (user_says({"type": "image", "source": IMAGE, "transformations": {}}), "messages", "].transformations`"),
        (user_says({"type": "tool_result", "tool_use_id": "1", "toolset_name": "t"}), "messages", "].toolset_name`"),
        ({"tools": [{"name": "f", "input_schema": {}, "allowed_callers": ["code_execution_20260120"]}]}, "tools",
         "`tools[0].allowed_callers[0]`"),
        ({"thread": {"type": "continue"}}, "thread", "the whole conversation"),
        ({"container": "c"}, "container", "cannot be carried"),
        ({"mcp_servers": []}, "mcp_servers", "cannot be carried"),
        ({"inference_geo": "us"}, "inference_geo", "x-tidegate-residency"),
        ({"max_token": 1}, "max_token", "did you mean `max_tokens`?"),
        ({"temprature": 1}, "temprature", "did you mean `temperature`?"),
        ({"seepd": "fast"}, "seepd", "did you mean `speed`?"),
        ({"of": 1, "Inference_Geo": "us"}, "Inference_Geo", "did you mean `inference_geo`?"),
        ({f"later_{at}": 1 for at in range(999)} | {"Thread": {}}, "Thread", "did you mean `thread`?"),
        (user_says({"type": "text", "text": "a", "Text": "b"}), "messages", "did you mean `text`?"),
        ({"tools": [{"name": "f", "input_schemas": {}}]}, "tools", "`tools[0].input_schemas` is not known here"),
        ({"fallbacks": "default"}, "fallbacks", "at another price"),
        ({"billing_policy": {"type": "billing_policy"}}, "billing_policy", "who pays"),
        ({"compaction": {}}, "compaction", "is not carried"),
        ({"system": 7}, "system", "a string or an array of text blocks"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management", "compact edits"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused_with_its_place(fields: dict[str, Any], param: str, said: str) -> None:
    error = refused(body(**fields))
    assert error.param == param
    assert said in error.message


def test_a_thread_is_refused_by_the_code_at_which_the_vendors_sdk_goes_on_without_one() -> None:
    for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}):
        assert refused(body(thread=thread)).code == "thread_unsupported_request"
    assert parsed(thread=None) == parsed()


@pytest.mark.parametrize("kind", ["advisor_20260301", "tool_search_tool_bm25_20251119"])
def test_a_tool_of_the_vendors_is_refused_in_the_words_at_which_claude_code_goes_on_without_it(kind: str) -> None:
    own = {"name": "f", "input_schema": {}}
    for tool in ({"type": kind, "name": "a", "model": "m"}, {"name": "a", "model": "m", "type": kind}):
        error = refused(body(tools=[own, tool]))
        assert error.param == "tools"
        assert error.message.startswith(f"`tools[1].type`: Input tag '{kind}' found using 'type' does not match any")


@pytest.mark.parametrize("tools", [[{"type": 7}], [7], {"type": "web_search_20250305"}, [{"name": "f"}]])
def test_tools_of_no_kind_at_all_are_refused_all_the_same(tools: Any) -> None:
    assert refused(body(tools=tools)).param == "tools"


def test_a_refusal_never_quotes_what_was_sent() -> None:
    for fields in ({"messages": [{"role": "SECRET", "content": "SECRET"}]}, {"tools": [{"type": "SECRET"}]}):
        assert "SECRET" not in refused(body(**fields)).message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"guided_regex": "a"}, "guided_regex"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        (user_says({"type": "file", "file": {}}), "messages"),
        (user_says(image_part("data:,a")), "messages"),
        (user_says(image_part("data:image/svg+xml;base64,AAAA")), "messages"),
        (user_says(image_part("data:image/bmp;base64,AAAA")), "messages"),
        (user_says({"type": "video_url", "video_url": {"url": "https://a/b"}}), "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [BROKEN]}]}, "messages"),
    ],
)  # fmt: skip
def test_what_an_engine_of_this_dialect_cannot_do_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        outward({"messages": HI, **fields})
    assert caught.value.param == param
    assert param in caught.value.message


def test_what_says_nothing_is_no_reason_to_refuse() -> None:
    quiet = {
        "n": 1,
        "logprobs": False,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "top_logprobs": 0,
        "logit_bias": {},
        "functions": [],
        "modalities": ["text"],
        "audio": None,
    }
    assert outward({"messages": HI, **quiet}).keys() == {"model", "max_tokens", "messages", "stream"}
    # As vLLM answers, and clients send it back.
    said: dict[str, Any] = {
        "role": "assistant",
        "content": "4",
        "refusal": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
    }
    assert outward({"messages": [*HI, said, *HI]})["messages"][1]["role"] == "assistant"


def test_every_field_of_the_sdk_has_its_fate() -> None:
    known = top_level(FIELDS, *Fate)
    for params in (message_create_params.MessageCreateParamsBase, message_count_tokens_params.MessageCountTokensParams):
        assert set(params.__annotations__) - set(known) == set()


def test_every_field_of_the_hub_has_its_fate() -> None:
    from openai.types.chat import completion_create_params

    known = top_level(OUTWARD, *Fate)
    assert set(completion_create_params.CompletionCreateParamsBase.__annotations__) - set(known) == set()


# --- what this vendor does not take ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "left"),
    [
        ([*HI, {"role": "assistant", "content": ""}, *HI], ["user", "user"]),
        ([{"role": "system", "content": " "}, *HI], ["user"]),
        ([*HI, {"role": "assistant", "content": [{"type": "text", "text": "\n"}]}], ["user"]),
        ([{"role": "user", "content": [{"type": "text", "text": ""}, image_part("https://a/b.png")]}], ["user"]),
    ],
)
def test_texts_without_a_word_are_left_out(messages: list[dict[str, Any]], left: list[str]) -> None:
    made = outward({"messages": messages})
    assert [message["role"] for message in made["messages"]] == left
    assert "system" not in made
    assert all(block["type"] == "image" for m in made["messages"] if m["content"] != "hi" for block in m["content"])


@pytest.mark.parametrize(
    "fields", [{"messages": [{"role": "user", "content": " "}]}, {"messages": HI, "stop": "\n"}, {"stop": ["a", " "]}]
)
def test_what_it_would_refuse_is_asked_of_another_endpoint(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        outward({"messages": HI, **fields})


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_of_tools_that_are_not_there_nothing_is_said(choice: str) -> None:
    sent = {"tools": [], "tool_choice": {"type": choice, "disable_parallel_tool_use": True}}
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(parsed(**sent))
    assert not {"tools", "tool_choice"} & set(outward({"messages": HI, "tool_choice": choice}))


def test_a_thought_that_nobody_sealed_is_not_sent_to_the_vendor() -> None:
    sealed = {"type": "thinking", "thinking": "b", "signature": "s"}
    said = {"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}}
    thought = {"type": "thinking", "thinking": "a", "signature": ""}
    messages = [
        *HI,
        {"role": "assistant", "content": [thought, sealed, said]},
        *HI,
        {"role": "assistant", "content": [thought]},
    ]
    call = parse(body(messages=messages))
    made = json.loads(messages_body(call, model="theirs", stream=False))
    assert made["messages"] == [*HI, {"role": "assistant", "content": [sealed, said]}, *HI]
    assert fields_of(call)["messages"][1]["reasoning_content"] == "ab", "others take it back"


# Those of Kimi K2, those that would be the same without what the vendor does not take, and none.
FOREIGN_IDS = ["functions.look:0", "functions.look.0", "functions_look:0", "über", ""]


def taken_ids(made: dict[str, Any]) -> list[str]:
    """The ids of the calls, which their results have too and which the vendor takes."""
    blocks = [block for message in made["messages"] if message["content"] != "hi" for block in message["content"]]
    calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    assert calls == [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    assert all(re.fullmatch("[a-zA-Z0-9_-]+", id) for id in calls)
    return calls


def test_a_call_that_another_engine_has_named_has_a_name_that_the_vendor_takes() -> None:
    ids = ["toolu_01-a", *FOREIGN_IDS]
    calls = [{"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}} for id in ids]
    results = [{"role": "tool", "tool_call_id": id, "content": "4"} for id in ids]
    said = [*HI, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    taken = taken_ids(outward({"messages": said}))
    assert taken[0] == ids[0]
    assert len(set(taken)) == len(ids)
    assert taken_ids(outward({"messages": said})) == taken

    uses = [{"type": "tool_use", "id": id, "name": "look", "input": {"id": id, "far": 1.0}} for id in ids]
    given = [{"type": "tool_result", "tool_use_id": id, "content": "4", "cache_control": {"ttl": "1h"}} for id in ids]
    sent = [*HI, {"role": "assistant", "content": uses}, {"role": "user", "content": given}]
    call = parse(body(messages=sent))
    assert call.native is not None
    assert [use["id"] for use in fields_of(call)["messages"][1]["tool_calls"]] == ids, "others know it as it came"
    read = json.loads(bytes(call.native.fields["messages"]))
    made = json.loads(messages_body(call, model="theirs", stream=False))
    assert taken_ids(made) == taken
    assert made["messages"] == read, "it is renamed once, however often it is sent"
    for block, id in zip((*uses, *given), 2 * taken, strict=True):
        block["id" if block["type"] == "tool_use" else "tool_use_id"] = id
    assert made["messages"] == sent


# --- hints of the vendor's in a chat --------------------------------------------------------------------------------

HINT = {"type": "ephemeral"}
HINTED = {"cache_control": HINT}


def test_a_chats_hint_about_the_cache_goes_to_the_block_that_it_is_of() -> None:
    """As opencode and others send it for the vendor's models: at parts, at messages, at calls and at results."""
    messages: list[dict[str, Any]] = [
        {**SYSTEM, **HINTED},
        {"role": "user", "content": [{**WORD, **HINTED}, image_part(IMAGE["url"])]},
        {**CALLED, "content": "look", "tool_calls": [{**CALL, **HINTED}]},
        {**GIVEN, **HINTED},
        {"role": "user", "content": "and?", **HINTED},
        {**HELLO, **HINTED},
        {**GIVEN, "content": [{"type": "text", "text": "5", **HINTED}]},
        {**SYSTEM, **HINTED},
    ]
    made = outward({"messages": messages})
    assert made["system"] == [{"type": "text", "text": "be brief", **HINTED}]
    assert made["messages"] == [
        user_turn({**WORD, **HINTED}, IMAGED),
        {"role": "assistant", "content": [{"type": "text", "text": "look"}, {**USE["content"][0], **HINTED}]},
        user_turn({**RESULT, **HINTED}, {"type": "text", "text": "and?", **HINTED}),
        {"role": "assistant", "content": [{"type": "text", "text": "hello", **HINTED}]},
        user_turn({**RESULT, "content": [{"type": "text", "text": "5", **HINTED}]}, {**TOLD, **HINTED}),
    ]


def test_a_hint_about_tools_goes_to_the_tool_that_it_is_of_and_one_about_all_stays_there() -> None:
    """As LiteLLM's clients have it at a tool or its function, and OpenRouter's at the whole."""
    longer = {"cache_control": {**HINT, "ttl": "1h"}}
    function = {"name": "f", "parameters": {"type": "object"}}
    tools = [
        {"type": "function", "function": function},
        {"type": "function", "function": function, **HINTED},
        {"type": "function", "function": {**function, **HINTED}},
        {"type": "function", "function": {**function, **HINTED}, **longer},
    ]
    made = outward({"messages": HI, "tools": tools, **HINTED})
    tool = {"name": "f", "input_schema": {"type": "object"}}
    assert made["tools"] == [tool, {**tool, **HINTED}, {**tool, **HINTED}, {**tool, **longer}]
    assert made["cache_control"] == HINT
    assert "cache_control" not in outward({"messages": HI})


def test_a_messages_hint_goes_to_its_last_block_unless_that_has_one_or_is_a_thought() -> None:
    longer = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    parts: list[dict[str, Any]] = [WORD, {**WORD, **longer}]
    assert outward({"messages": [{"role": "user", "content": parts, **HINTED}]})["messages"] == [user_turn(*parts)]
    thought = {"type": "reasoning.text", "text": "hm", "signature": "c2ln"}
    sealed = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    said = {"role": "assistant", "content": "", "reasoning_details": [thought], **HINTED}
    assert outward({"messages": [*HI, said, *HI]})["messages"][1]["content"] == [sealed]


def test_of_a_text_without_a_word_a_hint_is_left_out_with_it() -> None:
    messages = [{"role": "user", "content": [WORD, {"type": "text", "text": " ", **HINTED}]}]
    assert outward({"messages": messages})["messages"] == [user_turn(WORD)]
