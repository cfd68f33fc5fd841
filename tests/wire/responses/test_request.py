"""Requests of the Responses API become chats."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import (
    ParsedResponseFunctionToolCall,
    ParsedResponseOutputMessage,
    ParsedResponseOutputText,
    ResponseFunctionToolCall,
    ResponseInputImage,
    response_create_params,
)

from tests.wire.hub import choosing, conversations, fields_of, meaning, settings, steps, text_part, texts
from tidegate.core.model import Capability
from tidegate.wire.errors import BadRequest
from tidegate.wire.fate import Fate, top_level
from tidegate.wire.responses.request import parse
from tidegate.wire.responses.shapes import FIELDS

HI = [{"role": "user", "content": "hi"}]
CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def parsed(**fields: Any) -> dict[str, Any]:
    return fields_of(parse(body(**fields)))


def refused(data: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(data)
    return caught.value


# --- the same conversation as items ---------------------------------------------------------------------------------


def items(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            output = content(message["content"], "input_text")
            found.append({"type": "function_call_output", "call_id": message["tool_call_id"], "output": output})
            continue
        if message.get("reasoning_content"):
            thought = [{"type": "reasoning_text", "text": message["reasoning_content"]}]
            found.append({"type": "reasoning", "id": "rs_1", "summary": [], "content": thought})
        if message["content"] is not None:
            kind = "output_text" if message["role"] == "assistant" else "input_text"
            found.append({"role": message["role"], "content": content(message["content"], kind)})
        calls = message.get("tool_calls", ())
        found += [{"type": "function_call", "call_id": call["id"], **call["function"]} for call in calls]
    return found


def content(said: Any, kind: str) -> Any:
    if isinstance(said, str):
        return said
    return [
        {"type": kind, "text": part["text"]}
        if part["type"] == "text"
        else {"type": "input_image", "image_url": part["image_url"]["url"], "detail": None}
        for part in said
    ]


@st.composite
def thinking(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation in which the assistant may have thought."""
    messages = draw(conversations())
    for message in messages:
        if message["role"] == "assistant" and draw(st.booleans()):
            message["reasoning_content"] = draw(texts.filter(bool))
    return messages


@given(thinking(), settings(), choosing, st.booleans())
def test_what_both_dialects_can_say_is_carried_exactly(
    messages: list[dict[str, Any]], chat: dict[str, Any], called: dict[str, Any], parallel: bool
) -> None:
    chat |= called | ({"parallel_tool_calls": parallel} if called else {})
    assert parsed(**as_responses(chat), input=items(messages)) == {"model": "m", "messages": meaning(messages), **chat}


def test_of_tools_that_are_not_there_nothing_is_said() -> None:
    for choice in ("auto", "none"):
        sent = parsed(input="hi", tools=[], tool_choice=choice, parallel_tool_calls=False)
        assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(sent)
    assert parsed(input="hi", tool_choice="required")["tool_choice"] == "required", "its engine tells what is wrong"


def as_responses(chat: dict[str, Any]) -> dict[str, Any]:
    sent = dict(chat)
    text: dict[str, Any] = {}
    if "max_tokens" in sent:
        sent["max_output_tokens"] = sent.pop("max_tokens")
    if "reasoning_effort" in sent:
        sent["reasoning"] = {"effort": sent.pop("reasoning_effort"), "summary": "auto"}
    if "verbosity" in sent:
        text["verbosity"] = sent.pop("verbosity")
    if "response_format" in sent:
        format = sent.pop("response_format")
        text["format"] = {"type": format["type"], **format.get("json_schema", {})}
    if text:
        sent["text"] = text
    if "tools" in sent:
        sent["tools"] = [{"type": "function", **tool["function"]} for tool in sent["tools"]]
    if isinstance(sent.get("tool_choice"), dict):
        sent["tool_choice"] = {"type": "function", **sent["tool_choice"]["function"]}
    return sent


names = st.sampled_from(["model", "input", "role", "content", "type", "text", "call_id", "tools", "name", "summary"])
scalars = st.none() | st.text() | st.integers() | st.floats(allow_nan=False)
junk = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner))


