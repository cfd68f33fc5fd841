"""The rest of an answer is asked for from what was said, and joined so that nothing is lost and nothing said twice."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.model import Capability
from tidegate.wire.openai import parse
from tidegate.wire.reading import read_chunk
from tidegate.wire.rest import Continuing, Seam, kept, rest, unresumable
from tidegate.wire.said import SAID_CHARS_MAX, Said
from tidegate.wire.stream import StreamReader

CHAT, COMPLETION = Capability.CHAT, Capability.COMPLETION
TRIMS = Continuing(trims=True)
HEAD = b'{"id":"a","created":1,"model":"m","system_fingerprint":"f","choices":[]}'


def call(kind: Capability = CHAT, **fields: Any) -> Any:
    prompt = {"messages": [{"role": "user", "content": "hi"}]} if kind is CHAT else {"prompt": "hi"}
    return parse(json.dumps({"model": "m", "stream": True, **prompt, **fields}).encode(), kind)


def frame(delta: dict[str, Any] | str, *, finish: str | None = None, **fields: Any) -> bytes:
    piece = {"text": delta} if isinstance(delta, str) else {"delta": delta}
    choice = {"index": 0, **piece, "finish_reason": finish}
    chunk = {"id": "b", "created": 2, "model": "n", "choices": [choice], **fields}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def events(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(one[6:]) for one in data.split(b"\n\n") if one.startswith(b"data: ")]


def text(data: bytes) -> str:
    choices = [choice for event in events(data) for choice in event["choices"]]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


def seam(*, tokens: int = 3, again: str = "", full: bool = False) -> Seam:
    return Seam(HEAD, Said(), tokens=tokens, again=again, full=full)


def test_what_an_engine_says_of_the_rest_in_a_dialect_of_its_own_is_not_said_of_the_whole() -> None:
    joined = seam().feed(frame({}, finish="stop", tidegate_native={"usage": {"output_tokens": 1}}))
    (event,) = events(joined)
    assert event["choices"][0]["finish_reason"] == "stop"
    assert "tidegate_native" not in event


def test_the_rest_can_be_asked_for_where_half_a_surrogate_pair_is_in_the_prompt() -> None:
    chat, completion = call(messages=[{"role": "user", "content": "\ud83d"}]), call(COMPLETION, prompt="\ud83d")
    assert unresumable(chat) == unresumable(completion) == ""
    assert json.loads(bytes(rest(chat, "so", 1).prompt))[0]["content"] == "\ufffd"
    assert json.loads(bytes(rest(completion, "so", 1).prompt)) == "\ufffdso"


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        (CHAT, {"n": 2}, "more than one text"),
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {}}}, "a form"),
        (CHAT, {"structured_outputs": {"choice": ["a", "b"]}}, "a form"),
        (CHAT, {"tool_choice": {"type": "function", "function": {"name": "f"}}}, "a call of a tool"),
        (CHAT, {"messages": [{"role": "assistant", "content": "a"}]}, "a message of its own"),
        (COMPLETION, {"prompt": [1, 2, 3]}, "not one text"),
        (COMPLETION, {"prompt": ["hi"]}, "not one text"),
        (COMPLETION, {"echo": True}, "more than one text"),
        (COMPLETION, {"best_of": 3}, "more than one text"),
    ],
)
def test_what_cannot_be_asked_for_is_told_before_anything_comes(kind: Capability, fields: Any, why: str) -> None:
    assert why in unresumable(call(kind, **fields))


@pytest.mark.parametrize(
    "field",
    ['"min_tokens":1e999', '"n_predict":1e999', '"tool_choice":1e999', '"response_format":{"type":"text","y":1e999}'],
)
def test_a_field_that_nobody_can_read_is_no_reason_to_fail_before_anything_has(field: str) -> None:
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}],%b}' % field.encode()
    assert unresumable(parse(body, CHAT)) == "a field of its request cannot be read"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": {"type": "text"}, "tool_choice": "auto", "n": 1},
        {"response_format": None, "tool_choice": None, "grammar": "", "logprobs": True, "stop": ["\n"]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
)
def test_text_can_be_asked_for(fields: dict[str, Any]) -> None:
    assert unresumable(call(**fields)) == ""
    assert unresumable(call(COMPLETION)) == ""


@given(st.text(max_size=40), st.integers(0, 30))
def test_a_chat_is_asked_for_with_what_was_said_as_its_last_message(said: str, tokens: int) -> None:
    asked = rest(call(max_tokens=20, max_completion_tokens=None, user="u"), said, tokens)
    fields = {name: msgspec.json.decode(value) for name, value in asked.fields.items()}
    assert fields["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": said}]
    assert fields["max_tokens"] == asked.output_tokens_max == max(20 - tokens, 1)
    assert (fields["user"], fields["max_completion_tokens"], asked.messages) == ("u", None, 2)
    assert bytes(asked.prompt) == bytes(memoryview(asked.fields["messages"]))


@given(st.text(max_size=40))
def test_a_completion_is_asked_for_with_what_was_said_behind_its_prompt(said: str) -> None:
    asked = rest(call(COMPLETION), said, 3)
    assert msgspec.json.decode(asked.fields["prompt"]) == "hi" + said
    assert asked.output_tokens_max is None


@given(st.text(alphabet="ab \n", min_size=1, max_size=12))
def test_an_engine_that_may_cut_blanks_off_is_told_none(said: str) -> None:
    told = kept(said, TRIMS)
    assert said.startswith(told)
    assert told == said.rstrip() or (not said.strip() and told == said)
    assert kept(said, Continuing()) == said


@given(st.text(alphabet="ab \n", max_size=10), st.text(alphabet="ab \n", max_size=12), st.data())
def test_blanks_that_come_again_are_not_said_again(said: str, more: str, data: st.DataObject) -> None:
    """Whatever pieces they come in; where an engine goes on otherwise, nothing that is no blank is dropped."""
    again = said[len(kept(said, TRIMS)) :]
    whole, pieces = again + more, list[str]()
    while whole:
        size = data.draw(st.integers(1, len(whole)))
        pieces, whole = [*pieces, whole[:size]], whole[size:]
    joined = seam(again=again)
    assert text(b"".join(joined.feed(frame({"content": piece})) for piece in pieces)) == more


def test_where_other_blanks_come_nothing_is_dropped() -> None:
    joined = seam(again=" \n")
    assert text(joined.feed(frame({"content": " x"})) + joined.feed(frame({"content": "\ny"}))) == " x\ny"


@pytest.mark.parametrize("kind", [CHAT, COMPLETION])
def test_it_goes_on_under_the_name_of_the_beginning_and_without_a_role(kind: Capability) -> None:
    joined = seam()
    role = joined.feed(frame({"role": "assistant", "content": None})) if kind is CHAT else b""
    assert role == b""
    (event,) = events(joined.feed(frame({"content": "x"} if kind is CHAT else "x")))
    assert (event["id"], event["created"], event["model"], event["system_fingerprint"]) == ("a", 1, "m", "f")
    (last,) = events(joined.feed(frame({} if kind is CHAT else "", finish="stop")))
    assert last["choices"][0]["finish_reason"] == "stop"


def test_a_role_that_comes_with_the_first_word_is_left_out_alone() -> None:
    (event,) = events(seam().feed(frame({"role": "assistant", "content": "x"})))
    assert event["choices"][0]["delta"] == {"content": "x"}


def test_a_call_of_a_tool_passes() -> None:
    calls = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]
    (event,) = events(seam().feed(frame({"tool_calls": calls})))
    assert event["choices"][0]["delta"] == {"tool_calls": calls}


def test_usage_is_that_of_one_answer() -> None:
    usage = {"prompt_tokens": 13, "completion_tokens": 5, "total_tokens": 18}
    (event,) = events(seam(tokens=3).feed(frame({}, usage=usage)))
    assert event["usage"] == {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18}


def test_of_a_prompt_no_more_is_cached_than_it_has() -> None:
    # All is, of a prompt that ends with what had been said.
    usage = {"prompt_tokens": 13, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 12}}
    (event,) = events(seam(tokens=3).feed(frame({}, usage=usage)))
    assert event["usage"]["prompt_tokens_details"] == {"cached_tokens": 10}


def test_where_all_tokens_had_come_only_the_end_passes() -> None:
    joined = seam(tokens=3, full=True)
    usage = {"prompt_tokens": 13, "completion_tokens": 1, "total_tokens": 14}
    out = joined.feed(frame({"content": "x"})) + joined.feed(frame({}, finish="stop", usage=usage))
    (event,) = events(out)
    assert text(out) == ""
    assert event["choices"][0]["finish_reason"] == "length"
    assert event["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}


@pytest.mark.parametrize("rest_of_it", [b": keep-alive\n\n", b"event: ping\n\n"])
def test_what_carries_no_chunk_passes(rest_of_it: bytes) -> None:
    assert seam().feed(rest_of_it) == rest_of_it


def test_a_beginning_with_something_unreadable_in_it_gives_no_name() -> None:
    joined = Seam(b'{"id":"a","x":1e999999}', Said(), tokens=1)
    (event,) = events(joined.feed(frame({"content": "x"})))
    assert event["id"] in ("a", "b")
    (event,) = events(Seam(b"[1]", Said(), tokens=1).feed(frame({"content": "x"})))
    assert event["id"] == "b"


def test_half_a_surrogate_pair_is_replaced_and_ends_nothing() -> None:
    joined = Seam(rb'{"id":"a","x":"\ud83d"}', Said(), tokens=1)
    out = joined.feed(frame({"content": "\ud83d"}))
    assert joined.failure is None
    (event,) = events(out)
    assert (event["id"], text(out)) == ("a", "\ufffd")


def test_what_cannot_be_read_ends_it() -> None:
    joined = seam()
    assert joined.feed(b"data: [1]\n\n") == b""
    assert joined.failure is not None
    assert joined.feed(frame({"content": "x"})) == b""


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12), st.integers(1, 200))
def test_what_passes_to_the_client_is_what_was_gathered(words: list[str], size: int) -> None:
    """However the bytes are cut, up to any byte."""
    stream = frame({"role": "assistant", "content": None}) + b"".join(frame({"content": word}) for word in words)
    for end in (len(stream), len(stream) - size):
        said = Said()
        reader = StreamReader(include_usage=False, said=said)
        data = stream[: max(end, 0)]
        passed = b"".join(reader.feed(data[at : at + size]) for at in range(0, len(data), size))
        assert said.text == text(passed)
        assert said.tokens == sum(bool(text(b"data: " + one)) for one in passed.split(b"data: ")[1:])
        assert not said.fault


@pytest.mark.parametrize(
    ("delta", "why"),
    [
        ({"tool_calls": [{"index": 0}]}, "tool"),
        ({"function_call": {"name": "f"}}, "tool"),
        ({"reasoning_content": "hm"}, "reasoning"),
        ({"reasoning": "hm"}, "reasoning"),
        ({"refusal": "no"}, "text alone"),
        ({"audio": {"data": "x"}}, "text alone"),
        ({"images": [{"type": "image_url"}]}, "text alone"),
        ({"content": [{"type": "text"}]}, "text alone"),
    ],
)
def test_what_is_not_text_alone_is_not_gathered(delta: dict[str, Any], why: str) -> None:
    said = Said()
    reader = StreamReader(include_usage=False, said=said)
    for piece in ({"content": "a"}, delta, {"content": "b"}):
        reader.feed(frame(piece))
    assert why in said.fault
    assert said.text == ""


def test_a_whole_message_in_a_stream_is_not_gathered() -> None:
    said = Said()
    StreamReader(include_usage=False, said=said).feed(
        b'data: {"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":null}]}\n\n'
    )
    assert said.fault == "it is not text alone"


def test_what_is_gathered_has_a_bound() -> None:
    said = Said()
    piece = frame({"content": "x" * 1000})[6:-2]
    for _ in range(SAID_CHARS_MAX // 1000 + 1):
        said.take(piece, read_chunk(piece))
    assert said.fault == "it is too long"
    assert said.text == ""
