import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import streams
from tests.wire.streams import (
    DONE,
    ERROR,
    PING,
    PLAIN,
    ROLE,
    STOP,
    USAGE_FRAME,
    chunk,
    cuts,
    facts,
    flowing,
    frame,
    recorded,
    relayed,
)
from tidegate.wire.chunks import Chunk, Usage
from tidegate.wire.reading import letters
from tidegate.wire.said import Said
from tidegate.wire.sse import FRAME_BYTES_MAX, Cause
from tidegate.wire.stream import HELD_FRAMES_MAX, StreamReader


def reader(*, include_usage: bool = True, completions: int = 1, said: Said | None = None) -> StreamReader:
    return StreamReader(include_usage=include_usage, completions=completions, said=said)


@given(st.data(), st.sampled_from(sorted(streams.ALL)), st.booleans())
def test_how_the_bytes_were_cut_changes_neither_the_relay_nor_the_facts(
    data: st.DataObject, name: str, include_usage: bool
) -> None:
    stream = streams.ALL[name]
    whole, cut = reader(include_usage=include_usage), reader(include_usage=include_usage)
    pieces = data.draw(cuts(stream))
    assert relayed(cut, pieces) == relayed(whole, [stream])
    assert facts(cut) == facts(whole)


@pytest.mark.parametrize("name", sorted(streams.ALL))
def test_byte_by_byte_is_the_same(name: str) -> None:
    stream = streams.ALL[name]
    whole, cut = reader(), reader()
    assert relayed(cut, [bytes([byte]) for byte in stream]) == relayed(whole, [stream])
    assert facts(cut) == facts(whole)


@given(flowing(), st.data())
def test_what_is_known_by_its_shape_is_taken_as_what_is_decoded(frames: list[bytes], data: st.DataObject) -> None:
    known, cut, decoded = reader(), reader(), reader(said=Said())  # what is gathered from has to be read
    assert relayed(known, frames) == relayed(decoded, frames) == relayed(cut, data.draw(cuts(b"".join(frames))))
    assert facts(known) == facts(decoded) == facts(cut)


def test_the_first_piece_of_a_text_may_be_the_one_that_is_repeated() -> None:
    known = reader()
    known.feed(chunk(content="a"))
    assert known.repeat is None
    known.feed(chunk(content="b"))
    assert known.repeat is not None


def test_letters_count_alike_in_frames_that_are_known_by_their_shape() -> None:
    known = reader()
    for piece in (ROLE, *[chunk(content="a" * 40)] * 5):
        known.feed(piece)
    assert known.tokens_seen == 50


def test_reasoning_that_is_told_under_both_its_names_counts_once_and_is_always_read() -> None:
    known = reader()
    for piece in (ROLE, *[chunk(reasoning="a" * 40, reasoning_content="a" * 40)] * 5):
        known.feed(piece)
    assert (known.tokens_seen, known.reasoned, known.repeat) == (50, True, None)


def test_what_has_one_name_of_reasoning_is_not_taken_for_what_has_both() -> None:
    pieces = [ROLE]
    for text in ("one", "two", "three", "four"):
        pieces += [chunk(reasoning_content=text), chunk(reasoning=text, reasoning_content=text)]
    known, decoded = reader(), reader()
    assert relayed(known, pieces) == relayed(decoded, [part for one in pieces for part in (one[:9], one[9:])])
    assert known.tokens_seen == decoded.tokens_seen == 8


@pytest.mark.parametrize("key", ["content", "reasoning_content", "reasoning", "text"])
@pytest.mark.parametrize("spaced", [False, True])
def test_frames_of_any_text_are_known_by_their_shape(key: str, spaced: bool) -> None:
    known, separators = reader(), (", ", ": ") if spaced else (",", ":")
    for text in ("one", "two", "three"):
        choice = {"index": 0, key: text} if key == "text" else {"index": 0, "delta": {key: text}}
        known.feed(b"data: %b\n\n" % json.dumps({"choices": [choice]}, separators=separators).encode())
    assert known.repeat is not None
    assert known.repeat.text_bytes(known.repeat.before + b"four" + known.repeat.behind) == 4


DOUBLE = b'data: {"choices":[{"index":0,%b}]}\n\n'


