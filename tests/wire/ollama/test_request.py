"""Requests of Ollama's clients become chats."""

import base64
import json
from contextlib import suppress
from typing import Any

import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.hub import calls, dumped, fields_of, objects, optional, steps, text_part, texts, tools, words
from tidegate.core.model import Capability
from tidegate.wire.errors import BadRequest
from tidegate.wire.fate import Fate, top_level
from tidegate.wire.ollama.request import parse_chat, parse_generate
from tidegate.wire.ollama.shapes import CHAT, GENERATE, OPTIONS

HI = [{"role": "user", "content": "hi"}]
PNG, JPEG = base64.b64encode(b"\x89PNG\r\n\x1a\n0").decode(), base64.b64encode(b"\xff\xd8\xff\xe0").decode()


def chat(**fields: Any) -> dict[str, Any]:
    return fields_of(parse_chat(dumped({"model": "m", "messages": HI, **fields}).encode()))


def generate(**fields: Any) -> dict[str, Any]:
    return fields_of(parse_generate(json.dumps({"model": "m", "prompt": "hi", **fields}).encode()))


def refused(parse: Any, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(**fields)
    return caught.value


# --- the same conversation in the other dialect ---------------------------------------------------------------------


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What the hub says and Ollama can: one text a message, images as data."""
    found: list[dict[str, Any]] = [{"role": "system", "content": text} for text in draw(st.lists(texts, max_size=1))]
    for shown in draw(st.lists(st.lists(st.sampled_from([("png", PNG), ("jpeg", JPEG)]), max_size=2), min_size=1)):
        text = draw(texts)
        images = [
            {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}} for kind, data in shown
        ]
        parts = ([text_part(text)] if text else []) + images
        found.append({"role": "user", "content": parts if images else text})
        if draw(st.booleans()):
            made = [{**call, "id": f"{call['id']}_{len(found)}"} for call in draw(calls())]
            said = {"role": "assistant", "content": draw(st.none() | texts.filter(bool)), "tool_calls": made}
            found.append(said | ({"reasoning_content": draw(words)} if draw(st.booleans()) else {}))
            found += [{"role": "tool", "content": draw(texts), "tool_call_id": call["id"]} for call in made]
        found.append({"role": "assistant", "content": draw(texts)})
    return found


def as_ollama(messages: list[dict[str, Any]], *, ids: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for message in messages:
        said = message["content"]
        made: dict[str, Any] = {"role": message["role"], "content": said if isinstance(said, str) else ""}
        for part in said if isinstance(said, list) else ():
            if part["type"] == "text":
                made["content"] = part["text"]
            else:
                made.setdefault("images", []).append(part["image_url"]["url"].partition(",")[2])
        if message.get("reasoning_content"):
            made["thinking"] = message["reasoning_content"]
        for call in message.get("tool_calls", ()):
            function = {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
            made.setdefault("tool_calls", []).append({"function": function, **({"id": call["id"]} if ids else {})})
        if ids and message["role"] == "tool":
            made["tool_call_id"] = message["tool_call_id"]
        found.append(made)
    return found


def without_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same, its calls numbered by their order."""
    numbers: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            numbers[call["id"]] = f"call_{len(numbers)}"
    text = dumped(messages)
    for id, number in sorted(numbers.items(), reverse=True):
        text = text.replace(f'"{id}"', f'"{number}"')
    found: list[dict[str, Any]] = json.loads(text)
    return found


plain = optional(
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1),
    top_k=st.integers(0, 100),
    min_p=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    stop=st.lists(texts, min_size=1, max_size=2),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
)


@given(conversations(), plain, optional(max_tokens=st.integers(1, 10**6)), optional(tools=tools()), st.booleans())
def test_what_both_dialects_can_say_is_carried_exactly(
    messages: list[dict[str, Any]], options: dict[str, Any], bound: dict[str, Any], more: dict[str, Any], ids: bool
) -> None:
    given = options | ({"num_predict": bound["max_tokens"]} if bound else {})
    made = chat(messages=as_ollama(messages, ids=ids), options=given, **more)
    expected = messages if ids else without_ids(messages)
    assert made == {"model": "m", "stream": True, "messages": expected, **options, **bound, **more}


