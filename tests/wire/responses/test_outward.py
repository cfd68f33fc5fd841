"""What of a chat completion an engine of this dialect gets, and of a request in the same dialect."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import TypeAdapter

from tests.wire.hub import asked, choosing, conversations, fields_of, meaning, settings, texts
from tidegate.core.model import Capability
from tidegate.wire.errors import BadRequest
from tidegate.wire.fate import Fate, top_level
from tidegate.wire.openai import parse as parse_openai
from tidegate.wire.responses.outward import OUTPUT_TOKENS_MIN, OUTWARD, responses_body
from tidegate.wire.responses.request import parse

WHOLE: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsNonStreaming)
STREAMED: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsStreaming)
HI = [{"role": "user", "content": "hi"}]
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
SEALED |= {"encrypted_content": "gAAA"}
CALLED = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "4"}


def outward(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(responses_body(asked({"messages": HI, **fields}), model="theirs", stream=False))
    return made


def native(**fields: Any) -> dict[str, Any]:
    """What an engine of this dialect gets of a request in it."""
    call = parse(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    made: dict[str, Any] = json.loads(responses_body(call, model="theirs", stream=False))
    return made


def refused(**fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        outward(**fields)
    return caught.value


# --- laws -----------------------------------------------------------------------------------------------------------


def detailed(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with what is said of every image in this dialect."""
    for message in messages:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image_url":
                part["image_url"]["detail"] = "auto"
    return messages


def strict_said(fields: dict[str, Any]) -> dict[str, Any]:
    """The same with what a chat means where it says nothing of it."""
    for tool in fields.get("tools", ()):
        tool["function"].setdefault("strict", False)
    return fields


@given(conversations(texts.filter(bool)), settings(OUTPUT_TOKENS_MIN), choosing, st.booleans())
def test_what_the_hub_says_comes_back_from_the_other_dialect(
    messages: list[dict[str, Any]], chat: dict[str, Any], called: dict[str, Any], parallel: bool
) -> None:
    chat |= called | ({"parallel_tool_calls": parallel} if called else {})
    stream = chat.pop("stream", False)
    made = responses_body(asked({"messages": messages, **chat}), model="theirs", stream=stream)
    (STREAMED if stream else WHOLE).validate_json(made)
    back = fields_of(parse(made))
    assert back.pop("messages") == detailed(meaning(messages))
    assert back == {"model": "theirs", "stream": stream, **strict_said(chat)}


names = st.sampled_from(["model", "messages", "role", "content", "type", "text", "tools", "name", "format", "data"])
scalars = st.none() | st.text() | st.integers() | st.floats(allow_nan=False)
junk = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner))


