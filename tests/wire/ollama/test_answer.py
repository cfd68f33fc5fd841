"""Answers for Ollama's clients."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama import ChatResponse, GenerateResponse, ListResponse, ShowResponse

from tests.wire.hub import answers, streamed
from tests.wire.streams import DONE, PING, USAGE, chunk, cuts, frame
from tidegate.core.model import Capability
from tidegate.wire.errors import BadRequest
from tidegate.wire.ollama.answer import LineStream
from tidegate.wire.ollama.client import OLLAMA_CHAT, OLLAMA_GENERATE, Ollama
from tidegate.wire.ollama.dates import rfc3339
from tidegate.wire.ollama.models import Facts, show, shown, tags, version
from tidegate.wire.openai import Call
from tidegate.wire.sse import BadStream, Cause

CALL = OLLAMA_CHAT.parse(b'{"model":"m","messages":[{"role":"user","content":"hi"}]}', {})
clients = st.sampled_from([OLLAMA_CHAT, OLLAMA_GENERATE])


def ticking(step_s: float = 0.0) -> Callable[[], float]:
    """A clock that goes on by so much each time it is read."""
    now_s = 1_800_000_000.0 - step_s

    def read() -> float:
        nonlocal now_s
        now_s += step_s
        return now_s

    return read


def outward(*stream: bytes, client: Ollama = OLLAMA_CHAT, now_s: Callable[[], float] | None = None) -> bytes:
    translate = client.stream(CALL, now_s or ticking())
    return b"".join(translate.feed(piece) for piece in stream) + translate.end()


def lines_of(out: bytes) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert out.endswith(b"\n")
    return lines


def gathered(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client that adds up the lines has at the end."""
    *_, last = lines
    if "message" not in last:
        texts = {name: "".join(line.get(name, "") for line in lines) for name in ("response", "thinking")}
        return last | {name: text for name, text in texts.items() if text or name == "response"}
    messages = [line["message"] for line in lines]
    texts = {name: "".join(m.get(name, "") for m in messages) for name in ("content", "thinking")}
    calls = [call for m in messages for call in m.get("tool_calls", ())]
    made = {name: text for name, text in texts.items() if text or name == "content"}
    return last | {"message": {"role": "assistant", **made, **({"tool_calls": calls} if calls else {})}}


# --- laws -----------------------------------------------------------------------------------------------------------


@given(st.data(), answers(), clients)
def test_a_stream_adds_up_to_the_whole_answer(data: st.DataObject, answer: dict[str, Any], client: Ollama) -> None:
    lines = lines_of(outward(data.draw(streamed(answer)), client=client))
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    made = json.loads(client.whole(CALL, ticking())(json.dumps(answer).encode()))
    if client is OLLAMA_CHAT:
        assert gathered(lines) == made
    else:
        # Calls have lines of their own, which plain text does not add up.
        assert gathered(lines) == {name: value for name, value in made.items() if name != "tool_calls"}


@pytest.mark.lengthy
@given(st.data(), answers(), clients)
def test_lines_do_not_depend_on_how_the_bytes_were_cut(
    data: st.DataObject, answer: dict[str, Any], client: Ollama
) -> None:
    stream = data.draw(streamed(answer))
    assert outward(*data.draw(cuts(stream)), client=client) == outward(stream, client=client)


def test_a_stream_may_be_cut_at_every_byte() -> None:
    stream = PING + chunk(role="assistant") + chunk(content="é") + chunk(finish="stop", usage=USAGE) + DONE
    for at in range(len(stream)):
        assert outward(stream[:at], stream[at:]) == outward(stream)


@given(answers())
def test_nothing_of_an_answer_is_lost(answer: dict[str, Any]) -> None:
    made = json.loads(OLLAMA_CHAT.whole(CALL, ticking())(json.dumps(answer).encode()))
    ChatResponse.model_validate(made)
    message = answer["choices"][0]["message"]
    assert made["message"]["content"] == (message["content"] or "")
    assert made["message"].get("thinking") == message.get("reasoning_content")
    calls = [(call["id"], call["function"]) for call in made["message"].get("tool_calls", ())]
    assert [(id, function["name"], function["arguments"]) for id, function in calls] == [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls", ())
    ]
    counts = answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]
    assert (made["prompt_eval_count"], made["eval_count"]) == counts
    assert made["done_reason"] == ("length" if answer["choices"][0]["finish_reason"] == "length" else "stop")