@given(junk.map(lambda value: json.dumps(value).encode()) | junk.map(lambda v: body(input=[v])) | st.binary())
def test_no_body_breaks_it(data: bytes) -> None:
    with suppress(BadRequest):
        parse(data)


# --- what is carried ------------------------------------------------------------------------------------------------


def test_a_string_is_what_the_user_says_after_the_instructions() -> None:
    assert parsed(instructions="be brief")["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]


@pytest.mark.parametrize(("role", "kind"), [("user", "input_text"), ("assistant", "output_text")])
def test_parts_of_text_alone_are_one_string_whoever_says_them(role: str, kind: str) -> None:
    one, other = {"type": kind, "text": "a\n"}, {"type": kind, "text": "b"}
    said = parsed(input=[{"role": role, "content": [one]}, *HI, {"role": role, "content": [one, other]}])["messages"]
    assert [message["content"] for message in said] == ["a\n", "hi", "a\n\n\nb"]


def test_what_a_tool_gives_is_a_string_unless_it_shows_an_image() -> None:
    text, image = {"type": "input_text", "text": "4"}, {"type": "input_image", "image_url": "https://example.org"}
    output = {"type": "function_call_output", "call_id": "1"}
    sent = [CALL, {**output, "output": [text]}, {**output, "output": [text, image]}]
    _, told, shown = parsed(input=sent)["messages"]
    assert told["content"] == "4"
    assert [part["type"] for part in shown["content"]] == ["text", "image_url"]


TOLD = {"role": "developer", "content": [{"type": "input_text", "text": "be brief"}]}
MARKED = "<system>\nbe brief\n</system>"


def test_developers_speak_as_the_system() -> None:
    assert parsed(input=[TOLD, *HI])["messages"] == [{"role": "system", "content": "be brief"}, *HI]


@pytest.mark.parametrize("role", ["developer", "system"])
def test_instructions_in_mid_conversation_are_marked_words_of_the_user(role: str) -> None:
    """Templates of some models have no place for the system's there."""
    told = {**TOLD, "role": role}
    sent = [*HI, told, said_by_assistant("hello"), told, *HI, CALL, told, RESULTS[0]]
    assert [(message["role"], message["content"]) for message in parsed(input=sent, instructions="a")["messages"]] == [
        ("system", "a"),
        ("user", f"hi\n\n{MARKED}"),
        ("assistant", "hello"),
        ("user", f"{MARKED}\n\nhi"),
        ("assistant", None),
        ("tool", "4"),
        ("user", MARKED),
    ]


def test_instructions_before_all_else_are_one_message() -> None:
    """Templates of some models have no place for a second one."""
    said = [{"role": "developer", "content": [{"type": "input_text", "text": "be kind"}]}, *HI]
    assert parsed(instructions="be brief", input=said)["messages"] == [
        {"role": "system", "content": "be brief\n\nbe kind"},
        {"role": "user", "content": "hi"},
    ]


def test_empty_instructions_are_none() -> None:
    said = [{"role": "developer", "content": "be kind"}, *HI]
    assert parsed(instructions="", input=said)["messages"] == parsed(input=said)["messages"]


def test_what_an_agent_notes_of_itself_changes_nothing() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    output = {"type": "function_call_output", "call_id": "1", "output": "4"}
    sent: list[dict[str, Any]] = [*HI, thought, CALL, output]
    noted = [{**item, "internal_chat_message_metadata_passthrough": {"turn_id": "t1"}} for item in sent]
    assert parsed(input=noted, client_metadata={"x-codex-installation-id": "i"}) == parsed(input=sent)


def test_a_thought_and_calls_are_one_message_of_the_assistant() -> None:
    sent = [
        {
            "type": "reasoning",
            "id": "rs",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "x",
        },
        {"type": "function_call", "id": "fc", "call_id": "1", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "4"},
    ]
    first, second = parsed(input=sent)["messages"]
    assert (first["content"], first["reasoning_content"]) == (None, "hm")
    assert [call["function"]["name"] for call in first["tool_calls"]] == ["f", "g"]
    assert second == {"role": "tool", "tool_call_id": "1", "content": "4"}


def said_by_assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "output_text", "text": text}]}


