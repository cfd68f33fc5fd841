from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion

from tests.wire import streams
from tests.wire.streams import DONE, ROLE, STOP, USAGE_FRAME, chunk, cuts, facts, frame, recorded, relayed
from tidegate.core.model import Capability
from tidegate.wire.aggregate import Aggregator
from tidegate.wire.chunks import ANSWER_BYTES_MAX
from tidegate.wire.hub import Slots, ToolCall
from tidegate.wire.sse import Cause
from tidegate.wire.stream import StreamReader

# What differs from one answer to the next, and what only streams or only whole answers have.
VOLATILE = ("id", "created", "timings", "usage")


def aggregated(stream: bytes, kind: Capability = Capability.CHAT, completions: int = 1) -> Any:
    reader = Aggregator(kind, completions=completions)
    assert relayed(reader, [stream]) == b""
    assert reader.failure is None
    return msgspec.json.decode(reader.result())


def recorded_answer(name: str) -> Any:
    return msgspec.json.decode(recorded(name))


def without(answer: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in names}


def test_llama_cpp_streamed_and_whole_are_the_same_answer() -> None:
    streamed, whole = aggregated(recorded("chat_stream_usage")), recorded_answer("chat")
    for choice in whole["choices"]:
        choice["logprobs"] = None
    assert without(streamed, *VOLATILE) == without(whole, *VOLATILE)
    assert streamed["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert streamed["timings"]["predicted_n"] == 8


def test_a_tool_call_of_llama_cpp_streamed_and_whole_is_the_same() -> None:
    streamed, whole = aggregated(recorded("tool_call_stream")), recorded_answer("tool_call")
    for answer in (streamed, whole):
        for call in answer["choices"][0]["message"]["tool_calls"]:
            call.pop("id")
        answer["choices"][0].pop("logprobs", None)
    message = whole["choices"][0]["message"]
    message["content"] = message.get("content") or None
    assert streamed["choices"] == whole["choices"]


@pytest.mark.parametrize("name", ["plain", "llama.cpp", "llama.cpp tool call", "two choices", "empty", "reasoning"])
def test_the_sdk_reads_what_was_put_together(name: str) -> None:
    completion = ChatCompletion.model_validate(aggregated(streams.ALL[name]), strict=True)
    assert completion.object == "chat.completion"
    assert all(choice.finish_reason for choice in completion.choices)


def test_the_sdk_reads_a_text_completion_that_was_put_together() -> None:
    completion = Completion.model_validate(aggregated(streams.ALL["text"], Capability.COMPLETION), strict=True)
    assert completion.choices[0].text == "ab"
    assert completion.choices[0].finish_reason == "length"


def test_the_answers_to_several_prompts_of_llama_cpp_are_put_together() -> None:
    stream = b"data: null\n\n" + streams.text("a", index=1) + streams.text("b")
    stream += streams.text("c", index=1, finish="length") + streams.text("d", finish="length") + DONE
    answer = aggregated(stream, Capability.COMPLETION, completions=2)
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [(0, "bd"), (1, "ac")]


def message(delta: dict[str, Any]) -> Any:
    return aggregated(ROLE + chunk(**delta) + STOP + DONE)["choices"][0]["message"]


def test_texts_are_joined_per_choice() -> None:
    stream = (
        chunk(content="a", index=1, role="assistant")
        + chunk(content="b")
        + chunk(content="c", index=1)
        + chunk(reasoning_content="x")
        + chunk(reasoning_content="y")
        + STOP
        + chunk(index=1, finish="length")
        + DONE
    )
    first, second = aggregated(stream)["choices"]
    assert (first["index"], first["message"]["content"], first["finish_reason"]) == (0, "b", "stop")
    assert first["message"]["reasoning_content"] == "xy"
    assert (second["index"], second["message"]["content"], second["finish_reason"]) == (1, "ac", "length")


def test_tool_calls_are_joined_by_their_index() -> None:
    def call(index: int, **fields: object) -> bytes:
        return chunk(tool_calls=[{"index": index, **fields}])

    stream = (
        ROLE
        + call(0, id="a", type="function", function={"name": "f", "arguments": ""})
        + call(1, id="b", type="function", function={"name": "g", "arguments": "{"})
        + call(0, id="", function={"arguments": '{"x":'})
        + call(1, function={"name": "", "arguments": "}"})
        + call(0, function={"name": None, "arguments": "1}"})
        + chunk(finish="tool_calls")
        + DONE
    )
    message = aggregated(stream)["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_tool_calls_without_an_index_begin_with_their_id() -> None:
    stream = (
        ROLE
        + chunk(tool_calls=[{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}])
        + chunk(tool_calls=[{"function": {"arguments": "}"}}])
        + chunk(tool_calls=[{"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}])
        + STOP
        + DONE
    )
    calls = aggregated(stream)["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [("a", "{}"), ("b", "{}")]


def test_a_call_goes_on_where_its_id_is_repeated_without_a_name() -> None:
    def piece(id: str, arguments: str, name: str | None = None) -> bytes:
        return chunk(tool_calls=[{"id": id, "function": {"name": name, "arguments": arguments}}])

    begun = piece("a", "{", "f") + piece("a", '"x":1') + piece("a", "}") + piece("b", "{}", "g") + piece("b", "{}", "h")
    calls = aggregated(ROLE + begun + STOP + DONE)["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [
        ("a", '{"x":1}'),
        ("b", "{}"),
        ("b", "{}"),
    ]


@pytest.mark.parametrize("index", [0, 3, -1])
def test_calls_that_an_engine_gives_the_same_index_are_gathered_one_by_one(index: int) -> None:
    def piece(arguments: str, id: Any = None, name: str | None = None) -> bytes:
        return chunk(tool_calls=[{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}])

    begun = piece('{"a"', "c1", "f") + piece(":1}") + piece('{"b":1', "c2", "g") + piece("}") + piece("{}", 3, "f")
    calls = aggregated(ROLE + begun + chunk(finish="tool_calls") + DONE)["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], *call["function"].values()) for call in calls] == [
        ("c1", "f", '{"a":1}'),
        ("c2", "g", '{"b":1}'),
        (3, "f", "{}"),
    ]


@given(st.lists(st.tuples(st.sampled_from([None, 0, 1]), st.sampled_from([None, "", "a", "b"]), st.booleans())))
def test_pieces_of_calls_are_told_apart_as_for_a_client_that_streams(told: list[tuple[Any, Any, bool]]) -> None:
    pieces = [
        {"index": index, "id": id, "function": {"name": "f" if named else None, "arguments": f"{at};"}}
        for at, (index, id, named) in enumerate(told)
    ]
    slots, joined = Slots(), dict[int, str]()
    for piece in pieces:
        slot = slots.of(msgspec.convert(piece, ToolCall))
        joined[slot] = joined.get(slot, "") + piece["function"]["arguments"]
    stream = ROLE + b"".join(chunk(tool_calls=[piece]) for piece in pieces) + STOP + DONE
    calls = aggregated(stream)["choices"][0]["message"].get("tool_calls", [])
    assert [call["function"]["arguments"] for call in calls] == [joined[slot] for slot in sorted(joined)]


def test_log_probabilities_are_strung_together() -> None:
    def token(text: str) -> dict[str, Any]:
        return {"token": text, "logprob": -0.25, "bytes": [97], "top_logprobs": []}

    stream = (
        ROLE
        + chunk(content="a", logprobs={"content": [token("a")], "refusal": None})
        + chunk(content="b", logprobs={"content": [token("b")], "refusal": None})
        + STOP
        + DONE
    )
    answer = aggregated(stream)
    assert answer["choices"][0]["logprobs"] == {"content": [token("a"), token("b")], "refusal": None}
    ChatCompletion.model_validate(answer, strict=True)


def test_fields_that_nobody_knows_are_kept_from_the_last_chunk_that_had_them() -> None:
    def with_field(**fields: object) -> bytes:
        return frame({**streams.HEAD, "choices": [{"index": 0, "delta": {"content": "a"}}], **fields})

    stream = with_field(service_tier="default", x_extra={"a": 1}) + with_field(x_extra=None, obfuscation="zz")
    answer = aggregated(stream + STOP + USAGE_FRAME + DONE)
    assert answer["service_tier"] == "default"
    assert answer["x_extra"] == {"a": 1}
    assert "obfuscation" not in answer
    assert answer["usage"] == streams.USAGE


def test_fields_of_a_choice_that_nobody_knows_are_kept() -> None:
    last = frame({**streams.HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 7}]})
    assert aggregated(ROLE + chunk(content="a") + last + DONE)["choices"][0]["stop_reason"] == 7


def test_content_in_parts_is_kept_as_parts() -> None:
    parts = [{"type": "text", "text": "a"}]
    assert message({"content": parts})["content"] == parts


def test_an_answer_without_content_has_an_empty_string() -> None:
    assert aggregated(streams.ALL["empty"])["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize("name", ["cut", "malformed", "error", "broken off", "nothing", "done at once", "not events"])
def test_what_failed_is_no_answer(name: str) -> None:
    reader = Aggregator(Capability.CHAT)
    relayed(reader, [streams.ALL[name]])
    assert reader.failure is not None
    assert not reader.done


@given(st.data(), st.sampled_from(sorted(streams.ALL)))
def test_how_the_bytes_were_cut_does_not_change_the_answer(data: st.DataObject, name: str) -> None:
    stream = streams.ALL[name]
    kind = Capability.COMPLETION if name == "text" else Capability.CHAT
    whole, cut = Aggregator(kind), Aggregator(kind)
    relayed(whole, [stream])
    relayed(cut, data.draw(cuts(stream)))
    assert facts(cut) == facts(whole)
    if whole.done:
        assert cut.result() == whole.result()


@pytest.mark.parametrize("name", sorted(set(streams.ALL) - {"two dones"}))
def test_it_tells_the_same_facts_as_the_reader_for_streams(name: str) -> None:
    streamed, gathered = StreamReader(include_usage=True), Aggregator(Capability.CHAT)
    relayed(streamed, [streams.ALL[name]])
    relayed(gathered, [streams.ALL[name]])
    assert [*facts(gathered)[:3], *facts(gathered)[4:]] == [*facts(streamed)[:3], *facts(streamed)[4:]]


# Whatever an engine sends, as long as it is JSON.
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(["role", "content", "tool_calls", "function_call", "audio", "refusal", "index", "id", "x"])
_deltas = st.dictionaries(_names, _json, max_size=4)


@given(st.lists(_deltas, max_size=4), _json)
def test_no_chunk_whatever_raises(deltas: list[dict[str, Any]], extra: object) -> None:
    reader = Aggregator(Capability.CHAT)
    frames = [frame({"x": extra, "choices": [{"index": 0, "logprobs": extra, "delta": d}]}) for d in deltas]
    relayed(reader, [*frames, STOP, DONE])
    if reader.done:
        msgspec.json.decode(reader.result())


def test_halves_of_a_surrogate_pair_are_replaced_where_chunks_are_put_together() -> None:
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
    answer = aggregated(ROLE + piece % rb"a\ud83d" + piece % rb"\ude00b" + piece % rb"\ud83d\ude00" + STOP + DONE)
    assert answer["choices"][0]["message"]["content"] == "a\ufffd\ufffdb😀"


def test_images_are_put_together_beside_the_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answer = aggregated(ROLE + chunk(content="Here:") + chunk(content="", images=[image]) + STOP + DONE)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Here:", "images": [image]}


def test_a_long_answer_takes_time_in_proportion() -> None:
    piece = chunk(content="word ")
    answer = aggregated(ROLE + piece * 20_000 + STOP + DONE)
    assert answer["choices"][0]["message"]["content"] == "word " * 20_000


def test_an_answer_beyond_its_bound_is_a_failure() -> None:
    reader = Aggregator(Capability.CHAT)
    piece = chunk(content="x" * 500_000)
    for _ in range(ANSWER_BYTES_MAX // len(piece) + 1):
        reader.feed(piece)
    assert reader.failure is not None
    assert reader.failure.cause is Cause.TOO_LARGE