@given(st.floats(-62_135_596_800, 253_402_300_799))
def test_dates_are_those_of_the_calendar(seconds: float) -> None:
    micros = round(seconds * 1_000_000)
    whole, micro = divmod(micros, 1_000_000)
    expected = datetime.fromtimestamp(whole, UTC).replace(microsecond=micro)
    assert rfc3339(seconds) == expected.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


# --- lines ----------------------------------------------------------------------------------------------------------


def test_each_piece_is_a_line_and_the_last_one_tells_the_rest() -> None:
    chunks = [chunk(role="assistant"), chunk(content="Hi"), chunk(content="!"), chunk(finish="stop", usage=USAGE)]
    first, second, last = lines_of(outward(*chunks, DONE))
    assert first == {
        "model": "m",
        "created_at": "2027-01-15T08:00:00.000000Z",
        "message": {"role": "assistant", "content": "Hi"},
        "done": False,
    }
    assert second["message"]["content"] == "!"
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 9, 2)
    for line in (first, second, last):
        ChatResponse.model_validate(line)


def test_plain_text_is_in_the_response() -> None:
    first, last = lines_of(outward(chunk(content="Hi"), chunk(finish="length"), client=OLLAMA_GENERATE))
    assert (first["response"], last["response"], last["done_reason"]) == ("Hi", "", "length")
    for line in (first, last):
        GenerateResponse.model_validate(line)


def test_durations_are_nanoseconds_from_the_clock() -> None:
    # Read at the start, at each of two pieces, and at the end.
    last = lines_of(outward(chunk(content="a"), chunk(content="b"), chunk(finish="stop"), now_s=ticking(0.5)))[-1]
    times = {name: last[name] for name in last if name.endswith("_duration")}
    assert times == {
        "total_duration": 1_500_000_000,
        "load_duration": 0,
        "prompt_eval_duration": 500_000_000,
        "eval_duration": 1_000_000_000,
    }


def test_an_engines_own_durations_go_before_the_clocks() -> None:
    timed = frame({"choices": [], "usage": USAGE, "timings": {"prompt_ms": 2.5, "predicted_ms": 40}})
    last = lines_of(outward(chunk(content="a"), chunk(finish="stop"), timed, now_s=ticking(1.0)))[-1]
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (2_500_000, 40_000_000)


@pytest.mark.parametrize("told_ms", [1e308, 1e15, -1.0, "2.5", True, None])
def test_but_not_those_that_no_answer_takes(told_ms: object) -> None:
    timed = {"choices": [{"message": {"content": "Hi"}}], "timings": {"prompt_ms": told_ms, "predicted_ms": told_ms}}
    *_, last = lines_of(outward(chunk(content="Hi"), frame(timed | {"choices": []}), now_s=ticking(0.5)))
    assert (last["prompt_eval_duration"], last["eval_duration"]) == (500_000_000, 500_000_000)
    given = json.loads(OLLAMA_CHAT.whole(CALL, ticking(0.5))(json.dumps(timed).encode()))
    assert (given["prompt_eval_duration"], given["eval_duration"]) == (500_000_000, 500_000_000)


def test_a_call_is_said_when_it_is_complete() -> None:
    pieces = [
        {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "id": "c2", "function": {"name": "g", "arguments": ""}},
    ]
    translate = OLLAMA_CHAT.stream(CALL, ticking())
    assert translate.feed(chunk(tool_calls=[pieces[0]]) + chunk(tool_calls=[pieces[1]])) == b""
    first = lines_of(translate.feed(chunk(tool_calls=[pieces[2]])))
    second = lines_of(translate.feed(chunk(finish="tool_calls")))
    said = [call for line in first + second for call in line["message"]["tool_calls"]]
    assert said == [
        {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}},
        {"id": "c2", "function": {"index": 1, "name": "g", "arguments": {}}},
    ]
    assert lines_of(translate.end())[-1]["done_reason"] == "stop"


def test_keep_alives_have_no_line() -> None:
    assert OLLAMA_CHAT.stream(CALL, ticking()).feed(PING) == b""


# --- what breaks ----------------------------------------------------------------------------------------------------


def broken(*stream: bytes) -> tuple[LineStream, bytes]:
    translate = OLLAMA_CHAT.stream(CALL, ticking())
    return translate, b"".join(translate.feed(piece) for piece in stream)


