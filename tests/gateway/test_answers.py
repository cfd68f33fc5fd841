"""What clients get when all is well."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import CHAT, COMPLETIONS, KEY, chat, completion, house, local, remote
from tests.http.harness import read_request, upstream
from tidegate.core.model import Ended, Request, Started
from tidegate.engines.fake import Script

WORDS = "w1 w2 w3 w4 "


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("path", "body"), [(CHAT, chat()), (COMPLETIONS, completion())])
@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_an_answer_comes_streamed_or_whole_as_it_was_asked_for(
    tmp_path: Path, stream: bool, path: str, body: dict[str, Any], prefix: str
) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(body | {"stream": stream}, path=prefix + path.removeprefix("/v1"))
    assert answer.status == 200
    assert answer.text == WORDS
    if stream:
        assert answer.events[-1] == "[DONE]"
        assert answer.events.count("[DONE]") == 1
    else:
        assert answer.json["object"] == ("chat.completion" if path == CHAT else "text_completion")
        assert answer.json["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("options", "frames"), [(None, 0), ({"include_usage": False}, 0), ({"include_usage": True}, 1)]
)
async def test_the_frame_of_usage_is_for_those_who_asked_for_it(
    tmp_path: Path, options: dict[str, bool] | None, frames: int
) -> None:
    fields: dict[str, Any] = {} if options is None else {"stream_options": options}
    async with house(tmp_path) as home:
        answer = await home.ask(chat(stream=True, **fields))
        sent = json.loads(home.engines["laptop"].seen[0].body)
    assert sum(e != "[DONE]" and bool(e.get("usage")) for e in answer.events) == frames
    assert sent["stream_options"]["include_usage"] is True


async def test_what_a_client_sends_reaches_the_engine_byte_for_byte_but_for_the_model(tmp_path: Path) -> None:
    body = (
        b'{"model":"m","messages":[{"role":"user","content":"\\u00e9 \\/ x","name" : "n"}],'
        b'"temperature":0.10,"top_k":40,"guided_json":{"b":1,"a":[1.0,2e3]},'
        b'"tidegate":{"slo_ttft_ms":500,"session":"s1"},"big":123456789012345678901234567890}'
    )
    async with house(tmp_path) as home:
        assert (await home.ask(body)).status == 200
        sent = home.engines["laptop"].seen[0].body
    for piece in (
        b'"messages":[{"role":"user","content":"\\u00e9 \\/ x","name" : "n"}]',
        b'"temperature":0.10,"top_k":40,"guided_json":{"b":1,"a":[1.0,2e3]}',
        b'"big":123456789012345678901234567890',
        b'"model":"own"',
    ):
        assert piece in sent
    assert b"tidegate" not in sent
    assert b'"stream":false' in sent


async def test_an_endpoint_without_a_name_of_its_own_gets_the_name_the_client_used(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(model="")) as home:
        answer = await home.ask()
        assert json.loads(home.engines["laptop"].seen[0].body)["model"] == "m"
    assert answer.header("x-tidegate-model") == "m"


async def test_an_endpoint_gets_its_own_key_and_never_the_clients(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        for where in ("local", "away"):
            headers = {"authorization": "Bearer sk-client", "x_api_key": "sk-client", "cookie": "sk-client"}
            await home.ask(x_tidegate_residency=where, **headers)
        own, vendor = home.engines["laptop"].seen[0], home.engines["cloud"].seen[0]
    assert b"authorization" not in own.headers
    assert vendor.headers[b"authorization"] == f"Bearer {KEY}".encode()
    assert b"sk-client" not in b" ".join([*own.headers.values(), *vendor.headers.values(), own.body, vendor.body])


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_says_who_gave_it_and_why(tmp_path: Path, stream: bool) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(chat(stream=stream), x_request_id="mine-1")
        decision = home.journal()[-1]
    assert answer.endpoint == "laptop"
    assert answer.header("x-tidegate-model") == "own"
    assert answer.header("x-tidegate-why") == "cheapest_on_time"
    assert answer.header("x-tidegate-attempts") == "1"
    assert 0 <= int(answer.header("x-tidegate-overhead-us")) < 1_000_000
    assert answer.header("x-request-id") == "mine-1"
    assert answer.header("x-tidegate-decision") == getattr(decision.fact, "request_id", None)
    assert (answer.header("x-tidegate-cost-usd") == "0.00000000") is not stream


async def test_a_whole_answer_says_what_it_cost(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote()) as home:
        answer = await home.ask()
    usage = answer.json["usage"]
    usd = (usage["prompt_tokens"] + 4 * usage["completion_tokens"]) / 1e6
    assert float(answer.header("x-tidegate-cost-usd")) == pytest.approx(usd, abs=1e-8)


@pytest.mark.parametrize("given", [None, "spaces are none", "x" * 129])
async def test_a_request_without_a_usable_id_is_given_one(tmp_path: Path, given: str | None) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(**({} if given is None else {"x_request_id": given}))
    assert answer.header("x-request-id") == answer.header("x-tidegate-decision") != ""


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_models_are_listed_with_those_clients_may_ask_for(tmp_path: Path, prefix: str) -> None:
    place = local(serves=["m", "org/other"])
    async with house(tmp_path, laptop=place) as home:
        listed = await home.get(f"{prefix}/models")
        plain = await home.get(f"{prefix}/models/org/other")
        quoted = await home.get(f"{prefix}/models/org%2Fother")
        missing = await home.get(f"{prefix}/models/none")
        head = await home.get(f"{prefix}/models", method="HEAD")
    assert [m["id"] for m in listed.json["data"]] == ["m", "org/other"]
    assert plain.json == quoted.json
    assert plain.json["id"] == "org/other"
    assert (missing.status, missing.error["code"], missing.error["param"]) == (404, "model_not_found", "model")
    assert head.status == 200
    assert listed.header("x-request-id") != ""


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
async def test_the_client_address_tells_that_it_is_alive(tmp_path: Path, path: str) -> None:
    async with house(tmp_path) as home:
        answer = await home.get(path)
        head = await home.get(path, method="HEAD")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert head.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("HEAD", CHAT, 405),
        ("PUT", COMPLETIONS, 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/readyz", 405),
        ("GET", "/", 404),
        ("POST", "/v1/v1/chat/completions", 404),
        ("POST", "/v1/audio/speech", 404),
        ("GET", "/v1/health", 404),
    ],
)
async def test_what_is_not_served_is_refused_in_the_words_of_the_protocol(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    async with house(tmp_path) as home:
        answer = await home.get(path, method=method)
    assert answer.status == status
    assert answer.header("x-request-id") != ""
    if status == 405:
        assert answer.header("allow") == ("POST" if path in (CHAT, COMPLETIONS) else "GET, HEAD")
    if method != "HEAD":
        assert answer.error["code"] == ("not_found" if status == 404 else "method_not_allowed")


async def test_two_choices_are_two_choices(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.ask(chat(n=2))
        started = [line.fact for line in home.journal() if isinstance(line.fact, Started)]
    assert [fact.completions for fact in started] == [2]


@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
async def test_whether_we_see_an_answer_begin_is_told_and_not_what_its_client_asked_for(
    tmp_path: Path, engine: str
) -> None:
    async with house(tmp_path, laptop=local(engine=engine)) as home:
        await home.ask(chat())
        facts = [line.fact for line in home.journal()]
    streamed = engine == "llamacpp"  # which we ask for a stream whatever its client has asked for
    assert [fact.stream for fact in facts if isinstance(fact, Request | Started)] == [False, streamed]


async def test_an_empty_answer_is_an_answer(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(tokens=0)), cloud=remote()) as home:
        streamed, given = await home.ask(chat(stream=True)), await home.ask()
    assert (streamed.text, streamed.events[-1], streamed.endpoint) == ("", "[DONE]", "laptop")
    assert (given.text, given.endpoint) == ("", "laptop")


async def test_an_old_client_gets_its_stream_until_the_connection_closes(tmp_path: Path) -> None:
    body = json.dumps(chat(stream=True)).encode()
    raw = b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    async with house(tmp_path) as home:
        answer = await home.send(raw)
    assert answer.text == WORDS
    assert answer.events[-1] == "[DONE]"


async def test_a_request_that_the_vendor_finds_at_fault_costs_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote(Script(status=400))) as home:
        await home.ask()
        assert [line["cost_usd"] for line in home.log()] == [0.0]


async def test_an_answer_whose_tokens_nobody_counted_teaches_nothing_of_their_number(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(usage=False))) as home:
        await home.ask()
        await home.ask(chat(stream=True))
        ended = [line.fact for line in home.journal() if isinstance(line.fact, Ended)]
    # In a stream each token is a chunk, more or less; an answer given whole is one, whatever its length.
    assert [fact.output_tokens for fact in ended] == [None, 4]


ONE_OF_TWO = (
    b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    b'data: {"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_that_ends_after_one_of_two_choices_was_cut(tmp_path: Path, stream: bool) -> None:
    probe = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(ONE_OF_TWO)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            writer.write(probe if request.startswith(b"GET") else head + ONE_OF_TWO)

    async with upstream(script) as up:
        place = local(engine="llamacpp", url=f"http://127.0.0.1:{up.port}")
        async with house(tmp_path, laptop=place, cloud=remote()) as home:
            answer = await home.ask(chat(n=2, stream=stream))
            single = await home.ask(chat(stream=stream))
    if stream:
        assert set(answer.events[-1]) == {"error"}
        assert single.events[-1] == "[DONE]"
    else:
        assert answer.endpoint == "cloud"
        assert (single.text, single.endpoint) == ("a", "laptop")