@pytest.mark.parametrize(
    "told",
    [
        b'"delta":{"content": "hi"},"logprobs":{"content":"%b"}',
        b'"delta":{"x\\"content":"%b","content": "hi"}',
        b'"delta":{"content":"%b","content": "hi"}',
        b'"delta":{"content" :"hi"},"note":{"content":"%b"}',
    ],
)
def test_a_text_that_stands_twice_is_not_taken_for_that_of_the_other_key(told: bytes) -> None:
    frames = [ROLE, *[DOUBLE % (told % text) for text in (b"hi", b"hi", b"w" * 400, b"w" * 800)]]
    known, decoded = reader(), reader()
    assert relayed(known, frames) == relayed(decoded, [part for one in frames for part in (one[:9], one[9:])])
    assert known.tokens_seen == decoded.tokens_seen == 4


def test_a_frame_that_only_looks_like_those_before_it_is_read() -> None:
    known = reader()
    for piece in (ROLE, chunk(content="one"), chunk(content="two")):
        known.feed(piece)
    assert known.output_chunks == 2
    assert known.feed(chunk(content="three").replace(b"three", b"thr\x07ee")) == b""
    assert known.failure is not None
    assert known.failure.cause is Cause.MALFORMED


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_no_bytes_whatever_raise(pieces: list[bytes]) -> None:
    read = reader()
    relayed(read, pieces)
    assert read.done or read.failure is not None


@pytest.mark.parametrize("name", ["plain", "llama.cpp", "llama.cpp tool call", "keep-alives", "carriage returns"])
def test_a_client_that_asked_for_usage_gets_the_very_bytes_of_the_endpoint(name: str) -> None:
    stream = streams.ALL[name]
    read = reader()
    assert relayed(read, [stream]) + read.done_frame == stream


@pytest.mark.parametrize("include_usage", [True, False])
def test_what_stands_behind_a_byte_order_mark_is_as_without_it(include_usage: bool) -> None:
    marked, plain = reader(include_usage=include_usage), reader(include_usage=include_usage)
    stream = streams.ALL["byte order mark"]
    assert relayed(marked, [stream]) == relayed(plain, [stream.removeprefix(b"\xef\xbb\xbf")])
    assert facts(marked) == facts(plain)
    assert marked.output_chunks == 2


@pytest.mark.parametrize("nothing", [b"data: null\n\n", b"data:null\r\n\r\n", b"data: \n\n"])
def test_data_that_stands_for_nothing_breaks_no_stream_and_reaches_no_client(nothing: bytes) -> None:
    read = reader()
    frames = [ROLE, chunk(content="a"), STOP, DONE]
    assert relayed(read, [nothing + frame for frame in frames]) + read.done_frame == b"".join(frames)
    assert (read.done, read.output_chunks) == (True, 1)


def test_a_client_that_did_not_ask_for_usage_does_not_get_it() -> None:
    read = reader(include_usage=False)
    assert relayed(read, [PLAIN]) + read.done_frame == PLAIN.replace(USAGE_FRAME, b"")
    assert read.usage == Usage(prompt_tokens=9, output_tokens=2, cached_tokens=4)


def test_usage_beside_a_choice_passes_untouched() -> None:
    read = reader(include_usage=False)
    stream = streams.ALL["usage with a choice"]
    assert relayed(read, [stream]) + read.done_frame == stream
    assert read.usage == Usage(prompt_tokens=9, output_tokens=2, cached_tokens=4)


def test_what_comes_before_content_is_held_back_and_released_with_it() -> None:
    read = reader()
    assert read.feed(PING + ROLE + PING) == b""
    assert not read.content
    assert read.feed(chunk(content="a")) == PING + ROLE + PING + chunk(content="a")
    assert read.content


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "a"},
        {"content": [{"type": "text", "text": "a"}]},
        {"reasoning_content": "a"},
        {"reasoning": "a"},
        {"refusal": "a"},
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]},
        {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]},
    ],
)
def test_anything_that_a_user_waits_for_is_content(delta: dict[str, Any]) -> None:
    read = reader()
    read.feed(chunk(**delta))
    assert read.content
    assert read.output_chunks == 1