THOUGHT = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
OTHER = {**CALL, "call_id": "2", "name": "g"}
RESULTS = [{"type": "function_call_output", "call_id": id, "output": "4"} for id in ("1", "2")]


@pytest.mark.parametrize(
    ("between", "content", "thought"),
    [
        ([CALL, said_by_assistant("and"), OTHER], "and", None),
        ([CALL, THOUGHT, OTHER], None, "hm"),
        ([CALL, THOUGHT, said_by_assistant("and"), OTHER], "and", "hm"),
        ([CALL, OTHER, THOUGHT, said_by_assistant("and")], "and", "hm"),
        ([CALL, OTHER, THOUGHT], None, "hm"),
        ([THOUGHT, said_by_assistant("one"), CALL, THOUGHT, said_by_assistant("and"), OTHER], "one\n\nand", "hmhm"),
        ([CALL, said_by_assistant("and"), said_by_assistant(""), OTHER, said_by_assistant("so")], "and\n\nso", None),
    ],
)
def test_what_is_said_between_calls_stands_before_them_so_that_their_results_follow(
    between: list[dict[str, Any]], content: str | None, thought: str | None
) -> None:
    first, *results = parsed(input=[*HI, *between, *RESULTS])["messages"][1:]
    assert (first["role"], first["content"], first.get("reasoning_content")) == ("assistant", content, thought)
    assert [call["id"] for call in first["tool_calls"]] == ["1", "2"]
    assert [result["tool_call_id"] for result in results] == ["1", "2"]


def test_a_refusal_between_calls_stays_a_part() -> None:
    no = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    said, *_ = parsed(input=[said_by_assistant("a"), CALL, no, OTHER, *RESULTS])["messages"]
    assert said["content"] == [text_part("a"), {"type": "refusal", "refusal": "no"}]
    said, *_ = parsed(input=[said_by_assistant("a"), CALL, said_by_assistant("b"), no, OTHER, *RESULTS])["messages"]
    assert said["content"] == [text_part("a"), text_part("b"), {"type": "refusal", "refusal": "no"}]


def test_steps_grow_with_what_is_said_between_calls_and_not_with_its_square() -> None:
    def body(count: int) -> bytes:
        no = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
        return json.dumps({"model": "m", "input": [CALL, *[THOUGHT, no] * count, *RESULTS[:1]]}).encode()

    few, many = body(50), body(500)
    assert steps(lambda: parse(many)) < 11 * steps(lambda: parse(few))


def test_what_is_said_behind_results_is_a_message_of_its_own() -> None:
    sent = [CALL, RESULTS[0], THOUGHT, said_by_assistant("and"), OTHER, RESULTS[1]]
    messages = parsed(input=sent)["messages"]
    assert [message["role"] for message in messages] == ["assistant", "tool", "assistant", "tool"]
    assert (messages[2]["content"], messages[2]["reasoning_content"]) == ("and", "hm")


def test_a_thought_that_led_to_nothing_is_not_lost() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    assert parsed(input=[thought, {"role": "user", "content": "go on"}])["messages"] == [
        {"role": "assistant", "content": "", "reasoning_content": "hm"},
        {"role": "user", "content": "go on"},
    ]


def test_a_refusal_and_what_the_sdk_gave_back_can_be_sent_again() -> None:
    said = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [
            {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "b"},
        ],
    }
    assert parsed(input=[said])["messages"][0]["content"] == [text_part("a"), {"type": "refusal", "refusal": "b"}]


def test_what_the_sdk_dumps_of_items_can_be_sent_again() -> None:
    call = ResponseFunctionToolCall(type="function_call", call_id="1", name="f", arguments="{}")
    output = {"type": "function_call_output", "call_id": "1", "output": "4", "caller": None, "namespace": None}
    image = ResponseInputImage(type="input_image", image_url="https://example.org", detail="auto")
    for by_alias in (True, False):
        sent = [call.model_dump(by_alias=by_alias), output, {"role": "user", "content": [image.model_dump()]}]
        assert [message["role"] for message in parsed(input=sent)["messages"]] == ["assistant", "tool", "user"]


