"""llama.cpp's own words, as they were recorded."""

import asyncio
import json
from typing import Any

import pytest

from tests.engines.speakers import CASSETTES, Called, Speaker, chat, recorded
from tests.http.harness import answering, read_request, upstream
from tidegate.core.health import CONTEXT_EXCEEDED
from tidegate.core.model import Capability, Ending, replace
from tidegate.engines.base import Failure, ProbeAnswer, Signals
from tidegate.engines.llamacpp import LlamaCpp
from tidegate.wire.openai import parse

LLAMA = LlamaCpp("", "smollm2")


def failure(name: str) -> Failure:
    said = recorded(name)
    headers = {key.lower().encode(): value.encode() for key, value in said["headers"]}
    return LLAMA.failure(said["status"], headers, said["body"].encode(), 0.0)


def answer(name: str) -> ProbeAnswer:
    said = recorded(name)
    return ProbeAnswer(status=said["status"], body=said["body"].encode())


@pytest.mark.parametrize("name", ["overflow", "overflow_stream"])
def test_its_overflow_is_one(name: str) -> None:
    said = failure(name)
    assert (said.cause, said.status, said.final) == (CONTEXT_EXCEEDED, 400, False)
    assert "exceeds the available context size (1024 tokens)" in said.message


@pytest.mark.parametrize(
    "words",
    [
        "input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
        "input (608 tokens) is larger than the max context size (512 tokens). skipping",
    ],
)
def test_an_input_for_embeddings_that_does_not_fit_its_batch_is_no_failure_of_its_own(words: str) -> None:
    """As its source (server-context.cpp) has the words."""
    body = json.dumps({"error": {"code": 500, "message": words, "type": "server_error"}}).encode()
    said = LLAMA.failure(500, {b"content-type": b"application/json"}, body, 0.0)
    assert (said.ending, said.cause, said.status, said.final) == (Ending.REFUSED, CONTEXT_EXCEEDED, 400, False)


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


@pytest.mark.parametrize(
    ("fields", "streamed"),
    [
        ({"tools": TOOLS, "logprobs": True}, False),
        ({"tools": TOOLS, "logprobs": True, "stream": True}, True),
        ({"tools": TOOLS, "logprobs": False}, True),
        ({"tools": [], "logprobs": True}, True),
    ],
)
def test_tools_with_log_probabilities_are_asked_for_whole_where_nobody_streams(
    fields: dict[str, Any], streamed: bool
) -> None:
    """As its source (server-common.cpp) has it: together they are refused in a stream, and not otherwise."""
    made = LLAMA.outgoing(parse(json.dumps(chat(**fields)).encode(), Capability.CHAT), "smollm2", ())
    assert (made.streamed, json.loads(made.body)["stream"]) == (streamed, streamed)


@pytest.mark.parametrize(
    ("asked", "bounds"),
    [
        ({"n_predict": 900, "max_tokens": 7}, {"max_tokens": 7}),
        ({"n_predict": -1, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"n_predict": 900, "max_tokens": None}, {"n_predict": 900, "max_tokens": None}),
    ],
)
def test_its_own_name_for_the_bound_does_not_undo_the_one_that_was_counted_on(
    asked: dict[str, Any], bounds: dict[str, Any]
) -> None:
    """As its source (server-task.cpp) has it, `n_predict` goes before `max_tokens`."""
    made = json.loads(LLAMA.outgoing(parse(json.dumps(chat(**asked)).encode(), Capability.CHAT), "smollm2", ()).body)
    assert {name: made[name] for name in ("n_predict", "max_tokens", "max_completion_tokens") if name in made} == bounds


async def test_what_is_asked_for_whole_is_given_whole() -> None:
    said = recorded("tool_call")["body"].encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(said)
    async with upstream(answering(head + said)) as up, Speaker("llamacpp", up.port, "smollm2") as speaker:
        called = await speaker.call(chat(tools=TOOLS, logprobs=True))
    assert called.failure is None
    assert called.answer == json.loads(said)


def test_its_bad_request_is_the_clients() -> None:
    said = failure("bad_request")
    assert (said.status, said.final, said.message) == (400, True, "'messages' is required")


def test_its_not_found_is_ours_to_solve() -> None:
    said = failure("not_found")
    assert (said.status, said.final, said.ending) == (502, False, Ending.FAILED)


