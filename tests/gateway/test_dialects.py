"""Clients of every dialect, through the whole gateway, to engines of every dialect."""

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import MessageTokensCount
from ollama import ListResponse, ShowResponse

from tests.gateway.dialects import SPEECHES, Speech
from tests.gateway.harness import chat, house, local, remote
from tidegate.engines.fake import Script

WORDS = "w1 w2 w3 w4 "
# Messages and Responses are chats alone: completions have no place there, which a refusal tells.
MET = [(engine, name) for engine in ("anthropic", "openai-responses") for name in SPEECHES if name != "completions"]
MET += [(engine, name) for engine in ("openai", "llamacpp") for name in SPEECHES]

speeches = pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)
streams = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@pytest.mark.parametrize(("engine", "name"), MET)
@streams
async def test_an_answer_comes_in_the_clients_own_dialect(tmp_path: Path, name: str, stream: bool, engine: str) -> None:
    speech = SPEECHES[name]
    async with house(tmp_path, laptop=local(engine=engine)) as home:
        answer = await home.ask(speech.body(stream=stream), path=speech.path, x_request_id="mine-1")
        (line,) = home.log()
    said = speech.said(answer, stream=stream)
    assert (said.text, said.model, said.output_tokens, said.complete) == (WORDS, "own", 4, True)
    assert said.prompt_tokens > 0
    assert (line["prompt_tokens"], line["output_tokens"]) == (said.prompt_tokens, 4)
    assert (line["request_id"], answer.header("x-request-id")) == ("mine-1", "mine-1")
    told = {name: answer.header(f"x-tidegate-{name}") for name in ("endpoint", "model", "likeness", "attempts")}
    assert told == {"endpoint": "laptop", "model": "own", "likeness": "identical", "attempts": "1"}
    assert answer.header("x-tidegate-decision") == line["decision_id"]
    assert int(answer.header("x-tidegate-overhead-us")) >= 0
    assert (answer.header("x-tidegate-cost-usd") == "") is stream


@streams
@speeches
async def test_what_an_answer_costs_is_the_same_in_every_dialect(tmp_path: Path, speech: Speech, stream: bool) -> None:
    async with house(tmp_path, cloud=remote()) as home:
        answer = await home.ask(speech.body(stream=stream), path=speech.path)
        (line,) = home.log()
    said = speech.said(answer, stream=stream)
    assert line["cost_usd"] == pytest.approx((said.prompt_tokens + 4 * said.output_tokens) / 1e6)
    if not stream:
        assert float(answer.header("x-tidegate-cost-usd")) == pytest.approx(line["cost_usd"], abs=1e-8)


async def test_ollamas_clients_are_streamed_to_unless_they_say_otherwise(tmp_path: Path) -> None:
    speech = SPEECHES["ollama_chat"]
    async with house(tmp_path) as home:
        answer = await home.ask(speech.ask("Say hi"), path=speech.path)
    assert speech.said(answer, stream=True).text == WORDS
    assert answer.body.count(b"\n") == 5


@speeches
async def test_an_address_is_served_with_v1_and_without(tmp_path: Path, speech: Speech) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(speech.body(), path=speech.path.removeprefix("/v1"))
    assert speech.said(answer, stream=False).text == WORDS


@pytest.mark.parametrize(("engine", "name"), MET)
async def test_half_a_surrogate_pair_that_a_client_sends_back_reaches_no_engine(
    tmp_path: Path, name: str, engine: str
) -> None:
    speech = SPEECHES[name]
    async with house(tmp_path, laptop=local(engine=engine)) as home:
        answer = await home.ask(speech.body("what is a\ud83d?"), path=speech.path)
        (seen,) = home.engines["laptop"].seen
    assert speech.said(answer, stream=False).text == WORDS
    assert "what is a\ufffd?" in json.dumps(json.loads(seen.body), ensure_ascii=False)


# --- refusals -----------------------------------------------------------------------------------------------------