@pytest.mark.parametrize(
    "bad",
    [
        chunk(content=7),
        chunk(tool_calls=[{"index": 0, "id": "c"}]) + chunk(finish="stop"),
        chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]) + chunk(finish="stop"),
        b"data: [1]\n\n",
    ],
)
def test_what_has_no_form_is_a_failure_after_what_came_before_it(bad: bytes) -> None:
    translate, out = broken(chunk(content="a"), bad, chunk(content="b"))
    assert translate.failure is not None
    assert translate.failure.cause in (Cause.MALFORMED, Cause.NO_FORM)
    (line,) = lines_of(out)
    assert line["message"]["content"] == "a"


def test_a_call_that_the_bound_has_cut_is_left_out_and_the_answer_says_why_it_ended() -> None:
    function = {"name": "f", "arguments": '{"text": "Once up'}
    call = {"index": 0, "id": "c", "function": function}
    translate, out = broken(chunk(content="a"), chunk(tool_calls=[call]), chunk(finish="length"), DONE)
    *said, last = lines_of(out + translate.end())
    assert translate.failure is None
    assert [line["message"].get("tool_calls") for line in said] == [None]
    assert (last["done"], last["done_reason"]) == (True, "length")
    message = {"content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    body = json.dumps({"choices": [choice]}).encode()
    made = json.loads(OLLAMA_CHAT.whole(CALL, ticking())(body))
    assert (made["message"].get("tool_calls"), made["done_reason"]) == (None, "length")


def test_a_call_that_is_cut_off_is_a_failure_at_the_end() -> None:
    translate, _ = broken(chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]))
    assert translate.failure is None
    assert translate.end() == b""
    assert translate.failure is not None


def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.wire.ollama.answer.ANSWER_BYTES_MAX", 2000)
    translate = OLLAMA_CHAT.stream(CALL, ticking())
    while translate.failure is None:
        translate.feed(chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "x" * 100}}]))
    assert translate.failure.cause is Cause.TOO_LARGE


@pytest.mark.parametrize("body", [b"", b"{}", b'{"choices":[]}', b'{"choices":[{"message":7}]}'])
def test_what_is_no_answer_is_none_in_any_dialect(body: bytes) -> None:
    with pytest.raises(BadStream):
        OLLAMA_CHAT.whole(CALL, ticking())(body)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data: {}\n\n", frame({"choices": [{"delta": {}}]})])))
def test_no_bytes_break_a_translator(stream: list[bytes]) -> None:
    outward(*stream)


def test_an_error_is_a_message_whole_or_as_a_line() -> None:
    assert json.loads(OLLAMA_CHAT.error_body(503, "no", "api_error", None, None)) == {"error": "no"}
    assert OLLAMA_CHAT.stream(CALL, ticking()).error("no", "api_error", None) == b'{"error":"no"}\n'


# --- models ---------------------------------------------------------------------------------------------------------


FACTS = Facts(
    name="org/m",
    created_s=0.0,
    context_tokens=4096,
    capabilities=(Capability.CHAT, Capability.VISION, Capability.TOOLS),
)


def test_models_are_listed_without_made_up_sizes() -> None:
    listed = json.loads(tags([FACTS]))
    (model,) = ListResponse.model_validate(listed).models
    assert (model.model, model.digest, model.size) == ("org/m:latest", "", 0)
    assert listed["models"][0]["modified_at"] == "1970-01-01T00:00:00.000000Z"


def test_a_model_shows_its_window_where_clients_look_for_it() -> None:
    made = ShowResponse.model_validate_json(show(FACTS))
    assert made.modelinfo is not None
    assert made.modelinfo[f"{made.modelinfo['general.architecture']}.context_length"] == 4096
    assert made.capabilities == ["completion", "tools", "vision"]


def test_a_window_that_is_not_known_is_not_shown() -> None:
    facts = Facts(name="m", created_s=0.0, context_tokens=None, capabilities=())
    made = json.loads(show(facts))
    assert (made["model_info"].keys(), made["capabilities"]) == ({"general.architecture"}, [])


@pytest.mark.parametrize("body", [b'{"model":"m"}', b'{"name":"m","verbose":true}'])
def test_a_model_is_asked_for_by_either_name(body: bytes) -> None:
    assert shown(body) == "m"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model":7}', b'{"model":""}'])
def test_a_question_about_no_model_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        shown(body)


def test_a_version_is_three_numbers() -> None:
    assert len([int(number) for number in json.loads(version())["version"].split(".")]) == 3


def test_a_call_keeps_nothing_in_the_other_dialect() -> None:
    call: Call = OLLAMA_GENERATE.parse(b'{"model":"m","prompt":"hi"}', {})
    assert call.native is None
