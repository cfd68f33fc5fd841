"""What cannot be served is refused with its place and a remedy, in four keys, and no endpoint hears of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import make
from tests.gateway.harness import CHAT, COMPLETIONS, Answer, chat, completion, house, local, remote, wire
from tidegate.core.model import Decision, Started
from tidegate.core.why import Why
from tidegate.gateway.reply import refusal
from tidegate.wire.errors import error_body, read_error

TOOLS = [{"type": "function", "function": {"name": "f"}}]
IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]

# Body, path and headers; then status, code, param, and what the message must name.
Row = tuple[Any, str, dict[str, str], int, str | None, str | None, str]
ROWS: dict[str, Row] = {
    "no body": (b"", CHAT, {}, 400, None, None, "not JSON"),
    "not JSON": (b'{"model": m}', CHAT, {}, 400, None, None, "not JSON"),
    "cut JSON": (b'{"model": "m"', CHAT, {}, 400, None, None, "not JSON"),
    "two values": (b"{} {}", CHAT, {}, 400, None, None, "not JSON"),
    "an array": (b"[]", CHAT, {}, 400, None, None, "JSON object"),
    "not UTF-8": (b'{"model": "\xff"}', CHAT, {}, 400, None, None, "UTF-8"),
    "a deep nest": (b'{"x":' + b"[" * 100_000, CHAT, {}, 400, None, None, "nested too deeply"),
    "no model": ({"messages": [{"role": "user", "content": ""}]}, CHAT, {}, 400, None, "model", "`model`"),
    "a number for a model": (chat() | {"model": 7}, CHAT, {}, 400, None, "model", "name of a model"),
    "an empty model": (chat() | {"model": ""}, CHAT, {}, 400, None, "model", "name of a model"),
    "a model beyond names": (chat() | {"model": "m" * 257}, CHAT, {}, 400, None, "model", "256"),
    "an unknown model": (chat() | {"model": "n"}, CHAT, {}, 404, "model_not_found", "model", "GET /v1/models"),
    "no messages": ({"model": "m"}, CHAT, {}, 400, None, "messages", "`messages`"),
    "empty messages": ({"model": "m", "messages": []}, CHAT, {}, 400, None, "messages", "non-empty array"),
    "text for messages": ({"model": "m", "messages": "hi"}, CHAT, {}, 400, None, "messages", "non-empty array"),
    "no role": ({"model": "m", "messages": [{"content": "x"}]}, CHAT, {}, 400, None, "messages", "messages[0].role"),
    "content of a number": (
        {"model": "m", "messages": [{"role": "user", "content": 1}]}, CHAT, {}, 400, None, "messages",
        "messages[0].content",
    ),
    "text for stream": (chat(stream="yes"), CHAT, {}, 400, None, "stream", "true or false"),
    "no output": (chat(max_tokens=0), CHAT, {}, 400, None, "max_tokens", "whole number from 1"),
    "half a token": (chat(max_tokens=1.5), CHAT, {}, 400, None, "max_tokens", "whole number from 1"),
    "too many choices": (chat(n=129), CHAT, {}, 400, None, "n", "1 to 128"),
    "an array for options": (chat(stream_options=[]), CHAT, {}, 400, None, "stream_options", "include_usage"),
    "no prompt": ({"model": "m"}, COMPLETIONS, {}, 400, None, "prompt", "`prompt`"),
    "an object for a prompt": (completion() | {"prompt": {}}, COMPLETIONS, {}, 400, None, "prompt", "string"),
    "a mixed prompt": (completion() | {"prompt": ["a", 1]}, COMPLETIONS, {}, 400, None, "prompt", "different kinds"),
    "an unknown class": (chat(), CHAT, {"x_tidegate_class": "vip"}, 400, None, None, "batch, interactive"),
    "a promise in words": (
        chat(), CHAT, {"x_tidegate_slo_ttft_ms": "fast"}, 400, None, None, "x-tidegate-slo-ttft-ms",
    ),
    "a negative promise": (chat(), CHAT, {"x_tidegate_slo_e2e_ms": "-1"}, 400, None, None, "x-tidegate-slo-e2e-ms"),
    "an unknown header of ours": (chat(), CHAT, {"x_tidegate_slo": "5"}, 400, None, None, "x-tidegate-slo-ttft-ms"),
    "a broken residency": (chat(), CHAT, {"x_tidegate_residency": "a b"}, 400, None, None, "x-tidegate-residency"),
    "a residency without a place": (
        chat(), CHAT, {"x_tidegate_residency": "mars"}, 400, "site_not_allowed", None, "x-tidegate-residency",
    ),
    "an unknown knob": (chat(tidegate={"slo": 5}), CHAT, {}, 400, None, "tidegate", "slo_ttft_ms"),
    "a knob of another type": (chat(tidegate={"slo_ttft_ms": {}}), CHAT, {}, 400, None, "tidegate", "`tidegate`"),
    "an array of knobs": (chat(tidegate=[]), CHAT, {}, 400, None, "tidegate", "`tidegate`"),
    "a flag in words": (chat(), CHAT, {"x_tidegate_dry_run": "perhaps"}, 400, None, None, "true, false, or flips"),
    "a cost in words": (chat(), CHAT, {"x_tidegate_max_cost_usd": "$1"}, 400, None, None, "US dollars"),
    "a cost below any": (
        chat(max_tokens=100), CHAT, {"x_tidegate_max_cost_usd": "0.0001", "x_tidegate_residency": "away"}, 400,
        "max_cost_exceeded", None, "x-tidegate-max-cost-usd",
    ),
    "a prompt beyond every window": (
        chat("word " * 40_000), CHAT, {}, 400, "context_length_exceeded", "messages", "32768",
    ),
    "an output beyond every window": (
        chat(max_tokens=40_000), CHAT, {}, 400, "context_length_exceeded", "messages", "lower max_tokens",
    ),
    "an image for the blind": (
        {"model": "m", "messages": [{"role": "user", "content": IMAGE}]}, CHAT, {}, 400, "unsupported_capability",
        None, "leave out",
    ),
    "a compressed body": (
        b"\x1f\x8b", CHAT, {"content_encoding": "gzip"}, 415, "unsupported_encoding", None, "without",
    ),
}  # fmt: skip


def check(answer: Answer, status: int, code: str | None, param: str | None, named: str) -> None:
    assert answer.status == status
    assert answer.header("content-type") == "application/json"
    error = answer.error
    assert named in error["message"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("row", ROWS)
async def test_a_request_that_cannot_be_served_is_told_where_and_what_to_do(tmp_path: Path, row: str) -> None:
    body, path, headers, status, code, param, named = ROWS[row]
    async with house(tmp_path) as home:
        answer = await home.ask(body, path=path, x_request_id="mine", **headers)
        assert not any(engine.seen for engine in home.engines.values())
        assert not any(isinstance(line.fact, Started) for line in home.journal())
    check(answer, status, code, param, named)
    assert answer.header("x-request-id") == "mine"


DEEP: dict[str, tuple[str, bytes]] = {
    "stream_options": (
        CHAT,
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":1,'
        b'"stream":true,"stream_options":{"a":%b}}',
    ),
    "tools": (
        CHAT,
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":1,'
        b'"tools":[{"type":"function","function":{"a":%b}}]}',
    ),
    "metadata": ("/v1/responses", b'{"model":"m","input":"a","max_output_tokens":1,"metadata":%b}'),
    "metadata of a stream": (
        "/v1/responses", b'{"model":"m","input":"a","max_output_tokens":1,"stream":true,"metadata":%b}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP)
async def test_a_nest_is_carried_or_refused_however_deep_it_is(tmp_path: Path, name: str) -> None:
    path, body = DEEP[name]

    async def told(depth: int) -> int:
        return (await home.ask(body % (b"[" * depth + b"]" * depth), path=path)).status

    async with house(tmp_path, budget={"usd_per_day": 100}, cloud=remote()) as home:
        # Where Python stops is a matter of its version, and of how many calls there are within each other by then.
        carried, refused = 1, 100_000
        assert (await told(carried), await told(refused)) == (200, 400)
        while refused - carried > 1:
            depth = (carried + refused) // 2
            carried, refused = (depth, refused) if await told(depth) == 200 else (carried, depth)
        assert {await told(depth) for depth in range(carried - 80, carried + 80)} == {200, 400}


HUGE = json.dumps(chat("x" * (1024 * 1024))).encode()
RAW: dict[str, tuple[bytes, int]] = {
    "a body beyond the bound": (wire("POST", CHAT, HUGE), 413),
    "a length beyond the bound": (b"POST /v1/models HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n", 413),
    "chunks beyond the bound": (
        b"POST /v1/models HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n200000\r\n" + b"x" * 0x200000,
        413,
    ),
    "a header beyond the bound": (wire("POST", CHAT, b"{}", [("x-long", "y" * 70_000)]), 431),
    "headers without end": (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
    "a target without end": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
    "chunks that are none": (
        b"POST /v1/models HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400,
    ),
    "two lengths": (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "another protocol": (b"hello\r\n\r\n", 400),
    "a coding of its own": (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
async def test_a_request_that_breaks_the_protocol_gets_an_error_in_json(tmp_path: Path, name: str) -> None:
    raw, status = RAW[name]
    async with house(tmp_path, gateway={"body_mib_max": 1}) as home:
        answer = await home.send(raw)
        assert (await home.ask()).status == 200
    assert answer.status == status
    assert answer.error["code"] == f"http_{status}"
    assert answer.error["message"]


async def test_a_capability_that_only_one_endpoint_has_goes_there(tmp_path: Path) -> None:
    laptop, cloud = local(capabilities=["chat"]), remote(capabilities=["chat", "tools"])
    async with house(tmp_path, laptop=laptop, cloud=cloud) as home:
        answer = await home.ask(chat(tools=TOOLS))
    assert (answer.endpoint, answer.header("x-tidegate-why")) == ("cloud", "only_capable")


async def test_a_prompt_that_fits_only_the_largest_window_goes_there(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(chat("word " * 10_000))
    assert (answer.endpoint, answer.header("x-tidegate-why")) == ("cloud", "only_long_enough")


def too_long(why: Why, prompt_tokens: int, output_tokens_max: int | None, prompts: int = 1) -> str:
    """What a client is told of windows of 8192 and 4096 tokens; a gateway that is the client knows it as such."""
    request = make.request(prompt_tokens=prompt_tokens, output_tokens_max=output_tokens_max, prompts=prompts)
    told = refusal(request, Decision(request_id="r", plan=(), why=why), (8192, 4096))
    assert told.code == "context_length_exceeded"
    assert read_error(400, error_body(told.message, told.kind)).context_exceeded
    return told.message


@pytest.mark.parametrize(
    ("why", "in_openais_dialect"),
    [
        (Why.CONTEXT_TOO_LONG, "this model's maximum context length is 8192"),
        (Why.MEMORY_TOO_SMALL, "exceeds the available context size"),
    ],
)
@pytest.mark.parametrize("output_tokens_max", [None, 0, 5])
def test_a_prompt_that_is_too_long_is_called_so_in_the_words_that_libraries_look_for(
    why: Why, in_openais_dialect: str, output_tokens_max: int | None
) -> None:
    message = too_long(why, 8192, output_tokens_max)
    assert "prompt is too long" in message
    assert in_openais_dialect in message


def test_of_a_prompt_that_fits_without_its_output_it_is_not_said_that_it_is_too_long() -> None:
    message = too_long(Why.CONTEXT_TOO_LONG, 8191, 8000)
    assert "input length and `max_tokens` exceed context limit: 8191 + 8000 > 8192" in message
    assert "too long" not in message


def test_of_several_prompts_it_is_said_how_long_they_are_in_the_mean() -> None:
    assert "about 9000 tokens in the mean of 10 prompts" in too_long(Why.CONTEXT_TOO_LONG, 90_000, None, 10)
    assert "500 + 8000 > 8192 in the mean of 10 prompts" in too_long(Why.CONTEXT_TOO_LONG, 5_000, 8_000, 10)
