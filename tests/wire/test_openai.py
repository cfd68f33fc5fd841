import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tidegate.core.model import Capability
from tidegate.wire.asked import LOOKED_AT
from tidegate.wire.clients import CLIENTS
from tidegate.wire.embeddings import parse as embeddings
from tidegate.wire.errors import BadRequest
from tidegate.wire.openai import OUTPUT_TOKENS_MAX, Call, parse, upstream_body

HI = [{"role": "user", "content": "hi"}]
CHAT, COMPLETION = Capability.CHAT, Capability.COMPLETION


def chat(**fields: Any) -> Call:
    return parse(json.dumps({"model": "m", "messages": HI, **fields}).encode(), CHAT)


def completion(prompt: Any, **fields: Any) -> Call:
    return parse(json.dumps({"model": "m", "prompt": prompt, **fields}).encode(), COMPLETION)


def refused(body: bytes | dict[str, Any], kind: Capability = CHAT) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(body if isinstance(body, bytes) else json.dumps(body).encode(), kind)
    return caught.value


def judged(body: bytes, kind: Capability) -> Call | BadRequest:
    try:
        return parse(body, kind)
    except BadRequest as error:
        return error


def test_what_is_left_out_is_not_asked_for() -> None:
    call = chat()
    assert (call.kind, call.model, call.stream, call.include_usage) == (CHAT, "m", False, False)
    assert (call.output_tokens_max, call.completions, call.needs) == (None, 1, (CHAT,))
    assert (call.messages, call.media, call.prompt_tokens, call.knobs) == (1, 0, None, None)


def test_several_choices_of_a_chat_are_after_one_prompt() -> None:
    call = chat(n=3)
    assert (call.prompts, call.completions) == (1, 3)


def test_null_is_left_out() -> None:
    names = ("stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "tools", "response_format")
    assert chat(**dict.fromkeys((*names, "logprobs", "functions"))).needs == (CHAT,)


def test_the_newer_name_of_the_bound_wins() -> None:
    assert chat(max_tokens=5).output_tokens_max == 5
    assert chat(max_tokens=5, max_completion_tokens=7).output_tokens_max == 7
    assert chat(max_tokens=5, max_completion_tokens=None).output_tokens_max == 5


def test_a_bound_beyond_any_engine_is_cut() -> None:
    assert chat(max_tokens=10**30).output_tokens_max == OUTPUT_TOKENS_MAX


def test_usage_is_given_to_those_who_ask() -> None:
    assert chat(stream=True, stream_options={"include_usage": True}).include_usage
    assert not chat(stream=True, stream_options={}).include_usage


@pytest.mark.parametrize(
    ("fields", "needs"),
    [
        ({"tools": [{"type": "function"}]}, (CHAT, Capability.TOOLS)),
        ({"functions": [{"name": "f"}]}, (CHAT, Capability.TOOLS)),
        ({"tools": []}, (CHAT,)),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, (CHAT, Capability.JSON_SCHEMA)),
        ({"response_format": {"type": "text"}}, (CHAT,)),
        ({"logprobs": True}, (CHAT, Capability.LOGPROBS)),
        ({"logprobs": False}, (CHAT,)),
    ],
)
def test_what_an_endpoint_must_be_able_to_do(fields: dict[str, Any], needs: tuple[Capability, ...]) -> None:
    assert chat(**fields).needs == needs


def test_log_probabilities_of_completions_are_counted_from_zero() -> None:
    assert completion("a", logprobs=0).needs == (COMPLETION, Capability.LOGPROBS)
    assert completion("a", logprobs=None).needs == (COMPLETION,)
    assert completion("a", logprobs=False).needs == (COMPLETION,)


def test_images_and_sound_need_eyes_and_ears_and_are_no_text() -> None:
    data = "A" * 10_000
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
    ]
    call = chat(messages=[{"role": "user", "content": parts}])
    assert call.needs == (CHAT, Capability.VISION, Capability.AUDIO)
    assert call.media == 2
    assert call.text_bytes < 300
    assert len(call.prompt) > 20_000


