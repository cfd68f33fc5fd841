"""What goes wrong before first content is made good elsewhere, unseen; where there is no elsewhere, it is said."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import chat, house, local, remote
from tests.http.harness import Script as Steps
from tests.http.harness import always, answering, eventually, read_request, upstream
from tidegate.core.model import Ended, Ending, Judged
from tidegate.engines.fake import FAKED, Fault, Script
from tidegate.engines.words import Words, event

WORDS = "w1 w2 w3 w4 "
OVERFLOW = json.loads(Path("tests/engines/cassettes/llamacpp/overflow.json").read_text())["response"]["body"].encode()

SILENCES = {fault.value: Script(fault=fault, fault_after=0) for fault in (Fault.SILENT, Fault.STALL)}
BROKEN = {
    fault.value: Script(fault=fault, fault_after=0) for fault in FAKED if fault not in (Fault.SILENT, Fault.STALL)
}
STATUSES = {f"status_{s}": Script(status=s) for s in (401, 403, 404, 408, 409, 500, 502, 504)}
WORDLESS = {
    "web_page": Script(status=502, error=b"<html><h1>Bad Gateway</h1></html>"),
    "nothing": Script(status=500, error=b""),
    "moved": Script(status=302, error=b"", headers=((b"location", b"/login"),)),
}
REFUSALS = {
    "status_429": Script(status=429),
    "status_429_later": Script(status=429, headers=((b"retry-after", b"7"),)),
    "status_503": Script(status=503),
    "status_529": Script(
        status=529, error=b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    ),
}
# So LM Studio and a llama.cpp of several models say what is wrong with their model.
ABSENT = {
    name: Script(status=400, error=json.dumps({"error": {"message": words, "type": "invalid_request_error"}}).encode())
    for name, words in {
        "nothing_loaded": "No models loaded. Please load a model in the developer page.",
        "not_loaded": "model is not loaded",
        "not_there": "model 'own' not found",
    }.items()
}
TROUBLES = SILENCES | BROKEN | STATUSES | WORDLESS | REFUSALS | ABSENT

# A request may live for a second here, so that a silence is over before a test is.
SECOND: dict[str, Any] = {
    "gateway": {"request_timeout_s": 1},
    "policy": {"hold_s_max": 0.5},
    "classes": {"interactive": {"slo": {"ttft_ms": 900}}, "batch": {"slo": {"e2e_ms": 900}}},
}


@pytest.mark.lengthy
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("engine", ["fake", "llamacpp"])
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_trouble_before_first_content_is_made_good_elsewhere_exactly_once(
    tmp_path: Path, trouble: str, engine: str, stream: bool
) -> None:
    async with house(tmp_path, laptop=local(TROUBLES[trouble], engine=engine), cloud=remote()) as home:
        answer = await home.ask(chat(stream=stream), x_tidegate_slo_ttft_ms="150")
        assert len(home.engines["laptop"].seen) == len(home.engines["cloud"].seen) == 1
    assert (answer.status, answer.text, answer.endpoint) == (200, WORDS, "cloud")
    assert answer.header("x-tidegate-attempts") == "2"
    if stream:
        assert answer.events[-1] == "[DONE]"


async def test_an_engine_without_its_model_is_left_alone_after_some_failures(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(ABSENT["nothing_loaded"]), cloud=remote()) as home:
        answers = [await home.ask() for _ in range(8)]
        assert len(home.engines["laptop"].seen) < 8
    assert {answer.endpoint for answer in answers} == {"cloud"}


@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_that_is_gone_is_made_good_elsewhere(tmp_path: Path, stream: bool) -> None:
    async with house(tmp_path) as home:
        await home.fell("laptop")
        answer = await home.ask(chat(stream=stream))
    assert (answer.status, answer.text, answer.endpoint) == (200, WORDS, "cloud")


ODD: dict[str, Steps] = {
    "not_http": answering(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "closed_at_once": answering(b""),
    "half_a_head": answering(b"HTTP/1.1 200 OK\r\ncontent-ty"),
    "keep_alives_and_the_end": answering(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: ping\n\n: ping\n\n"
    ),
    "done_at_once": answering(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 14\r\n\r\ndata: [DONE]\n\n"
    ),
    "no_type": answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
    "gzip": answering(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
        b"content-length: 4\r\n\r\n\x1f\x8b\x08\x00"
    ),
    "endless_head": answering(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("odd", ODD)
async def test_an_answer_that_is_none_is_made_good_elsewhere(tmp_path: Path, odd: str, stream: bool) -> None:
    probe = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readexactly(4)).startswith(b"GET"):
            await always(probe)(reader, writer)
        await ODD[odd](reader, writer)

    async with (
        upstream(script) as up,
        house(tmp_path, laptop=local(url=f"http://127.0.0.1:{up.port}"), cloud=remote()) as home,
    ):
        answer = await home.ask(chat(stream=stream))
    assert (answer.status, answer.text, answer.endpoint) == (200, WORDS, "cloud")


@pytest.mark.lengthy
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("silence", SILENCES)
async def test_silence_without_an_alternative_ends_with_the_time_a_request_may_take(
    tmp_path: Path, silence: str, stream: bool
) -> None:
    async with house(tmp_path, laptop=local(SILENCES[silence]), **SECOND) as home:
        answer = await home.ask(chat(stream=stream))
        await eventually(lambda: home.engines["laptop"].left == 1)
    assert (answer.status, answer.error["code"]) == (504, "request_timeout")
    assert "request_timeout_s" in answer.error["message"]
    assert answer.header("x-should-retry") == "false"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("trouble", BROKEN | STATUSES | WORDLESS | REFUSALS)
async def test_trouble_without_an_alternative_is_told_with_status_and_reason(
    tmp_path: Path, trouble: str, stream: bool
) -> None:
    async with house(tmp_path, laptop=local(TROUBLES[trouble])) as home:
        answer = await home.ask(chat(stream=stream))
    expected = (502, "upstream_error", "api_error")
    if trouble in REFUSALS:
        limited = trouble.startswith("status_429")
        expected = (
            (429, "rate_limit_exceeded", "rate_limit_error") if limited else (503, "upstream_overloaded", "api_error")
        )
    assert (answer.status, answer.error["code"], answer.error["type"]) == expected
    assert "<" not in answer.error["message"]
    assert "No endpoint could complete this (1 tried)" in answer.error["message"]
    assert answer.header("retry-after") == ("7" if trouble == "status_429_later" else "")
    assert answer.header("x-should-retry") == ("false" if answer.status == 502 else "")
    assert answer.header("x-tidegate-why") == "only_endpoint"
    assert answer.endpoint == ""


async def test_what_is_told_compressed_is_told_to_be_that_and_not_relayed(tmp_path: Path) -> None:
    script = Script(status=400, error=gzip.compress(b"no"), headers=((b"content-encoding", b"gzip"),))
    async with house(tmp_path, laptop=local(script)) as home:
        answer = await home.ask()
    assert (answer.status, answer.error["message"]) == (400, "the endpoint answered 400, compressed")


async def test_an_engine_that_is_gone_without_an_alternative_is_told(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local()) as home:
        await home.fell("laptop")
        answer = await home.ask()
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")


async def test_no_fallback_means_one_attempt(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(status=500)), cloud=remote()) as home:
        answer = await home.ask(x_tidegate_no_fallback="true")
        assert home.engines["cloud"].seen == []
    assert answer.status == 502


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("status", [400, 422])
async def test_a_request_that_is_at_fault_is_told_so_and_tried_nowhere_else(
    tmp_path: Path, status: int, stream: bool
) -> None:
    said = {"message": "temperature is too high", "type": "bad_thing", "param": "temperature", "code": "t"}
    script = Script(status=status, error=json.dumps({"error": said}).encode())
    async with house(tmp_path, laptop=local(script), cloud=remote()) as home:
        answer = await home.ask(chat(stream=stream))
        assert home.engines["cloud"].seen == []
    assert (answer.status, answer.error) == (status, said)
    assert answer.header("x-should-retry") == ""


async def test_a_request_that_a_hedge_finds_at_fault_ends_the_other_attempt_too(tmp_path: Path) -> None:
    wrong = Script(status=400, error=b'{"error":{"message":"no such tool"}}')
    async with house(tmp_path, laptop=local(SILENCES["silent"]), cloud=remote(wrong)) as home:
        answer = await home.ask(x_tidegate_slo_ttft_ms="150")
        await home.quiet()
        await eventually(lambda: home.engines["laptop"].left == 1)
    assert (answer.status, answer.error["message"]) == (400, "no such tool")


CREDIT = b'{"error":{"type":"invalid_request_error","message":"Your credit balance is too low."}}'
SAMPLING = b'{"error":{"message":"Unsupported value: temperature","code":"unsupported_value","param":"temperature"}}'
TEMPLATE = (
    b'{"error":{"code":500,"message":"Jinja Exception: Conversation roles must alternate","type":"server_error"}}'
)
FIELD = b'{"error":{"message":"Unrecognized request argument supplied: top_k","code":null}}'
CALL_ID = (
    b'{"object":"error","message":"Tool call id was call_0 but must be a-z, A-Z, 0-9, with a length of 9.","code":400}'
)
FILTERED = b'{"error":{"message":"The response was filtered.","type":null,"param":"prompt","code":"content_filter"}}'
RISK = b'{"error":{"message":"Content Exists Risk","type":"invalid_request_error","code":"invalid_request_error"}}'
WRAPPED = json.dumps(
    {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": FIELD.decode()}}}
).encode()
FLAGGED = b'{"error":{"code":403,"message":"Your input was flagged","metadata":{"reasons":["violence"]}}}'


@pytest.mark.parametrize(
    ("script", "breaker"),
    [
        (Script(status=400, error=CREDIT), "open"),
        (Script(status=400, error=SAMPLING), "closed"),
        (Script(status=400, error=FIELD), "closed"),
        (Script(status=413, error=b"<html>Request Entity Too Large</html>"), "closed"),
        (Script(status=500, error=TEMPLATE), "closed"),
        (Script(status=403, error=FLAGGED), "closed"),
        (Script(status=400, error=CALL_ID), "closed"),
        (Script(status=400, error=FILTERED), "closed"),
        (Script(status=403, error=FILTERED), "closed"),
        (Script(status=400, error=RISK), "closed"),
        (Script(status=400, error=WRAPPED), "closed"),
    ],
    ids=[
        *("account", "parameter", "field", "size", "template", "flagged"),
        *("call_id", "filtered", "filtered_403", "risk", "wrapped"),
    ],
)
async def test_what_one_endpoint_does_not_take_another_one_may_and_its_breaker_knows_the_difference(
    tmp_path: Path, script: Script, breaker: str
) -> None:
    async with house(tmp_path, laptop=local(script), cloud=remote()) as home:
        answers = [await home.ask() for _ in range(4)]
        state = (await home.get("/api/state", admin=True)).json["endpoints"]["laptop"]["breaker"]
    assert {(a.status, a.endpoint) for a in answers} == {(200, "cloud")}
    assert state == breaker


async def test_what_nobody_takes_is_told_in_the_words_of_the_last(tmp_path: Path) -> None:
    script = Script(status=500, error=TEMPLATE)
    async with house(tmp_path, laptop=local(script), cloud=remote(script)) as home:
        answer = await home.ask()
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert "roles must alternate" in answer.error["message"]


async def test_a_prompt_that_every_moderation_dislikes_is_the_clients_to_change(tmp_path: Path) -> None:
    script = Script(status=400, error=FILTERED)
    async with house(tmp_path, laptop=local(script), cloud=remote(script)) as home:
        answer = await home.ask()
        assert [len(home.engines[name].seen) for name in ("laptop", "cloud")] == [1, 1]
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        400,
        "content_filter",
        "invalid_request_error",
    )


@pytest.mark.virtual
async def test_a_call_that_the_bound_has_cut_is_an_answer_and_nonsense_in_one_no_failure_of_the_endpoint(
    tmp_path: Path,
) -> None:
    asked = {"model": "m", "max_tokens": 16, "messages": [{"role": "user", "content": "write"}]}
    asked["tools"] = [{"name": "write", "input_schema": {"type": "object"}}]

    def answering_with(finish: str) -> Script:
        function = {"name": "write", "arguments": '{"text": "Once up'}
        message = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": function}]}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return Script(answer=json.dumps({"object": "chat.completion", "choices": [choice]}).encode())

    async with house(tmp_path, laptop=local(answering_with("length"))) as home:
        cut = await home.ask(asked, path="/v1/messages")
        assert (cut.status, cut.json["stop_reason"]) == (200, "max_tokens")
        home.engines["laptop"].script = answering_with("tool_calls")
        assert {(await home.ask(asked, path="/v1/messages")).status for _ in range(4)} == {502}
        assert (await home.get("/api/state", admin=True)).json["endpoints"]["laptop"]["breaker"] == "closed"


SGLANGS = (
    b'{"object":"error","message":"Input length (9000 tokens) exceeds the maximum allowed length (8186 tokens). Use a '
    b'shorter input or enable --allow-auto-truncate.","type":"BadRequestError","param":null,"code":400}'
)


@pytest.mark.parametrize("overflow", [OVERFLOW, SGLANGS], ids=["llamacpp", "sglang"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_that_does_not_fit_after_all_goes_where_it_fits(
    tmp_path: Path, stream: bool, overflow: bytes
) -> None:
    full = Script(status=400, error=overflow)
    async with house(tmp_path, laptop=local(full), cloud=remote()) as home:
        answer = await home.ask(chat(stream=stream))
    assert (answer.status, answer.text, answer.endpoint) == (200, WORDS, "cloud")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_that_fits_nowhere_after_all_is_the_clients_to_shorten(tmp_path: Path, stream: bool) -> None:
    full = Script(status=400, error=OVERFLOW)
    async with house(tmp_path, laptop=local(full), cloud=remote(full)) as home:
        answer = await home.ask(chat(stream=stream))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "context_length_exceeded", "messages")
    assert "1531 tokens" in answer.error["message"]
    assert answer.error["type"] == "invalid_request_error"


async def test_an_overflow_that_is_told_inside_the_stream_is_an_overflow_all_the_same(tmp_path: Path) -> None:
    frame = b"data: " + OVERFLOW + b"\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(frame)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        probe = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        while True:
            request = await read_request(reader)
            writer.write(probe if request.startswith(b"GET") else head + frame)

    async with upstream(script) as up, house(tmp_path, laptop=local(url=f"http://127.0.0.1:{up.port}")) as home:
        answer = await home.ask(chat(stream=True))
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


UNFIT = b'{"error":{"code":500,"message":"tools param requires --jinja flag","type":"server_error"}}'
IGNORED = b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    ("body", "status", "code", "said", "breaker"),
    [
        (OVERFLOW, 400, "context_length_exceeded", "1531 tokens", "closed"),
        (b"\xef\xbb\xbf" + OVERFLOW, 400, "context_length_exceeded", "1531 tokens", "closed"),
        (FLAGGED, 400, None, "flagged", "closed"),
        (UNFIT, 400, None, "--jinja", "closed"),
        (b'{"error":{"message":"out of memory"}}', 502, "upstream_error", "out of memory", "open"),
        (IGNORED, 502, "upstream_error", "answered application/json where text/event-stream", "open"),
        (b"{", 502, "upstream_error", "answered application/json where text/event-stream", "open"),
    ],
    ids=["overflow", "marked", "flagged", "unfit", "error", "answer", "cut"],
)
async def test_json_where_a_stream_was_asked_for_is_the_error_that_it_tells_and_else_no_answer(
    tmp_path: Path, body: bytes, status: int, code: str | None, said: str, breaker: str
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked = await read_request(reader)
            told = b"{}" if asked.startswith(b"GET") else body
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: %d\r\n\r\n"
            writer.write(head % len(told) + told)

    async with upstream(script) as up, house(tmp_path, laptop=local(url=f"http://127.0.0.1:{up.port}")) as home:
        answers = [await home.ask(chat(stream=True)) for _ in range(3)]
        state = (await home.get("/api/state", admin=True)).json["endpoints"]["laptop"]["breaker"]
    assert (answers[0].status, answers[0].error["code"]) == (status, code)
    assert said in answers[0].error["message"]
    assert state == breaker


@pytest.mark.parametrize("first", ["overflow", "down"])
async def test_an_overflow_is_no_last_word_while_a_larger_endpoint_only_failed(tmp_path: Path, first: str) -> None:
    full, down = Script(status=400, error=OVERFLOW), Script(status=503)
    scripts = (full, down) if first == "overflow" else (down, full)
    async with house(tmp_path, laptop=local(scripts[0]), cloud=remote(scripts[1])) as home:
        answer = await home.ask()
    assert (answer.status, answer.error["code"]) == (503, "upstream_overloaded")
    assert answer.error["message"].startswith("No endpoint could complete this (2 tried); the last to fail: ")


AFTER = {fault.value: fault for fault in (Fault.CUT, Fault.MALFORMED, Fault.ERROR_EVENT, Fault.UNFINISHED)}


@pytest.mark.parametrize("fault", AFTER)
@pytest.mark.parametrize("engine", ["fake", "llamacpp"])
async def test_a_stream_that_breaks_ends_with_an_error_and_never_as_if_complete(
    tmp_path: Path, fault: str, engine: str
) -> None:
    place = local(Script(fault=AFTER[fault], fault_after=2), engine=engine)
    async with house(tmp_path, laptop=place, cloud=remote()) as home:
        answer = await home.ask(chat(stream=True))
        assert home.engines["cloud"].seen == []
        (line,) = home.log()
    assert (answer.status, answer.text, answer.endpoint) == (200, "w1 w2 ", "laptop")
    assert "[DONE]" not in answer.events
    assert set(answer.events[-1]) == {"error"}
    assert set(answer.events[-1]["error"]) == {"message", "type", "param", "code"}
    assert line["outcome"] == "failed_mid_stream"


@pytest.mark.parametrize("fault", AFTER)
@pytest.mark.parametrize("engine", ["fake", "llamacpp"])
async def test_an_answer_that_breaks_before_it_was_given_whole_is_given_by_another(
    tmp_path: Path, fault: str, engine: str
) -> None:
    place = local(Script(fault=AFTER[fault], fault_after=2), engine=engine)
    async with house(tmp_path, laptop=place, cloud=remote()) as home:
        answer = await home.ask(chat())
    assert (answer.status, answer.text, answer.endpoint) == (200, WORDS, "cloud")


@pytest.mark.lengthy
async def test_answers_that_take_longer_than_requests_may_are_no_fault_of_their_engine(tmp_path: Path) -> None:
    place = local(Script(tokens=1000, token_s=0.02), concurrency=8)
    async with house(tmp_path, laptop=place, **SECOND) as home:
        answers = await asyncio.gather(*[home.ask(chat(stream=True)) for _ in range(4)])
        assert [one.events[-1]["error"]["code"] for one in answers] == ["request_timeout"] * 4
        assert home.gateway.router.endpoint("laptop").state.breaker.strikes == 0.0
        home.engines["laptop"].script = Script()
        assert (await home.ask(chat())).status == 200


@pytest.mark.lengthy
async def test_a_stream_that_falls_silent_ends_with_the_time_a_request_may_take(tmp_path: Path) -> None:
    place = local(Script(tokens=1000, token_s=0.3))
    async with house(tmp_path, laptop=place, **SECOND) as home:
        answer = await home.ask(chat(stream=True))
        await eventually(lambda: home.engines["laptop"].left == 1)
    assert answer.events[-1]["error"]["code"] == "request_timeout"
    assert "[DONE]" not in answer.events


SAID = Words(model="own", chat=True, body_bytes=40)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize(
    "trouble",
    [event({"error": {"message": "out of memory"}}), b'data: {"choices": [{"delta"\n\n'],
    ids=["error", "torn"],
)
async def test_a_failure_that_comes_with_first_content_is_made_good_elsewhere_unseen(
    tmp_path: Path, trouble: bytes, path: str
) -> None:
    fails = Script(answer=SAID.role() + SAID.token(7) + trouble)
    async with house(tmp_path, laptop=local(fails), cloud=remote()) as home:
        answer = await home.ask(chat(stream=True, max_tokens=9), path=path)
        first, _ = (line.fact for line in home.journal() if isinstance(line.fact, Ended))
    assert (answer.status, answer.endpoint) == (200, "cloud")
    assert b"w7" not in answer.body
    assert answer.body.count(b"w1 ") == 1
    assert b"error" not in answer.body
    assert (first.endpoint, first.ending, first.ttft_s, first.output_tokens) == ("laptop", Ending.FAILED, None, 1)


def three(*scripts: Script) -> dict[str, Any]:
    return {name: local(script) for name, script in zip(("a", "b", "c"), scripts, strict=True)}


async def test_every_endpoint_of_the_plan_is_tried_before_a_request_is_given_up(tmp_path: Path) -> None:
    async with house(tmp_path, **three(Script(status=500), Script(status=429), Script())) as home:
        answer = await home.ask()
        assert [len(home.engines[name].seen) for name in "abc"] == [1, 1, 1]
    assert (answer.text, answer.endpoint, answer.header("x-tidegate-attempts")) == (WORDS, "c", "3")


async def test_a_hedge_that_loses_is_cancelled_and_paid_for(tmp_path: Path) -> None:
    slow, never = Script(first_s=0.3), Script(fault=Fault.SILENT)
    async with house(tmp_path, laptop=local(slow), cloud=remote(never)) as home:
        answer = await home.ask(x_tidegate_slo_ttft_ms="150")
        await home.quiet()
        await eventually(lambda: home.engines["cloud"].left == 1)
        (line,) = home.log()
    assert (answer.text, answer.endpoint) == (WORDS, "laptop")
    assert line["hedged"] is True
    # The vendor bills the prompt once it works on it, whoever leaves.
    assert float(answer.header("x-tidegate-cost-usd")) > 0


async def test_an_answer_in_one_piece_may_take_as_long_as_it_takes_to_make(tmp_path: Path) -> None:
    # Of a promise that is long over nothing is seen before its end; the endpoint is at work, and no other is asked.
    script = Script(tokens=40, token_s=0.02)
    slow = local(script, prior={"decode_tokens_per_s": 50})
    async with house(tmp_path, laptop=slow, cloud=remote()) as home:
        answer = await home.ask(chat(max_tokens=2000), x_tidegate_slo_ttft_ms="150")
        assert not home.engines["cloud"].seen
    assert (answer.status, answer.endpoint, answer.header("x-tidegate-attempts")) == (200, "laptop", "1")


async def test_first_content_of_an_answer_in_one_piece_is_that_of_who_gave_it(tmp_path: Path) -> None:
    # What broke off nobody was shown, though it had begun in time.
    broken = local(Script(fault=Fault.CUT, fault_after=2), engine="llamacpp")
    places: dict[str, Any] = {"laptop": broken, "cloud": remote(Script(first_s=0.3), engine="llamacpp")}
    promised = {"interactive": {"attainment": 0.95, "slo": {"ttft_ms": 200}}}
    async with house(tmp_path, classes=promised, **places) as home:
        answer = await home.ask(chat(max_tokens=10))
        (line,) = home.log()
    (kept,) = [line.fact.kept for line in home.journal() if isinstance(line.fact, Judged)]
    assert (answer.endpoint, line["attempts"]) == ("cloud", 2)
    assert line["ttft_s"] >= 0.3
    assert kept is False