async def refused(tmp_path: Path, speech: Speech, body: Any, status: int, said: str, **headers: str) -> None:
    """Refused by both ends that a house has, in the dialect's own words, and without a call to any engine."""
    async with house(tmp_path) as home:
        answer = await home.ask(body, path=speech.path, **headers)
        assert [engine.seen for engine in home.engines.values()] == [[], []]
    assert answer.status == status
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")
    assert said in speech.error(answer)


@streams
@speeches
async def test_an_unknown_model_is_not_found(tmp_path: Path, speech: Speech, stream: bool) -> None:
    await refused(tmp_path, speech, speech.body(stream=stream, model="none"), 404, "`none` is not served here")


@pytest.mark.parametrize(
    ("body", "said"), [(b'{"model": ', "JSON"), (b"[]", "object"), (b"{}", "model"), (b'{"model": 7}', "model")]
)
@speeches
async def test_a_bad_body_is_told_its_place(tmp_path: Path, speech: Speech, body: bytes, said: str) -> None:
    await refused(tmp_path, speech, body, 400, said)


@streams
@speeches
async def test_a_context_beyond_every_window_is_told_the_largest(tmp_path: Path, speech: Speech, stream: bool) -> None:
    long = speech.body("word " * 40_000, stream=stream)
    await refused(tmp_path, speech, long, 400, "maximum context length is 32768 where it may be served: shorten")


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x_tidegate_class": "none"}, "there is no such class"),
        ({"x_tidegate_likeness": "similar"}, "identical, same_family, substitute"),
        ({"x_tidegate_residency": "mars"}, "No endpoint can serve this"),
        ({"x_tidegate_typo": "1"}, "is no header of ours"),
        ({"x_tidegate_max_cost_usd": "free"}, "a number of US dollars from 0"),
    ],
)
@speeches
async def test_settings_that_cannot_be_kept_are_refused(
    tmp_path: Path, speech: Speech, headers: dict[str, str], said: str
) -> None:
    await refused(tmp_path, speech, speech.body(), 400, said, **headers)


@speeches
async def test_what_must_stay_local_is_refused_rather_than_sent_away(tmp_path: Path, speech: Speech) -> None:
    async with house(tmp_path, cloud=remote()) as home:
        in_header = await home.ask(speech.body(), path=speech.path, x_tidegate_residency="local")
        in_body = await home.ask(speech.body(tidegate={"residency": "local"}), path=speech.path)
        assert home.engines["cloud"].seen == []
    assert in_header.status == in_body.status == 400
    assert "x-tidegate-residency" in speech.error(in_header)
    assert speech.error(in_body) == speech.error(in_header)


@speeches
async def test_a_wrong_method_is_told_the_right_one(tmp_path: Path, speech: Speech) -> None:
    async with house(tmp_path) as home:
        answer = await home.get(speech.path)
    assert (answer.status, speech.error(answer)) == (405, f"{speech.path} takes POST, not GET.")


@speeches
async def test_a_compressed_body_is_refused(tmp_path: Path, speech: Speech) -> None:
    await refused(tmp_path, speech, speech.body(), 415, "compressed", content_encoding="gzip")


@pytest.mark.parametrize(("status", "told"), [(429, 429), (503, 503), (500, 502), (401, 502), (422, 422)])
@streams
@speeches
async def test_what_an_engine_refuses_is_told_with_our_status(
    tmp_path: Path, speech: Speech, stream: bool, status: int, told: int
) -> None:
    script = Script(status=status, headers=((b"retry-after", b"7"),))
    async with house(tmp_path, laptop=local(script, engine="openai")) as home:
        answer = await home.ask(speech.body(stream=stream), path=speech.path)
    assert answer.status == told
    assert speech.error(answer)
    assert answer.header("retry-after") == ("" if told == 422 else "7")
    assert answer.header("x-should-retry") == ("false" if told == 502 else "")


MESSAGES_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
    502: "api_error",
    503: "overloaded_error",
}