@pytest.mark.parametrize("delta", [{}, {"role": "assistant"}, {"content": None}, {"content": ""}, {"tool_calls": []}])
def test_a_role_alone_is_no_content(delta: dict[str, Any]) -> None:
    read = reader()
    assert read.feed(chunk(**{"role": "assistant", **delta})) == b""
    assert not read.content


def test_done_is_kept_for_the_caller_and_nothing_behind_it_passes() -> None:
    read = reader()
    read.feed(ROLE + chunk(content="a"))
    assert read.feed(STOP + DONE + DONE + chunk(content="b")) == STOP
    assert read.done
    assert read.done_frame == DONE
    assert read.feed(chunk(content="c")) == b""
    assert read.end() == b""


def test_a_stream_that_is_complete_but_for_done_ends_cleanly() -> None:
    read = reader()
    assert relayed(read, [streams.ALL["no done"]]) == streams.ALL["no done"]
    assert read.done
    assert read.done_frame == DONE
    assert read.failure is None


@pytest.mark.parametrize("name", ["cut", "cut between chunks", "nothing", "done at once", "not events"])
def test_a_stream_that_is_cut_never_ends_cleanly(name: str) -> None:
    read = reader()
    relayed(read, [streams.ALL[name]])
    assert not read.done
    assert read.done_frame == b""
    assert read.failure is not None
    assert read.failure.cause is Cause.TRUNCATED


def test_one_of_two_choices_is_no_complete_answer() -> None:
    read = reader(completions=2)
    relayed(read, [chunk(content="a") + STOP])
    assert not read.finished
    assert read.failure is not None


def test_a_choice_that_still_runs_keeps_the_answer_open() -> None:
    read = reader()
    read.feed(chunk(content="a") + chunk(content="b", index=1) + STOP)
    assert not read.finished
    read.feed(chunk(index=1, finish="stop"))
    assert read.finished


@pytest.mark.parametrize("unnamed", [b'"index":null,', b""])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_choice_without_an_index_is_the_first_whatever_its_other_chunks_say(at: int, unnamed: bytes) -> None:
    pieces = [chunk(content="a"), chunk(content="b"), STOP]
    pieces[at] = pieces[at].replace(b'"index":0,', unnamed)
    read = reader()
    assert relayed(read, pieces) == b"".join(pieces)
    assert read.failure is None
    assert (read.finished, read.done, read.done_frame) == (True, True, DONE)
    others = reader(completions=2)
    relayed(others, pieces)
    assert not others.finished


def test_an_endpoint_that_gives_fewer_choices_than_asked_for_is_taken_at_its_done() -> None:
    read = reader(completions=2)
    relayed(read, [chunk(content="a") + STOP + DONE])
    assert read.done


def test_a_completion_without_content_is_delivered() -> None:
    read = reader()
    stream = streams.ALL["empty"]
    assert relayed(read, [stream]) + read.done_frame == stream
    assert read.finished
    assert not read.content


def test_a_chunk_that_cannot_be_read_does_not_pass_nor_does_anything_behind_it() -> None:
    read = reader()
    assert relayed(read, [streams.ALL["malformed"]]) == ROLE + chunk(content="a")
    assert read.failure is not None
    assert read.failure.cause is Cause.MALFORMED


@pytest.mark.parametrize("at", [b'"finish_reason"', b'"object"', b'"index"'])
def test_a_chunk_that_is_no_text_does_not_pass_also_where_nobody_looks(at: bytes) -> None:
    read = reader()
    good = chunk(content="two")
    damaged = good.replace(at, at[:3] + b"\xf2" + at[4:], 1)
    assert damaged != good
    assert relayed(read, [good, damaged]) == good
    assert read.failure is not None
    assert read.failure.cause is Cause.MALFORMED


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (ERROR, "boom"),
        (frame({"error": "out of memory"}), "out of memory"),
        (frame({"object": "error", "message": "engine died", "code": 500}), "engine died"),
        (b'error: {"code":500,"message":"slot gone","type":"server_error"}\n\n', "slot gone"),
        (b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n', "busy"),
    ],
)
def test_an_error_event_is_a_failure_with_the_endpoints_words(event: bytes, told: str) -> None:
    read = reader()
    assert read.feed(ROLE + chunk(content="a") + event + DONE) == ROLE + chunk(content="a")
    assert read.failure is not None
    assert read.failure.cause is Cause.ERROR_EVENT
    assert read.failure.error is not None
    assert told in read.failure.message
    assert not read.done