@pytest.mark.lengthy
@given(st.dictionaries(st.sampled_from(sorted(top_level(OUTWARD, *Fate))), junk), conversations())
def test_no_chat_breaks_the_way_out(fields: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    with suppress(BadRequest):
        outward(**{"messages": messages, **fields, "model": "m"})


# --- what is carried ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [None, True, False])
def test_nothing_is_ever_stored(store: bool | None) -> None:
    said = {} if store is None else {"store": store}
    assert outward(**said)["store"] is native(**said)["store"] is False


def test_a_tool_that_says_nothing_of_it_is_not_strict() -> None:
    """In this dialect it would be, and a schema that was not made for that is refused."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    assert outward(tools=[tool])["tools"] == [
        {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
    ]


def test_of_tools_that_are_not_there_nothing_is_said() -> None:
    for choice in ("auto", "none"):
        made = outward(tools=[], tool_choice=choice, parallel_tool_calls=False)
        assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(made)
    assert outward(tool_choice="required")["tool_choice"] == "required", "its engine tells what is wrong"


def test_the_newer_name_of_the_bound_goes_before_the_older() -> None:
    assert outward(max_tokens=50)["max_output_tokens"] == 50
    assert outward(max_tokens=50, max_completion_tokens=60)["max_output_tokens"] == 60


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_bound_below_the_vendors_least_is_refused_and_never_raised(name: str) -> None:
    """The answer would be longer than what was asked for, and cost more than was held back for it."""
    error = refused(**{name: OUTPUT_TOKENS_MIN - 1})
    assert (error.param, str(OUTPUT_TOKENS_MIN) in error.message) == (name, True)
    assert outward(**{name: OUTPUT_TOKENS_MIN})["max_output_tokens"] == OUTPUT_TOKENS_MIN
    # Who speaks the dialect is told by its vendor: engines take smaller ones.
    assert native(max_output_tokens=1)["max_output_tokens"] == 1


def test_a_call_and_its_result_keep_one_id_that_the_vendor_takes() -> None:
    long = "call_" + "x" * 60
    other = "call_" + "x" * 59 + "y"
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": id, "type": "function", "function": function} for id in (long, other, "short")]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "4"} for call in calls]
    made = outward(messages=[*HI, {"role": "assistant", "content": None, "tool_calls": calls}, *results])["input"]
    ids = [item["call_id"] for item in made if item["type"] == "function_call"]
    assert ids == [item["call_id"] for item in made if item["type"] == "function_call_output"]
    assert len(set(ids)) == 3
    assert ids[2] == "short"
    assert max(map(len, ids)) <= 64


def test_a_refusal_comes_back_as_one() -> None:
    said = {"role": "assistant", "content": None, "refusal": "no"}
    parts = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]}
    made = outward(messages=[*HI, said, *HI, parts])["input"]
    assert [item["content"] for item in made if item["role"] == "assistant"] == [
        [{"type": "refusal", "refusal": "no"}],
        [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
    ]


def detail(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"reasoning.{kind}", "format": "openai-responses-v1", **fields}


def test_a_sealed_thought_of_the_hub_goes_back_to_its_maker_before_what_came_of_it() -> None:
    details = [
        detail("summary", summary="one ", index=0),
        detail("summary", summary="part", index=0),
        detail("summary", summary="another", index=1),
        detail("encrypted", data="gAAA", id="rs_1", index=2),
        detail("encrypted", data="gBBB", id="rs_2", index=3),
        detail("summary", summary="that nobody has sealed", index=4),
    ]
    message = {"role": "assistant", "content": "4", "reasoning_content": "hm", "reasoning_details": details}
    _, first, second, said = outward(messages=[*HI, message])["input"]
    assert [part["text"] for part in first["summary"]] == ["one part", "another"]
    assert (first["id"], first["encrypted_content"]) == ("rs_1", "gAAA")
    assert second == {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gBBB"}
    assert said["content"] == "4"


@pytest.mark.parametrize("format", [None, "anthropic-claude-v1", "google-gemini-v1"])
def test_what_another_has_sealed_is_set_aside(format: str | None) -> None:
    details = [{"type": "reasoning.encrypted", "data": "eA==", "format": format}]
    details += [{"type": "reasoning.text", "text": "hm", "signature": "c2ln", "format": format}]
    message = {"role": "assistant", "content": "4", "reasoning_content": "hm"}
    there = outward(messages=[*HI, message | {"reasoning_details": details}])
    assert there == outward(messages=[*HI, message]) == outward(messages=[*HI, {"role": "assistant", "content": "4"}])


def test_a_thought_that_led_to_nothing_is_not_sent_back() -> None:
    """The vendor wants what came of it behind each."""
    thought = {"role": "assistant", "content": "", "reasoning_details": [detail("encrypted", data="gAAA", id="rs_1")]}
    assert outward(messages=[*HI, thought, *HI]) == outward(messages=[*HI, *HI])


def test_no_summary_and_no_seal_is_asked_for() -> None:
    """Some of the vendor's models refuse either; those that think seal their thoughts of themselves."""
    made = outward(reasoning_effort="high")
    assert made["reasoning"] == {"effort": "high"}
    assert "include" not in made


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"stop": "END"}, "stop"),
        ({"stop": ["END"]}, "stop"),
        ({"seed": 1}, "seed"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -0.5}, "presence_penalty"),
        ({"top_k": 3}, "top_k"),
        ({"audio": {"voice": "a", "format": "wav"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"prediction": {"type": "content", "content": "a"}}, "prediction"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
        ({"odd": 1}, "odd"),
    ],
)
def test_what_the_dialect_cannot_say_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_what_asks_for_none_of_that_is_carried() -> None:
    nothing = {"n": 1, "stop": [], "logit_bias": {}, "frequency_penalty": 0, "presence_penalty": 0.0, "functions": []}
    nothing |= {"modalities": ["text"], "logprobs": False, "seed": None, "stream_options": {"include_usage": True}}
    assert outward(**nothing) == outward()