def test_what_the_sdk_has_parsed_can_be_sent_again() -> None:
    call = ParsedResponseFunctionToolCall.model_validate({**CALL, "parsed_arguments": {"city": "Rome"}})
    text = ParsedResponseOutputText(type="output_text", text="{}", annotations=[], parsed={"a": 1})
    said = ParsedResponseOutputMessage(
        type="message", id="1", role="assistant", status="completed", content=[text], phase=None
    )
    messages = parsed(input=[said.model_dump(), call.model_dump()])["messages"]
    assert [(message["role"], len(message["tool_calls"])) for message in messages] == [("assistant", 1)]


def test_needs_are_seen_through_the_translation() -> None:
    image = {"type": "input_image", "image_url": "https://example.org", "detail": "low"}
    format = {"type": "json_schema", "name": "n", "schema": {}}
    tool: dict[str, Any] = {"type": "function", "name": "f", "parameters": {}, "strict": None}
    sent = [{"role": "user", "content": [image]}]
    call = parse(body(input=sent, text={"format": format}, tools=[tool], max_output_tokens=5))
    assert set(call.needs) == {Capability.CHAT, Capability.VISION, Capability.TOOLS, Capability.JSON_SCHEMA}
    assert call.output_tokens_max == 5
    assert fields_of(call)["messages"][0]["content"][0]["image_url"]["detail"] == "low"


def test_our_own_settings_are_read_and_not_passed_on() -> None:
    call = parse(body(tidegate={"class": "batch"}))
    assert call.knobs is not None
    assert "tidegate" not in fields_of(call)


def test_what_needs_a_memory_or_a_vendor_is_refused_only_where_it_is_asked_for() -> None:
    quiet = {"previous_response_id": None, "background": False, "conversation": None, "top_logprobs": 0, "store": True}
    assert parsed(**quiet, include=["reasoning.encrypted_content"], tools=[]).keys() == {"model", "messages"}


# --- what is not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole conversation"),
        ({"conversation": "conv_1"}, "conversation", "send the whole conversation"),
        ({"prompt": {"id": "p"}}, "prompt", "templates"),
        ({"background": True}, "background", "nothing is kept for later"),
        ({"top_logprobs": 2}, "top_logprobs", "log-probabilities"),
        ({"include": ["message.output_text.logprobs"]}, "include", "log-probabilities"),
        ({"tools": [{"type": "web_search"}]}, "tools", "a vendor runs are not served here"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "tools", "`tools[0]"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice", "must be auto, none, required"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text", "`text.format.name`: is missing"),
        ({"input": []}, "input", "a non-empty array"),
        ({"input": 7}, "input", "a non-empty array"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input", "`input[0].type`"),
        ({"input": [{"role": "user"}]}, "input", "`input[0].content`: is missing"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input", "`input[0].content[0].type`"),
        ({"input": [{"role": "user", "content": "a", "odd": 1}]}, "input", "`input[0].odd`"),
        ({"input": [{"type": "function_call", "call_id": "1", "name": "f"}]}, "input", "`input[0].arguments`"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "a", "file_id": "f"}]}]}, "input",
         "`input[0].content[0].file_id`"),
        ({"input": [{**CALL, "namespace": "n"}]}, "input", "`input[0].namespace`"),
        ({"input": [{**CALL, "async": True}]}, "input", "`input[0].async`"),
        ({"input": [{**CALL, "async_": True}]}, "input", "`input[0].async_`"),
        ({"odd": 1}, "odd", "is not a field"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused_with_its_place(fields: dict[str, Any], param: str, said: str) -> None:
    error = refused(body(**fields))
    assert error.param == param
    assert said in error.message


def test_only_users_show_images() -> None:
    image = {"type": "input_image", "image_url": "https://example.org"}
    assert "`input[0].content[0]`" in refused(body(input=[{"role": "system", "content": [image]}])).message


def test_a_refusal_never_quotes_what_was_sent() -> None:
    for sent in (
        [{"type": "SECRET"}],
        [{"role": "SECRET", "content": "SECRET"}],
        [{"role": "user", "content": ["SECRET"]}],
    ):
        assert "SECRET" not in refused(body(input=sent)).message


def test_every_field_of_the_sdk_has_its_fate() -> None:
    known = top_level(FIELDS, *Fate)
    assert set(response_create_params.ResponseCreateParamsBase.__annotations__) - set(known) == set()