# How DeepSeek, SGLang, Mistral and OpenRouter end an answer that they have not finished.
BROKEN_OFF: dict[str, tuple[dict[str, Any], str]] = {
    "deepseek": ({"finish_reason": "insufficient_system_resource"}, "insufficient_system_resource"),
    "sglang": ({"finish_reason": "abort"}, "abort"),
    "mistral": ({"finish_reason": "error"}, "error"),
    "openrouter": ({"finish_reason": "error", "error": {"code": 502, "message": "Upstream gone"}}, "Upstream gone"),
    "without a reason": ({"finish_reason": None, "error": {"code": 502, "message": "Upstream gone"}}, "Upstream gone"),
}
broken_off = pytest.mark.parametrize(("ending", "told"), BROKEN_OFF.values(), ids=BROKEN_OFF)


def ended(ending: dict[str, Any], *, text: str = "", usage: object = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, **ending}
    return frame({**streams.HEAD, "choices": [choice], **({} if usage is None else {"usage": usage})})


@broken_off
@pytest.mark.parametrize("text", ["", "b"])
def test_an_answer_that_its_engine_broke_off_is_no_complete_one_and_its_ending_does_not_pass(
    ending: dict[str, Any], told: str, text: str
) -> None:
    read = reader()
    begun = ROLE + chunk(content="a")
    assert relayed(read, [begun + ended(ending, text=text) + USAGE_FRAME + DONE]) == begun
    assert read.failure is not None
    assert read.failure.cause is Cause.ERROR_EVENT
    assert told in read.failure.message
    assert (read.done, read.finished, read.done_frame) == (False, False, b"")


@broken_off
@pytest.mark.parametrize("text", ["", "b"])
def test_an_answer_that_is_broken_off_before_its_content_shows_none_so_that_another_endpoint_may_serve(
    ending: dict[str, Any], told: str, text: str
) -> None:
    read = reader()
    assert relayed(read, [ROLE + ended(ending, text=text) + DONE]) == b""
    assert read.failure is not None
    assert told in read.failure.message
    assert not read.content


def test_an_answer_that_flows_unread_is_read_where_it_is_broken_off() -> None:
    read = reader()
    for piece in (chunk(content="a"), chunk(content="b")):
        assert read.feed(piece) == piece
    assert read.repeat is not None
    assert read.feed(chunk(content="c", finish="insufficient_system_resource")) == b""
    assert read.failure is not None
    assert read.repeat is None


def test_what_was_made_of_an_answer_that_is_broken_off_is_counted() -> None:
    told, untold = reader(), reader()
    (ending, _) = BROKEN_OFF["deepseek"]
    told.feed(ROLE + ended(ending, text="b", usage=streams.USAGE))
    untold.feed(ROLE + ended(ending, text="b" * 40))
    assert told.usage == Usage(prompt_tokens=9, output_tokens=2, cached_tokens=4)
    assert untold.tokens_seen == 10


def test_one_of_two_choices_that_is_broken_off_breaks_the_answer() -> None:
    read = reader(completions=2)
    begun = chunk(content="a") + chunk(content="b", index=1) + STOP
    assert relayed(read, [begun + chunk(index=1, finish="error") + DONE]) == begun
    assert read.failure is not None


@pytest.mark.parametrize("finish", ["stop", "eos", "content_filter", 7, ["error"], {"type": "abort"}])
def test_any_other_reason_is_the_end_of_an_answer(finish: object) -> None:
    read = reader()
    relayed(read, [ROLE + ended({"finish_reason": finish, "error": None}, text="a") + DONE])
    assert (read.done, read.failure) == (True, None)


@pytest.mark.parametrize(
    "behind",
    [ERROR, b"data: {oops}\n\n", b"data: %b" % (b"x" * (FRAME_BYTES_MAX + 1))],
    ids=["an error", "no JSON", "a frame beyond any bound"],
)
def test_what_cannot_be_read_behind_the_end_of_an_answer_is_the_end_of_its_stream(behind: bytes) -> None:
    read = reader()
    begun = ROLE + chunk(content="a") + STOP
    assert read.feed(begun + behind) == begun
    assert (read.done, read.done_frame, read.failure) == (True, DONE, None)
    assert read.feed(USAGE_FRAME) == b""


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_usage_is_told_without_the_blank_line_behind_it_too(end: bytes) -> None:
    read = reader()
    begun = ROLE + chunk(content="a") + STOP
    assert relayed(read, [begun + USAGE_FRAME.removesuffix(b"\n\n") + end]).startswith(begun + USAGE_FRAME[:-2])
    assert (read.done, read.done_frame, read.failure) == (True, DONE, None)
    assert read.usage is not None