def test_a_completion_is_not_carried() -> None:
    with pytest.raises(BadRequest):
        responses_body(parse_openai(b'{"model":"m","prompt":"a"}', Capability.COMPLETION), model="m", stream=False)


# --- a request in the same dialect ----------------------------------------------------------------------------------


def test_a_request_in_the_same_dialect_goes_on_as_it_came() -> None:
    said = {"role": "assistant", "phase": "commentary", "content": [{"type": "output_text", "text": "a"}]}
    sent: dict[str, Any] = {
        "input": [*HI, SEALED, said, CALLED, RESULT],
        "instructions": "be brief",
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "high", "summary": "auto"},
        "tools": [{"type": "function", "name": "f", "parameters": {}, "strict": None, "output_schema": {}}],
        "client_metadata": {"x-codex-turn": "t"},
        "truncation": "auto",
        "prompt_cache_options": {"ttl": "30m"},
        "tool_choice": "auto",
    }
    made = native(**sent, tidegate={"class": "batch"}, stream=True)
    assert made == {**sent, "model": "theirs", "stream": False, "store": False}


def test_of_a_request_in_the_same_dialect_what_is_of_a_store_goes_nowhere() -> None:
    assert native(store=True, metadata={"a": "b"}) == native()


def test_a_thought_that_its_maker_has_not_sealed_is_not_sent_back_to_it() -> None:
    """It looks them up by their names, finds none where nothing is stored, and refuses the rest with it."""
    open_thoughts = [
        {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "reasoning", "id": "rs_3", "summary": [], "encrypted_content": None},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
    ]
    assert native(input=[*HI, *open_thoughts, SEALED, CALLED, RESULT])["input"] == [*HI, SEALED, CALLED, RESULT]


def test_of_a_sealed_thought_neither_text_nor_status_is_sent_back() -> None:
    """The vendor takes neither."""
    more = {"status": "completed", "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert native(input=[*HI, SEALED | more, CALLED, RESULT])["input"] == [*HI, SEALED, CALLED, RESULT]


def test_what_sdks_have_in_what_they_read_is_not_sent_back() -> None:
    told = {"type": "output_text", "text": "hi", "annotations": []}
    said = {"type": "message", "role": "assistant", "content": [told]}
    read = said | {"content": [told | {"parsed": {"a": 1}}]}
    items = [read, CALLED | {"parsed_arguments": {}, "async_": None}, RESULT | {"namespace": None}]
    assert native(input=items)["input"] == [said, CALLED, RESULT]


def test_no_mode_is_asked_for_in_which_another_model_may_answer() -> None:
    assert native(input="hi", reasoning={"effort": "low", "mode": "pro"})["reasoning"] == {"effort": "low"}
    assert native(input="hi", reasoning=None)["reasoning"] is None


def test_names_of_messages_and_calls_are_not_sent_back() -> None:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}
    named = [*HI, SEALED, said | {"id": "msg_1"}, CALLED | {"id": "fc_1"}, RESULT | {"id": "fco_1"}]
    assert native(input=named)["input"] == [*HI, SEALED, said, CALLED, RESULT]


def test_an_id_of_a_call_that_the_vendor_does_not_take_becomes_the_one_that_it_is_elsewhere() -> None:
    long = "x" * 65
    _, call, result = native(input=[*HI, CALLED | {"call_id": long}, RESULT | {"call_id": long}])["input"]
    function = {"id": long, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    _, there, _ = outward(
        messages=[
            *HI,
            {"role": "assistant", "content": None, "tool_calls": [function]},
            {"role": "tool", "tool_call_id": long, "content": "4"},
        ]
    )["input"]
    assert call["call_id"] == result["call_id"] == there["call_id"] != long


def test_a_string_is_sent_as_it_is() -> None:
    assert native(input="hi")["input"] == "hi"


@given(st.booleans())
def test_whether_it_is_streamed_is_for_the_gateway_to_say(stream: bool) -> None:
    call = parse(json.dumps({"model": "m", "input": "hi", "stream": not stream}).encode())
    assert json.loads(responses_body(call, model="theirs", stream=stream))["stream"] is stream