@pytest.mark.parametrize("status", MESSAGES_TYPES)
async def test_a_messages_client_is_told_the_type_that_belongs_to_the_status(tmp_path: Path, status: int) -> None:
    speech = SPEECHES["messages"]
    script = Script(status=status if status in (429, 503) else 500)
    body: Any = {400: b"[]", 404: speech.body(model="none")}.get(status, speech.body())
    async with house(tmp_path, laptop=local(script, engine="openai")) as home:
        answer = await home.ask(body, path=speech.path, method="PUT" if status == 405 else "POST")
    assert (answer.status, answer.json["error"]["type"]) == (status, MESSAGES_TYPES[status])


# --- our own settings ---------------------------------------------------------------------------------------------


@streams
@speeches
async def test_a_dry_run_decides_and_sends_nothing(tmp_path: Path, speech: Speech, stream: bool) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(speech.body(stream=stream), path=speech.path, x_tidegate_dry_run="true")
        assert [engine.seen for engine in home.engines.values()] == [[], []]
        assert home.log() == []
    assert answer.status == 200
    assert answer.json["decision"]["plan"][0]["endpoint"] == "laptop"
    assert {candidate["endpoint"] for candidate in answer.json["candidates"]} == {"laptop", "cloud"}


@speeches
async def test_settings_in_headers_and_in_the_body_are_kept_and_never_passed_on(tmp_path: Path, speech: Speech) -> None:
    group: dict[str, dict[str, Any]] = {"m": {"endpoints": {"laptop": "identical", "cloud": "substitute"}}}
    classes = {"batch": {"likeness": "substitute", "residency": ["away"], "slo": {"e2e_ms": 60_000}}}
    async with house(tmp_path, models=group, classes=classes, laptop=local(), cloud=remote()) as home:
        by_class = await home.ask(speech.body(), path=speech.path, x_tidegate_class="batch")
        in_body = await home.ask(speech.body(tidegate={"class": "batch"}), path=speech.path)
        alone = await home.ask(
            speech.body(), path=speech.path, x_tidegate_residency="away", x_tidegate_likeness="substitute"
        )
        strict = await home.ask(speech.body(), path=speech.path, x_tidegate_residency="away")
        assert [b"tidegate" in seen.body for seen in home.engines["cloud"].seen] == [False] * 3
        lines = home.log()
    assert [answer.endpoint for answer in (by_class, in_body, alone)] == ["cloud"] * 3
    assert by_class.header("x-tidegate-likeness") == "substitute"
    assert strict.status == 400
    assert "x-tidegate-likeness" in speech.error(strict)
    assert [line["klass"].partition("/")[0] for line in lines] == ["batch", "batch", "interactive", "interactive"]


@speeches
async def test_a_request_without_an_id_is_given_one(tmp_path: Path, speech: Speech) -> None:
    async with house(tmp_path) as home:
        good = await home.ask(speech.body(), path=speech.path)
        bad = await home.ask(b"{", path=speech.path)
        named = await home.ask(b"{", path=speech.path, x_request_id="mine-2")
        unfit = await home.ask(speech.body(), path=speech.path, x_request_id="a b")
    ids = [answer.header("x-request-id") for answer in (good, bad, unfit)]
    assert len(set(ids)) == 3
    assert good.header("x-request-id") == good.header("x-tidegate-decision")
    assert named.header("x-request-id") == "mine-2"
    assert "a b" not in ids


# --- what is no inference -----------------------------------------------------------------------------------------