@pytest.mark.parametrize(
    "behind",
    [USAGE_FRAME[:-9], ERROR[:-1], b"data: [DONE]", b"data: [DO", b": pi"],
    ids=["half a frame", "an error", "the end", "half of it", "half a comment"],
)
def test_what_stands_cut_behind_the_end_of_an_answer_does_not_break_it(behind: bytes) -> None:
    read = reader()
    relayed(read, [ROLE + chunk(content="a") + STOP + behind])
    assert (read.done, read.done_frame, read.failure, read.usage) == (True, DONE, None, None)


@pytest.mark.parametrize("error", [None, False, "", {}, []])
def test_a_falsy_error_is_none(error: object) -> None:
    read = reader()
    read.feed(frame({**streams.HEAD, "choices": [], "error": error}))
    assert read.failure is None


def test_a_filter_result_without_choices_is_passed() -> None:
    first = frame({**streams.HEAD, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    read = reader(include_usage=False)
    assert relayed(read, [first + PLAIN]).startswith(first + ROLE)


def test_a_frame_beyond_its_bound_is_a_failure_wherever_it_is_cut() -> None:
    huge = chunk(content="x" * FRAME_BYTES_MAX)
    for pieces in ([ROLE + chunk(content="a") + huge + STOP], [ROLE + chunk(content="a") + huge[:-1], huge[-1:]]):
        read = reader()
        assert b"".join(read.feed(piece) for piece in pieces) == ROLE + chunk(content="a")
        assert read.failure is not None
        assert read.failure.cause is Cause.TOO_LARGE


def test_a_large_frame_within_the_bound_passes() -> None:
    large = chunk(content="x" * (FRAME_BYTES_MAX - 300))
    read = reader()
    assert b"".join(read.feed(large[at : at + 4096]) for at in range(0, len(large), 4096)) == large


def test_keep_alives_without_end_are_a_failure_before_they_fill_the_memory() -> None:
    read = reader()
    for _ in range(HELD_FRAMES_MAX + 1):
        assert read.failure is None
        assert read.feed(PING) == b""
    assert read.failure is not None
    assert read.failure.cause is Cause.TOO_LARGE


def test_frames_that_are_held_back_have_together_no_more_than_one_may_have() -> None:
    read = reader()
    large = frame({**streams.HEAD, "choices": [], "note": "x" * (FRAME_BYTES_MAX // 2)})
    assert read.feed(large) == b""
    assert read.failure is None
    assert read.feed(large) == b""
    assert read.failure is not None
    assert read.failure.cause is Cause.TOO_LARGE


def test_a_first_chunk_that_tells_all_tokens_of_a_long_prompt_is_held_back_like_any_other() -> None:
    choices = [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    first = frame({**streams.HEAD, "choices": choices, "prompt_token_ids": [100_000] * 200_000})
    read = reader()
    assert read.feed(first) == b""
    assert relayed(read, [chunk(content="a") + STOP]) == first + chunk(content="a") + STOP


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * 200_000}}


def test_an_image_that_streams_passes_and_is_content() -> None:
    read, image = reader(), chunk(content="", images=[IMAGE])
    pieces = [ROLE, *[image[at : at + 65_536] for at in range(0, len(image), 65_536)], STOP + DONE]
    assert relayed(read, pieces) == ROLE + image + STOP
    assert read.failure is None
    assert (read.content, read.output_chunks) == (True, 1)


def test_a_text_with_an_image_beside_it_is_not_known_by_its_shape() -> None:
    read = reader()
    for piece in (ROLE, *[chunk(content=word, images=[{"image_url": {"url": "https://a/b"}}]) for word in ("a", "b")]):
        read.feed(piece)
    assert read.repeat is None


HALF = b'data: {"choices":[{"index":0,"delta":{"%b":"%b"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize("key", [b"content", b"reasoning_content"])
@pytest.mark.parametrize("halves", [[rb"\ud83d", rb"\ude00"], [rb"hi \udcaf"], [rb"\\\uD83D!"]])
def test_half_a_surrogate_pair_passes_as_it_came(key: bytes, halves: list[bytes]) -> None:
    read, stream = reader(), [ROLE, *[HALF % (key, half) for half in halves], STOP + DONE]
    assert relayed(read, stream) + read.done_frame == b"".join(stream)
    assert read.failure is None
    assert read.output_chunks == len(halves)


def test_half_a_surrogate_pair_makes_nothing_readable_that_is_not() -> None:
    read = reader()
    assert read.feed(ROLE + HALF.replace(b"}]}", b"}]") % (b"content", rb"\ud83d")) == b""
    assert read.failure is not None
    assert read.failure.cause is Cause.MALFORMED


def test_an_error_is_told_in_the_endpoints_words_also_with_half_a_surrogate_pair() -> None:
    read = reader()
    read.feed(rb'data: {"error":{"message":"boom \ud83d"}}' + b"\n\n")
    assert read.failure is not None
    assert "boom" in read.failure.message


@pytest.mark.parametrize(
    ("usage", "read_as"),
    [
        ({}, Usage()),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(prompt_tokens=0, output_tokens=0)),
        ({"prompt_tokens": 3.0, "completion_tokens": None}, Usage(prompt_tokens=3)),
        ({"prompt_tokens": -1, "completion_tokens": "many"}, Usage()),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, Usage(prompt_tokens=5)),
        ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 2}, Usage(prompt_tokens=5, cached_tokens=2)),
        # What was written to a cache, as DashScope and LiteLLM tell it.
        (
            {"prompt_tokens": 1900, "completion_tokens": 50, "total_tokens": 1950}
            | {"prompt_tokens_details": {"cache_creation_input_tokens": 1889, "cached_tokens": 0}},
            Usage(prompt_tokens=1900, output_tokens=50, cached_tokens=0, cache_write_tokens=1889),
        ),
        (
            {"prompt_tokens": 2006, "cache_creation_input_tokens": 1889},
            Usage(prompt_tokens=2006, cache_write_tokens=1889),
        ),
        # What SGLang tells of reasoning, which is 0 of any model.
        (
            {"prompt_tokens": 29, "completion_tokens": 105, "total_tokens": 134, "reasoning_tokens": 90},
            Usage(prompt_tokens=29, output_tokens=105, reasoning_tokens=90),
        ),
        (
            {"prompt_tokens": 29, "completion_tokens": 105, "total_tokens": 134, "reasoning_tokens": 0},
            Usage(prompt_tokens=29, output_tokens=105),
        ),
        ({"prompt_tokens": 5, "cached_tokens": 2}, Usage(prompt_tokens=5, cached_tokens=2)),
        ({"prompt_tokens": 10**30}, Usage()),
        ({"prompt_tokens": 1 << 40, "completion_tokens": (1 << 40) + 1}, Usage(prompt_tokens=1 << 40)),
        ({"prompt_tokens": 3.7, "completion_tokens": 1e300}, Usage(prompt_tokens=3)),
        ({"prompt_tokens": -0.5, "completion_tokens": False}, Usage()),
        ({"prompt_tokens": "5", "completion_tokens": True}, Usage()),
        ({"prompt_tokens": 5, "prompt_tokens_details": []}, Usage(prompt_tokens=5)),
        ({"prompt_tokens": 5, "completion_tokens_details": "none"}, Usage(prompt_tokens=5)),
    ],
)
def test_what_usage_does_not_say_is_unknown(usage: object, read_as: Usage) -> None:
    read = reader()
    read.feed(frame({**streams.HEAD, "choices": [], "usage": usage}))
    assert read.usage == read_as