@given(texts.filter(bool), optional(system=texts.filter(bool)), objects.filter(bool))
def test_a_prompt_is_what_the_user_says(prompt: str, system: dict[str, str], schema: dict[str, Any]) -> None:
    made = generate(prompt=prompt, **system, format=schema, stream=False)
    before = [{"role": "system", "content": text} for text in system.values()]
    assert made["messages"] == [*before, {"role": "user", "content": prompt}]
    assert made["response_format"]["json_schema"]["schema"] == schema
    assert "strict" not in made["response_format"]["json_schema"]
    assert made["stream"] is False


names = st.sampled_from(["model", "messages", "role", "content", "prompt", "options", "images", "tool_calls", "format"])
scalars = st.none() | st.text() | st.integers() | st.floats(allow_nan=False)
junk = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner))


@given(junk.map(lambda value: json.dumps(value).encode()) | st.binary(), st.sampled_from([parse_chat, parse_generate]))
def test_no_body_breaks_it(data: bytes, parse: Any) -> None:
    with suppress(BadRequest):
        parse(data)


# --- what is carried ------------------------------------------------------------------------------------------------


def test_it_streams_where_the_request_does_not_say() -> None:
    assert (
        chat()["stream"] is generate()["stream"] is chat(stream=None)["stream"] is chat(stream=True)["stream"] is True
    )
    assert chat(stream=False)["stream"] is False


@pytest.mark.parametrize("option", ["num_ctx", "num_gpu", "num_thread", "num_batch", "mirostat", "repeat_penalty"])
def test_what_would_load_a_model_anew_is_never_passed_on(option: str) -> None:
    assert chat(options={option: 4}).keys() == generate(options={option: 4}).keys() == {"model", "stream", "messages"}


def test_without_a_bound_there_is_none() -> None:
    assert "max_tokens" not in chat(options={"num_predict": -1})
    assert chat(options={"num_predict": 7})["max_tokens"] == 7


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({"think": False}, {"reasoning_effort": "none"}),
        ({"think": True}, {}),
        ({"think": "low"}, {"reasoning_effort": "low"}),
        ({"format": "json"}, {"response_format": {"type": "json_object"}}),
        ({"format": ""}, {}),
        ({"keep_alive": "5m"}, {}),
        ({"logprobs": False, "tools": []}, {}),
    ],
)
def test_settings_are_the_hubs_where_it_has_them(fields: dict[str, Any], made: dict[str, Any]) -> None:
    assert chat(**fields) == {"model": "m", "stream": True, "messages": HI, **made}


def test_results_find_their_calls_by_name_then_by_order() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {}}}

    messages = [
        {"role": "assistant", "tool_calls": [call("f"), call("g"), call("f")]},
        {"role": "tool", "tool_name": "g", "content": "2"},
        {"role": "tool", "tool_name": "f", "content": "1"},
        {"role": "tool", "content": "3"},
    ]
    _, *results = chat(messages=messages)["messages"]
    assert [result["tool_call_id"] for result in results] == ["call_1", "call_0", "call_2"]


@pytest.mark.parametrize("said", [{"tool_name": "g"}, {"tool_call_id": "c"}, {"tool_name": "f"}, {}])
def test_steps_grow_with_calls_and_results_and_not_with_their_product(said: dict[str, Any]) -> None:
    def body(count: int) -> bytes:
        calls = [{"function": {"name": "f", "arguments": {}}}] * count
        results = [{"role": "tool", "content": "", **said}] * count
        return json.dumps({"model": "m", "messages": [{"role": "assistant", "tool_calls": calls}, *results]}).encode()

    few, many = body(50), body(500)
    assert steps(lambda: parse_chat(many)) < 11 * steps(lambda: parse_chat(few))