@pytest.mark.parametrize("size", [1_000, 30_000])
@pytest.mark.parametrize(
    ("kind", "need"),
    [
        ("image_url", Capability.VISION),
        ("video_url", Capability.VISION),
        ("audio_url", Capability.AUDIO),
        ("input_audio", Capability.AUDIO),
    ],
)
def test_what_is_seen_or_heard_is_no_text_whatever_its_name(kind: str, need: Capability, size: int) -> None:
    part = {"type": kind, kind: {"url": "data:;base64," + "A" * size}}
    call = chat(messages=[{"role": "user", "content": [part]}])
    assert (call.needs, call.media) == ((CHAT, need), 1)
    assert call.text_bytes < 200


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document_url", "document_url": "https://x/y.pdf"},
        {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
        {"type": "input_file", "file_id": "f"},
        {"type": "video", "video": ["https://x/1.jpg"]},
        {"type": "image_file", "image_file": {"file_id": "f"}},
        {"type": "file", "file": {"file_id": "f"}},
    ],
)
def test_a_part_that_may_stand_for_more_than_its_bytes_is_a_medium_and_asks_for_nothing_of_who_knows_it(
    part: dict[str, Any],
) -> None:
    call = chat(messages=[{"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}])
    assert (call.needs, call.media) == ((CHAT,), 1)
    assert call.prompt_tokens_most > 10**9


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text", "refusal", "thinking"])
def test_a_part_of_text_is_no_medium(kind: str) -> None:
    call = chat(messages=[{"role": "assistant", "content": [{"type": kind, kind: "a", "cache_control": {}}, "b"]}])
    assert (call.needs, call.media) == ((CHAT,), 0)


def test_what_was_said_aloud_before_and_is_named_by_its_id_is_a_medium() -> None:
    assert chat(messages=[{"role": "assistant", "audio": {"id": "audio_a"}}]).media == 1
    assert chat(messages=[{"role": "assistant", "content": "a", "audio": None}]).media == 0


def test_the_word_image_in_a_text_needs_no_eyes() -> None:
    content = json.dumps([{"type": "image_url", "image_url": {}}])
    assert chat(messages=[{"role": "user", "content": content}]).needs == (CHAT,)


def test_content_may_be_missing_null_a_string_or_parts() -> None:
    messages = [
        {"role": "assistant", "tool_calls": []},
        {"role": "assistant", "content": None},
        {"role": "user", "content": ""},
        {"role": "user", "content": []},
        {"role": "user", "content": ["a", {"type": "text", "text": "b"}]},
    ]
    assert chat(messages=messages).messages == 5


@pytest.mark.parametrize(
    ("prompt", "prompts", "tokens"),
    [
        ("a b", 1, None),
        ("", 1, None),
        (["a", "b", "c"], 3, None),
        ([1, 2, 3, 4], 1, 4),
        ([[1, 2], [3]], 2, 3),
    ],
)
def test_a_prompt_is_text_or_tokens_one_or_several(prompt: Any, prompts: int, tokens: int | None) -> None:
    call = completion(prompt, n=2)
    assert (call.prompts, call.completions) == (prompts, 2 * prompts)
    assert call.prompt_tokens == tokens
    assert json.loads(bytes(call.prompt)) == prompt


def test_tools_stand_before_the_prompt_and_count_as_text() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 500}}]
    call = chat(tools=tools)
    assert json.loads(bytes(call.tools)) == tools
    assert call.text_bytes > chat().text_bytes + 500


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON: Input data was truncated"),
        (b"{", "not JSON"),
        (b'{"a":1,}', "(byte 7)"),
        (b"[]", "must be a JSON object"),
        (b'"a"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a":NaN}', "(byte 5)"),
        (b'\xef\xbb\xbf{"model":"m"}', "(byte 0)"),
        (b'{"model":"\xff"}', "not UTF-8: byte 10"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"x":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_refused_with_the_place(body: bytes, told: str) -> None:
    error = refused(body)
    assert told in error.message
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", None)


def _chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": HI, **fields}


@pytest.mark.parametrize(
    ("body", "place", "param"),
    [
        ({"messages": HI}, "`model`: is missing", "model"),
        (_chat(model=""), "`model`", "model"),
        (_chat(model=None), "`model`", "model"),
        (_chat(model="x" * 257), "`model`", "model"),
        ({"model": "m"}, "`messages`: is missing", "messages"),
        (_chat(messages=[]), "`messages`", "messages"),
        (_chat(messages="hi"), "`messages`", "messages"),
        (_chat(messages=[*HI, "hi"]), "`messages[1]`", "messages"),
        (_chat(messages=[*HI, {"content": "a"}]), "`messages[1].role`: is missing", "messages"),
        (_chat(messages=[*HI, *HI, *HI, {"role": 7}]), "`messages[3].role`", "messages"),
        (_chat(messages=[{"role": "user", "content": 7}]), "`messages[0].content`", "messages"),
        (_chat(messages=[{"role": "user", "content": {"a": 1}}]), "`messages[0].content`", "messages"),
        (_chat(messages=[{"role": "user", "content": [7]}]), "`messages[0].content[0]`", "messages"),
        (_chat(messages=[{"role": "user", "content": [{"type": 7}]}]), "`messages[0].content[0].type`", "messages"),
        (_chat(stream="yes"), "`stream`", "stream"),
        (_chat(stream_options={"include_usage": 1}), "`stream_options.include_usage`", "stream_options"),
        (_chat(max_tokens=0), "`max_tokens`", "max_tokens"),
        (_chat(max_tokens=1.5), "`max_tokens`", "max_tokens"),
        (_chat(max_completion_tokens="9"), "`max_completion_tokens`", "max_completion_tokens"),
        (_chat(n=0), "`n`", "n"),
        (_chat(n=129), "`n`", "n"),
        (_chat(tools={}), "`tools`", "tools"),
        (_chat(response_format="json"), "`response_format`", "response_format"),
        (_chat(response_format={"type": 1}), "`response_format.type`", "response_format"),
        (_chat(logprobs=2), "`logprobs`", "logprobs"),
    ],
)
def test_a_bad_field_is_refused_with_its_path_and_what_is_accepted(
    body: dict[str, Any], place: str, param: str
) -> None:
    error = refused(body)
    assert place in error.message
    assert f"`{param}` must be" in error.message
    assert error.param == param
    assert error.status == 400


@pytest.mark.parametrize("prompt", [None, 7, [], {}, ["a", 1], [[1], 2], [1.5], [["a"]], [None]])
def test_a_bad_prompt_is_refused(prompt: Any) -> None:
    assert refused({"model": "m", "prompt": prompt}, COMPLETION).param == "prompt"


def test_a_field_given_twice_counts_as_its_last_here_and_upstream() -> None:
    first = b'"model":"a","messages":[{"role":"a"},{"role":"b"}],"max_tokens":1'
    last = b'"\\u006dodel":"b","messages":[{"role":"user"}],"max_tokens":2'
    body = b"{%b,%b}" % (first, last)
    call = parse(body, CHAT)
    assert (call.model, call.output_tokens_max, call.messages) == ("b", 2, 1)
    passed = upstream_body(call, model="c", stream=False)
    assert passed.count(b'"max_tokens":2') == 1
    assert b'"max_tokens":1' not in passed
    assert passed.count(b"model") == 1


def test_our_own_object_is_not_passed_on_however_it_is_spelled() -> None:
    call = parse(b'{"model":"m","messages":[{"role":"user"}],"\\u0074idegate":{"class":"x"}}', CHAT)
    assert call.knobs is not None
    assert bytes(call.knobs) == b'{"class":"x"}'
    assert b"idegate" not in upstream_body(call, model="m", stream=False)


@st.composite
def other_cases(draw: st.DrawFn) -> str:
    """A name that means something here, with some of its letters in another case, as engines written in Go read it."""
    name = draw(st.sampled_from(sorted(LOOKED_AT)))
    cases = [{one, one.upper()} | ({"\u017f"} if one == "s" else {"\u212a"} if one == "k" else set()) for one in name]
    made = "".join(draw(st.sampled_from(sorted(letters))) for letters in cases)
    assume(made != name)
    return made


@given(other_cases())
@example("Model")
@example("Max_Tokens")
@example("me\u017f\u017fages")
def test_no_field_that_means_something_passes_unread_in_another_case(name: str) -> None:
    asked = {"model": "m", "messages": HI, "prompt": "hi", "input": "hi", name: None}
    body = json.dumps(asked).encode()
    readers: list[Callable[[bytes], Call]] = [partial(parse, kind=CHAT), partial(parse, kind=COMPLETION), embeddings]
    readers += [partial(client.parse, headers={}) for client in CLIENTS.values()]
    for read in readers:
        with pytest.raises(BadRequest) as caught:
            read(body)
        assert caught.value.status == 400
        assert f"`{name.casefold()}`" in caught.value.message


def test_what_means_nothing_here_passes_in_whatever_case() -> None:
    asked = {"Temperature": 1, "providerOptions": {"Model": 1}, "\u212a": 2}
    passed = json.loads(upstream_body(chat(**asked), model="m", stream=False))
    assert {name: passed[name] for name in asked} == asked


def test_a_stream_is_asked_for_its_usage_and_keeps_its_other_options() -> None:
    call = chat(stream=True, stream_options={"include_usage": False, "include_obfuscation": False})
    passed = json.loads(upstream_body(call, model="x", stream=True))
    assert passed["stream"] is True
    assert passed["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    for usual in (chat(), *(chat(stream_options=options) for options in (None, {}, {"include_usage": True}))):
        assert upstream_body(usual, model="x", stream=True).endswith(b',"stream_options":{"include_usage":true}}')


def test_options_of_a_stream_go_where_there_is_none() -> None:
    call = chat(stream=True, stream_options={"include_usage": True})
    passed = json.loads(upstream_body(call, model="x", stream=False))
    assert passed["stream"] is False
    assert "stream_options" not in passed


HALVES = [r"\ud83d", r"\uDE00", r"\ud83d\ud83d", r"\\\ude00", r"\ude00\ud83d"]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("size", [0, 30_000], ids=["small", "large"])
def test_half_a_surrogate_pair_in_a_prompt_goes_on_as_the_sign_for_what_cannot_be_read(half: str, size: int) -> None:
    said, more = json.loads(f'"a {half} b"'), {"\ud83d": ["\ude00", "x" * size]}
    messages = [{"role": "user", "content": [{"type": "text", "text": said}]}, {"role": "user", "content": "x" * size}]
    readable = re.sub("[\ud800-\udfff]", "\ufffd", said)
    passed = msgspec.json.decode(upstream_body(chat(messages=messages, more=more), model="m", stream=True))
    assert passed["messages"][0]["content"][0]["text"] == readable
    assert passed["more"] == {"\ufffd": ["\ufffd", "x" * size]}
    passed = msgspec.json.decode(upstream_body(completion(said), model="m", stream=True))
    assert passed["prompt"] == readable


def test_a_bad_field_beside_half_a_surrogate_pair_is_refused_for_itself() -> None:
    error = refused(_chat(messages=[{"role": "\ud83d", "content": 7}]))
    assert (error.param, "`messages[0].content`" in error.message) == ("messages", True)
    assert "not JSON" in refused(rb'{"model":"m","messages":[{"role":"\ud83d"}').message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_OURS = {"model", "stream", "stream_options", "messages", "tidegate"}
_KNOWN = {"max_tokens", "max_completion_tokens", "n", "tools", "functions", "response_format", "logprobs", "prompt"}


def _dumps(value: Any, *, ascii: bool = True) -> str:
    return json.dumps(_finite(value), ensure_ascii=ascii)


def _finite(value: Any) -> Any:
    """JSON has no NaN, and no half of a surrogate pair."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return 0.5
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


@given(
    st.dictionaries(st.text(max_size=8).filter(lambda name: name.casefold() not in LOOKED_AT), JSON, max_size=5),
    st.booleans(),
)
def test_every_other_field_passes_byte_for_byte(fields: dict[str, Any], ascii: bool) -> None:
    # Spaces inside values, escapes and forms of numbers are the client's own.
    members = [f"{_dumps(name, ascii=ascii)} : {_dumps(value, ascii=ascii)}" for name, value in fields.items()]
    members += ['"messages": [ {"role":"user", "content" : "\\u0041\\/ 1.0e0"} ]', '"model":"mine"']
    call = parse(("{" + ",\n".join(members) + "}").encode(), CHAT)
    passed = msgspec.json.decode(upstream_body(call, model="theirs", stream=False), type=dict[str, msgspec.Raw])
    assert bytes(passed.pop("model")) == b'"theirs"'
    assert bytes(passed.pop("stream")) == b"false"
    assert bytes(passed.pop("messages")) == b'[ {"role":"user", "content" : "\\u0041\\/ 1.0e0"} ]'
    assert {name: bytes(raw).decode() for name, raw in passed.items()} == {
        name: _dumps(value, ascii=ascii) for name, value in fields.items()
    }


@given(st.binary(max_size=200), st.sampled_from([CHAT, COMPLETION]))
@example(b'{"\xff":1}', CHAT)
@example(b'{"model":"\\ud800","messages":[]}', CHAT)
def test_no_bytes_whatever_raise_anything_but_a_bad_request(body: bytes, kind: Capability) -> None:
    outcome = judged(body, kind)
    assert isinstance(outcome, Call) or outcome.status == 400


_FIELDS = sorted(_OURS | _KNOWN)


@given(st.dictionaries(st.sampled_from(_FIELDS), JSON), st.sampled_from([CHAT, COMPLETION]))
def test_no_json_whatever_raises_anything_but_a_bad_request(fields: dict[str, Any], kind: Capability) -> None:
    outcome = judged(_dumps({"model": "m", "messages": HI, "prompt": "a", **fields}).encode(), kind)
    if isinstance(outcome, Call):
        json.loads(upstream_body(outcome, model="m", stream=True))


MARKER = "XYZZYMARKER"
_marked = st.recursive(
    st.just(MARKER) | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "image_url", MARKER]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(_marked, _marked, st.sampled_from([CHAT, COMPLETION]), st.integers(0, 300))
def test_no_message_ever_quotes_the_prompt(messages: Any, prompt: Any, kind: Capability, cut: int) -> None:
    body = json.dumps({"model": "m", "messages": messages, "prompt": prompt, "n": 1}).encode()
    for attempt in (body, body[: max(1, len(body) - cut)]):
        outcome = judged(attempt, kind)
        assert isinstance(outcome, Call) or MARKER not in f"{outcome.message} {outcome.param} {outcome.code}"