def test_a_request_while_it_loads_is_a_refusal() -> None:
    said = failure("health_loading")
    assert (said.status, said.ending, said.message) == (503, Ending.REFUSED, "Loading model")


def test_it_is_down_while_it_loads_and_says_so() -> None:
    told = LLAMA.signals([answer("health_loading"), None, None, None])
    assert told == Signals(up=False, resident=False, loading=True)


@pytest.mark.parametrize("body", [b"", b'{"error":{"message":"out of memory"}}', b"<html>"])
def test_what_is_down_for_another_reason_is_not_loading(body: bytes) -> None:
    assert LLAMA.signals([ProbeAnswer(status=503, body=body), None, None, None]) == Signals(up=False)


UNKNOWN_KEY = b'{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}'


def test_one_that_refuses_our_key_is_down_though_it_is_well() -> None:
    refused = ProbeAnswer(status=401, body=UNKNOWN_KEY)
    assert LLAMA.signals([answer("health"), refused, refused, answer("models")]) == Signals(up=False)


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, b"<html>Sign in</html>"), (401, b'{"error":"no"}'), (403, UNKNOWN_KEY), (501, UNKNOWN_KEY), (404, b"")],
)
def test_one_behind_a_proxy_that_keeps_a_path_to_itself_is_up(status: int, body: bytes) -> None:
    assert LLAMA.signals([answer("health"), ProbeAnswer(status=status, body=body), None, answer("models")]).up


def props(**told: Any) -> ProbeAnswer:
    """As recorded, but for this."""
    return ProbeAnswer(status=200, body=json.dumps(json.loads(answer("props").body) | told).encode())


@pytest.mark.parametrize(("sleeping", "resident"), [(False, True), (True, False), (None, None), ("often", None)])
def test_it_tells_whether_it_sleeps_and_loses_nothing_else_by_it(sleeping: Any, resident: bool | None) -> None:
    told = LLAMA.signals([answer("health"), props(is_sleeping=sleeping), None, None])
    assert (told.up, told.resident, told.loading, told.context_tokens) == (True, resident, False, 1024)


@pytest.mark.parametrize(
    ("status", "resident", "loading"),
    [
        ({"value": "loaded"}, True, False),
        ({"value": "loading", "args": []}, False, True),
        ({"value": "unloaded", "failed": True}, False, False),
        ({"value": "sleeping"}, False, False),
        ({"value": "downloading"}, None, False),
        ("loaded", None, False),
        (None, None, False),
    ],
)
def test_a_server_of_several_models_tells_it_of_each(status: Any, resident: bool | None, loading: bool) -> None:
    """As its documentation has it: a server of several models does not run where the tests do."""
    listed = {"data": [{"id": "smollm2", "status": status}, {"id": "other", "status": {"value": "loaded"}}]}
    models = ProbeAnswer(status=200, body=json.dumps(listed).encode())
    told = LLAMA.signals([answer("health"), props(is_sleeping=None), None, models])
    assert (told.up, told.resident, told.loading) == (True, resident, loading)


def test_what_could_wake_it_is_asked_last_and_marked() -> None:
    """Builds before August 2026 load a model that sleeps in order to answer `/metrics`."""
    assert [(p.target, p.wakes) for p in LLAMA.probes()] == [
        (b"/health", False),
        (b"/props?model=smollm2&autoload=false", False),
        (b"/metrics?model=smollm2&autoload=false", True),
        (b"/v1/models", True),
    ]


def test_of_several_models_it_is_asked_about_the_one_that_is_named_and_never_told_to_load_it() -> None:
    asked = [probe.target for probe in LlamaCpp("/here", "ggml-org/Qwen3 8B&c:Q4_K_M").probes()]
    assert asked[1:3] == [
        b"/here/props?model=ggml-org%2FQwen3%208B%26c%3AQ4_K_M&autoload=false",
        b"/here/metrics?model=ggml-org%2FQwen3%208B%26c%3AQ4_K_M&autoload=false",
    ]
    assert [probe.target for probe in LlamaCpp("", None).probes()][1:3] == [b"/props", b"/metrics"]


def several(**meta: Any) -> ProbeAnswer:
    """The list of a server of several models, of which this one is loaded."""
    listed = {"data": [{"id": "smollm2", "status": {"value": "loaded"}, "meta": meta}, {"id": "other"}]}
    return ProbeAnswer(status=200, body=json.dumps(listed).encode())