async def test_tokens_are_counted_as_they_would_be_for_a_request(tmp_path: Path) -> None:
    speech = SPEECHES["messages"]
    body = speech.body("word " * 400)
    del body["stream"], body["max_tokens"]
    async with house(tmp_path) as home:
        counted = await home.ask(body, path="/v1/messages/count_tokens")
        short = await home.ask(body, path="/messages/count_tokens", x_request_id="mine-3")
        asked = await home.ask(speech.body("word " * 400), path=speech.path, x_tidegate_dry_run="true")
        assert [engine.seen for engine in home.engines.values()] == [[], []]
    tokens = MessageTokensCount.model_validate_json(counted.body).input_tokens
    assert tokens == short.json["input_tokens"] == asked.json["request"]["prompt_tokens"]
    assert 300 < tokens < 700
    assert short.header("x-request-id") == "mine-3"


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"model": "none"}, 404, "not served here"),
        ({"messages": 7}, 400, "messages"),
        ({"container": "c"}, 400, "container"),
    ],
)
async def test_what_cannot_be_counted_is_refused_in_the_clients_dialect(
    tmp_path: Path, fields: dict[str, Any], status: int, said: str
) -> None:
    speech = SPEECHES["messages"]
    async with house(tmp_path) as home:
        answer = await home.ask(speech.ask("Say hi") | fields, path="/v1/messages/count_tokens")
        wrong = await home.get("/v1/messages/count_tokens")
    assert answer.status == status
    assert said in speech.error(answer)
    assert (wrong.status, speech.error(wrong)) == (405, "/v1/messages/count_tokens takes POST, not GET.")


async def test_ollamas_clients_find_the_models_that_are_served(tmp_path: Path) -> None:
    places: dict[str, Any] = {"laptop": local(serves=["m", "org/other"]), "cloud": remote()}
    async with house(tmp_path, **places) as home:
        tags = await home.get("/api/tags")
        shown = await home.ask({"model": "m"}, path="/api/show")
        other = await home.ask({"name": "org/other"}, path="/api/show")
        version = await home.get("/api/version")
    listed = ListResponse.model_validate_json(tags.body).models
    assert [model.model for model in listed] == ["m:latest", "org/other:latest"]
    found = [ShowResponse.model_validate_json(answer.body) for answer in (shown, other)]
    windows = [(show.modelinfo or {})["tidegate.context_length"] for show in found]
    assert windows == [32768, 8192]
    assert all({"completion", "tools"} <= set(show.capabilities or ()) for show in found)
    assert set(version.json) == {"version"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages/count_tokens", "/api/show"])
async def test_a_compressed_body_is_refused_wherever_one_is_read_and_one_that_is_not_is_read(
    tmp_path: Path, path: str
) -> None:
    async with house(tmp_path) as home:
        compressed = await home.ask(b"\x1f\x8b", path=path, content_encoding="GZip")
        plain = [await home.ask(chat(), path=path, content_encoding=name) for name in ("", "Identity")]
    assert compressed.status == 415
    assert b"without content-encoding" in compressed.body
    assert [answer.status for answer in plain] == [200, 200]


@pytest.mark.parametrize("name", ["ollama_chat", "ollama_generate"])
async def test_ollamas_clients_may_put_the_tag_to_a_name_that_stands_for_none(tmp_path: Path, name: str) -> None:
    speech = SPEECHES[name]
    async with house(tmp_path, laptop=local(serves=["m", "n:latest", "n"])) as home:
        tagged, own = [await home.ask(speech.body(model=f"{m}:latest"), path=speech.path) for m in ("m", "n")]
        shown = await home.ask({"model": "m:latest"}, path="/api/show")
        unknown = await home.ask(speech.body(model="none:latest"), path=speech.path)
        elsewhere = await home.ask(SPEECHES["chat"].body(model="m:latest"), path=SPEECHES["chat"].path)
        lines = home.log()
    assert [speech.said(answer, stream=False).text for answer in (tagged, own)] == [WORDS] * 2
    assert [line["model"] for line in lines][:2] == ["m", "n:latest"]
    assert (shown.status, unknown.status, elsewhere.status) == (200, 404, 404)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/show", b'{"model": "none"}', 404),
        ("POST", "/api/show", b"{}", 400),
        ("POST", "/api/show", b"[", 400),
        ("GET", "/api/show", b"", 405),
        ("POST", "/api/tags", b"{}", 405),
        ("POST", "/api/version", b"{}", 405),
        ("POST", "/api/pull", b'{"model": "m"}', 404),
    ],
)
async def test_what_ollamas_clients_look_up_in_vain_is_told_in_their_dialect(
    tmp_path: Path, method: str, path: str, body: bytes, status: int
) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(body, path=path, method=method)
    assert answer.status == status
    assert SPEECHES["ollama_chat"].error(answer)