def test_a_result_without_its_call_is_told_by_the_user() -> None:
    """Engines refuse one; Home Assistant cuts long conversations so."""
    told = {"role": "user", "content": "<tool_response>\n4\n</tool_response>"}
    system = {"role": "system", "content": "be brief"}
    for more in ({}, {"tool_name": "f"}, {"tool_call_id": "c1"}):
        assert chat(messages=[system, {"role": "tool", "content": "4", **more}, *HI])["messages"] == [system, told, *HI]
    call = {"id": "c1", "function": {"name": "f", "arguments": {}}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "4"}
    said, first, second = chat(messages=[{"role": "assistant", "tool_calls": [call]}, result, result])["messages"]
    assert (said["role"], first["tool_call_id"], second) == ("assistant", "c1", told)
    (shown,) = chat(messages=[{"role": "tool", "content": "4", "images": [PNG]}])["messages"]
    assert [part["type"] for part in shown["content"]] == ["text", "image_url"]


def test_an_empty_id_of_a_call_is_none() -> None:
    call = {"id": "", "function": {"name": "f", "arguments": {}}}
    results = [{"role": "tool", "tool_call_id": "", "tool_name": "f", "content": "1"}]
    results.append({"role": "tool", "tool_call_id": "", "content": "2"})
    said, *made = chat(messages=[{"role": "assistant", "tool_calls": [call, call]}, *results])["messages"]
    ids = [one["id"] for one in said["tool_calls"]]
    assert [result["tool_call_id"] for result in made] == ids == ["call_0", "call_1"]


def test_calls_may_be_numbered_wherever_clients_number_them() -> None:
    call = {"index": 0, "id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
    messages = [*HI, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "4"}]
    _, said, result = chat(messages=messages)["messages"]
    function = {"name": "f", "arguments": '{"a":1}'}
    assert said["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
    assert result["tool_call_id"] == "c1"


def test_needs_are_seen_through_the_translation() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "", "images": [PNG]}], "format": {"type": "object"}}
    call = parse_chat(json.dumps(body).encode())
    assert set(call.needs) == {Capability.CHAT, Capability.VISION, Capability.JSON_SCHEMA}
    assert call.stream


def test_our_own_settings_are_read_and_not_passed_on() -> None:
    call = parse_chat(json.dumps({"model": "m", "messages": HI, "tidegate": {"class": "batch"}}).encode())
    assert call.knobs is not None
    assert "tidegate" not in fields_of(call)


# --- what is not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parse", "fields", "param", "said"),
    [
        (generate, {"raw": True}, "raw", "templates of their own"),
        (generate, {"template": "{{ .Prompt }}"}, "template", "templates of their own"),
        (generate, {"suffix": "b"}, "suffix", "/v1/completions"),
        (generate, {"context": [1]}, "context", "/api/chat"),
        (generate, {"prompt": ""}, "prompt", "models are loaded by their engines"),
        (generate, {"images": ["AAAA"]}, "images", "`images[0]`"),
        (chat, {"messages": []}, "messages", "non-empty"),
        (chat, {"messages": [{"role": "user", "images": ["AAAA"]}]}, "messages", "`messages[0].images[0]`"),
        (chat, {"messages": [{"role": "user", "odd": 1}]}, "messages", "`messages[0].odd`"),
        (chat, {"options": {"odd": 1}}, "options", "`options.odd`"),
        (chat, {"options": {"temperature": "hot"}}, "options", "`options.temperature`"),
        (chat, {"options": {"num_predict": 0}}, "options", "asks for no answer"),
        (chat, {"logprobs": True}, "logprobs", "log-probabilities"),
        (chat, {"odd": 1}, "odd", "is not a field"),
        (chat, {"model": ""}, "model", "GET /api/tags"),
    ],
)
def test_what_cannot_be_carried_is_refused_with_its_place(
    parse: Any, fields: dict[str, Any], param: str, said: str
) -> None:
    error = refused(parse, **fields)
    assert error.param == param
    assert said in error.message


def test_what_says_nothing_is_no_reason_to_refuse() -> None:
    made = generate(system="", template="", suffix="", context=[], raw=False, images=[])
    assert made.keys() == {"model", "stream", "messages"}
    assert [one["role"] for one in made["messages"]] == ["user"]


def test_every_field_of_the_sdk_has_its_fate() -> None:
    for table, made in ((CHAT, ollama._types.ChatRequest), (GENERATE, ollama._types.GenerateRequest)):
        assert set(made.model_fields) - set(top_level(table, *Fate)) == set()
    assert set(ollama.Options.model_fields) - set(top_level(OPTIONS, *Fate)) == set()