# What a server of several models says of itself, as its source has it.
OF_NO_MODEL = {
    "role": "router",
    "model_path": "none",
    "default_generation_settings": {"params": None, "n_ctx": 0},
    "build_info": "b9000-abc",
}


def test_a_server_of_several_models_tells_the_window_of_what_is_loaded_in_its_list() -> None:
    bare = ProbeAnswer(status=200, body=json.dumps(OF_NO_MODEL).encode())
    models = several(n_ctx=32768, n_ctx_train=40960, size=5_021_769_728, n_params=8_190_735_360, n_vocab=151_936)
    told = LLAMA.signals([answer("health"), bare, None, models])
    assert (told.context_tokens, told.media, told.slots, told.resident) == (32768, None, None, True)
    assert told.fingerprint is not None
    assert told.fingerprint.weights == ""


def test_what_is_told_of_the_model_goes_before_what_its_list_says() -> None:
    told = LLAMA.signals([answer("health"), answer("props"), None, several(n_ctx=32768)])
    assert told.context_tokens == 1024


@pytest.mark.parametrize(("name", "running", "queued"), [("metrics_idle", 0, 0), ("metrics", 2, 2)])
def test_it_tells_its_window_and_its_load(name: str, running: int, queued: int) -> None:
    signals = LLAMA.signals([answer("health"), answer("props"), answer(name), None])
    told = replace(signals, fingerprint=None, kv_tokens_max=None, slots=None)
    assert told == Signals(up=True, context_tokens=1024, media=(), running=running, queued=queued, resident=True)


@pytest.mark.parametrize("lost", [1, 2])
def test_what_it_does_not_tell_is_unknown_and_not_zero(lost: int) -> None:
    answers: list[ProbeAnswer | None] = [answer("health"), answer("props"), answer("metrics"), None]
    answers[lost] = None
    signals = LLAMA.signals(answers)
    assert signals.up is True
    assert (signals.context_tokens is None) is (lost == 1)
    assert (signals.running is None) is (signals.queued is None) is (lost == 2)


async def replayed(name: str, body: dict[str, Any]) -> Called:
    """The call, answered with these bytes as they came over the wire."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write((CASSETTES / "llamacpp" / f"{name}.txt").read_bytes())

    async with upstream(script) as up, Speaker("llamacpp", up.port, "smollm2") as speaker:
        return await speaker.call(body)


@pytest.mark.parametrize("name", ["chat_stream", "chat_stream_usage", "tool_call_stream"])
async def test_its_streams_are_relayed_to_the_last_byte(name: str) -> None:
    called = await replayed(name, chat(stream=True, stream_options={"include_usage": True}))
    assert called.failure is None
    assert called.contents == 1
    assert called.written + called.attempt.reader.done_frame == recorded(name)["body"].encode()


@pytest.mark.parametrize(("stream", "whole"), [("chat_stream_usage", "chat"), ("tool_call_stream", "tool_call")])
async def test_its_streams_come_together_to_what_it_would_have_answered_whole(stream: str, whole: str) -> None:
    called = await replayed(stream, chat())
    expected, made = json.loads(recorded(whole)["body"]), called.answer
    for answer in (expected, made):
        for name in ("id", "created", "timings", "usage"):
            answer.pop(name)
        for call in answer["choices"][0]["message"].get("tool_calls", ()):
            call.pop("id")
        answer["choices"][0].pop("logprobs", None)
        answer["choices"][0]["message"]["content"] = answer["choices"][0]["message"].get("content") or ""
    assert made == expected


def test_it_tells_its_slots_and_what_they_hold_together() -> None:
    told = LLAMA.signals([answer("health"), answer("props"), answer("metrics"), None])
    assert (told.slots, told.kv_tokens_max, told.context_tokens) == (2, 2048, 1024)
    assert (told.kv_share, told.preemptions) == (None, None)


@pytest.mark.parametrize("slots", [None, 0, -1, "two", 10**400, 1.5])
def test_slots_that_cannot_be_are_none_and_nothing_else_is_lost_by_them(slots: Any) -> None:
    told = LLAMA.signals([answer("health"), props(total_slots=slots), None, None])
    assert (told.up, told.slots, told.kv_tokens_max, told.context_tokens) == (True, None, None, 1024)