@pytest.mark.parametrize(("total", "output_tokens"), [(962, 763), (729, 530), (None, 530), ("many", 530)])
def test_reasoning_is_part_of_the_output_unless_the_total_tells_that_it_stands_beside(
    total: object, output_tokens: int
) -> None:
    details = {"reasoning_tokens": 233}
    usage = {"prompt_tokens": 199, "completion_tokens": 530, "completion_tokens_details": details}
    read = reader()
    read.feed(frame({**streams.HEAD, "choices": [], "usage": {**usage, "total_tokens": total}}))
    assert read.usage == Usage(prompt_tokens=199, output_tokens=output_tokens, reasoning_tokens=233)


@pytest.mark.parametrize(
    ("usage", "read_as"),
    [
        # Google's, for `max_tokens` that were thought away but for three.
        (
            {"completion_tokens": 3, "prompt_tokens": 9, "total_tokens": 105},
            Usage(prompt_tokens=9, output_tokens=96, reasoning_tokens=93),
        ),
        (
            {"completion_tokens": 0, "prompt_tokens": 9, "total_tokens": 105, "completion_tokens_details": None},
            Usage(prompt_tokens=9, output_tokens=96, reasoning_tokens=96),
        ),
        ({"prompt_tokens": 9, "total_tokens": 105}, Usage(prompt_tokens=9, output_tokens=96)),
        # A part of the prompt that comes from a cache is one of its parts.
        (
            {"completion_tokens": 3, "prompt_tokens": 9, "total_tokens": 105}
            | {"prompt_tokens_details": {"cached_tokens": 8}},
            Usage(prompt_tokens=9, output_tokens=96, cached_tokens=8, reasoning_tokens=93),
        ),
        # One that is more than the prompt stands beside it, and is no output.
        (
            {"completion_tokens": 5, "prompt_tokens": 10, "total_tokens": 48}
            | {"prompt_tokens_details": {"cached_tokens": 30}},
            Usage(prompt_tokens=40, output_tokens=8, cached_tokens=30, reasoning_tokens=3),
        ),
    ],
)
def test_what_the_total_alone_tells_was_made_and_thought(usage: object, read_as: Usage) -> None:
    read = reader()
    read.feed(frame({**streams.HEAD, "choices": [], "usage": usage}))
    assert read.usage == read_as


@pytest.mark.parametrize(
    ("usage", "output_tokens"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}, 3),
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 5}, 3),
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": "many"}, 3),
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 10**9}, 3),
        ({"completion_tokens": 3, "total_tokens": 105}, 3),
        ({"prompt_tokens": 9, "total_tokens": 9}, None),
        # Thinking was told apart, and is none.
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 105}
            | {"completion_tokens_details": {"reasoning_tokens": 0}},
            3,
        ),
        # What was in a cache stands beside the prompt.
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 42}
            | {"prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 10}},
            3,
        ),
        ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 17, "cached_tokens": 5}, 3),
    ],
)
def test_a_total_that_counts_nothing_more_or_something_else_tells_of_no_output(
    usage: object, output_tokens: int | None
) -> None:
    read = reader()
    read.feed(frame({**streams.HEAD, "choices": [], "usage": usage}))
    assert read.usage is not None
    assert (read.usage.output_tokens, read.usage.reasoning_tokens or 0) == (output_tokens, 0)


def test_usage_that_is_missing_is_unknown() -> None:
    read = reader()
    relayed(read, [streams.ALL["no done"]])
    assert read.usage is None


def test_llama_cpp_tells_its_usage_beside_its_timings() -> None:
    read = reader(include_usage=False)
    relayed(read, [recorded("chat_stream_usage")])
    assert read.usage == Usage(prompt_tokens=32, output_tokens=8, cached_tokens=31)
    assert read.output_chunks == 8


@pytest.mark.parametrize("timings", [[], "none", {"prompt_ms": "2.5"}])
def test_what_stands_by_the_name_of_timings_costs_no_chunk(timings: object) -> None:
    read = reader()
    told = [frame({**streams.HEAD, "choices": [{"index": 0, "delta": {"content": "a"}}], "timings": timings})] * 2
    assert relayed(read, told) == b"".join(told)
    assert read.output_chunks == 2


def test_what_is_nested_without_end_is_no_text_and_exhausts_nothing() -> None:
    for depth in (3, 5, 900):
        nested = b"[" * depth + b'"four"' + b"]" * depth
        chunk = msgspec.json.decode(b'{"choices":[{"delta":{"tool_calls":%b}}]}' % nested, type=Chunk)
        assert letters(chunk) == (4 if depth == 3 else 0)
