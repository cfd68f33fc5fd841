"""An endpoint that is down says why, where and what to do about it; a fault of ours is none of its."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket

import pytest

from tests.gateway.harness import CHAT, KEY, House, Place, chat, house, local, remote, whole, wire
from tests.http.harness import HOST, client, descriptors_used_up, eventually, pool, read_response, serving
from tidegate.core.rows import Rows
from tidegate.engines.base import ProbeAnswer, Signals
from tidegate.engines.fake import Fault, Script
from tidegate.gateway.outage import DETAIL_CHARS_MAX, lost, unfit
from tidegate.gateway.probe import Prober
from tidegate.gateway.upstream import Upstream
from tidegate.http.client import Cause, Origin, TransportError
from tidegate.http.server import Exchange

REFUSED = b'{"error":{"message":"Incorrect API key provided: sk-upst***3f9a"}}'


def prober(home: House, name: str) -> Prober:
    return Prober(home.gateway.dispatch, home.gateway.dispatch.upstreams[name], 3600.0)


async def because(home: House, name: str) -> str | None:
    state = (await home.get("/api/state", admin=True)).json["endpoints"][name]
    return None if state["down_because"] is None else str(state["down_because"])


def told(home: House, event: str) -> list[dict[str, object]]:
    return [line for line in home.log("event") if line["event"] == event]


@asynccontextmanager
async def trouble(kind: str) -> AsyncIterator[Place]:
    """An endpoint that is down from the beginning."""
    if kind == "name":
        yield remote(url="https://nobody.invalid", engine="openai")
        return
    if kind == "connection":
        with socket() as taken:
            taken.bind((HOST, 0))  # bound and not listening
            yield remote(url=f"http://{HOST}:{taken.getsockname()[1]}", engine="openai")
        return

    def answer(exchange: Exchange) -> None:
        exchange.respond(401 if kind == "key" else 503, [], REFUSED)

    async with serving(answer) as server:
        yield remote(url=f"{'https' if kind == 'tls' else 'http'}://{HOST}:{server.port}", engine="openai")


@pytest.mark.parametrize(
    ("kind", "cause", "remedy"),
    [
        ("name", "its name does not resolve", "`url`"),
        ("connection", "no connection is to be had", "check that it runs"),
        ("tls", "the TLS handshake failed", "`tls_ca_file`"),
        ("key", "it answered 401: our key is refused", "`api_key_env`"),
        ("status", "it answered 503", "its own log"),
    ],
)
async def test_an_endpoint_that_was_never_up_says_why_where_and_what_to_do(
    tmp_path: Path, kind: str, cause: str, remedy: str
) -> None:
    async with trouble(kind) as place, house(tmp_path, laptop=local(), cloud=place) as home:
        assert str(await because(home, "cloud")).startswith(cause)
        assert await because(home, "laptop") is None
        for _ in range(3):
            await prober(home, "cloud").once()
        (line,) = told(home, "endpoint down")
    assert (line["level"], line["endpoint"]) == ("warning", "cloud")
    assert str(line["cause"]).startswith(cause)
    assert remedy in str(line["remedy"])
    assert str(line["address"]) == place.url
    assert KEY not in str(line)


@pytest.mark.parametrize("engine", ["vllm", "llamacpp"])
async def test_an_engine_that_is_well_and_refuses_our_key_is_down_for_that(tmp_path: Path, engine: str) -> None:
    """Whoever asks is told that it is well."""

    def answer(exchange: Exchange) -> None:
        said = b'{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}'
        exchange.respond(200 if exchange.path == "/health" else 401, [], said)

    async with serving(answer) as server:
        place = remote(url=f"http://{HOST}:{server.port}", engine=engine)
        async with house(tmp_path, laptop=local(), cloud=place) as home:
            assert await because(home, "cloud") == "it answered 401: our key is refused"
            (line,) = told(home, "endpoint down")
    assert "`api_key_env`" in str(line["remedy"])


async def test_an_ollama_without_its_model_is_down_until_it_has_it(tmp_path: Path) -> None:
    kept = ["other:latest"]

    def answer(exchange: Exchange) -> None:
        pages: dict[str, object] = {
            "/api/version": {"version": "0.13.0"},
            "/api/ps": {"models": []},
            "/api/tags": {"models": [{"name": name} for name in kept]},
        }
        exchange.respond(200, [], json.dumps(pages[exchange.path]).encode())

    async with serving(answer) as server:
        place = local(url=f"http://{HOST}:{server.port}", engine="ollama", model="gemma3", warm_up=False)
        async with house(tmp_path, laptop=place, cloud=remote()) as home:
            assert await because(home, "laptop") == "it has no model `gemma3:latest`"
            assert (await home.ask()).header("x-tidegate-attempts") == "1"
            kept.append("gemma3:latest")
            await prober(home, "laptop").once()
            assert await because(home, "laptop") is None
            (line,) = told(home, "endpoint down")
    assert "`model`" in str(line["remedy"])


async def test_a_vllm_that_lists_other_models_is_told_of_once(tmp_path: Path) -> None:
    listed = ["other"]

    def answer(exchange: Exchange) -> None:
        exchange.respond(200, [], json.dumps({"data": [{"id": name} for name in listed]}).encode())

    async with serving(answer) as server:
        place = local(url=f"http://{HOST}:{server.port}", engine="vllm", model="own")
        async with house(tmp_path, laptop=place, cloud=remote()) as home:
            for names in (["other"], ["own"], ["own", "other"], ["other"], ["other"]):
                listed[:] = names
                await prober(home, "laptop").once()
            assert await because(home, "laptop") is None
            lines = told(home, "model not listed")
    assert [(line["endpoint"], line["model"]) for line in lines] == [("laptop", "own")] * 2


async def test_each_time_that_it_goes_and_comes_back_the_log_has_one_line(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        engine, looks = home.engines["laptop"], prober(home, "laptop")
        for engine.up in (True, False, False, False, True, True, False, False, True):
            await looks.once()
        assert await because(home, "laptop") is None
        lines = [line for line in home.log("event") if str(line["event"]).startswith("endpoint ")]
        assert [line["event"] for line in lines] == ["endpoint down", "endpoint up"] * 2
        assert {(line["endpoint"], line["address"]) for line in lines} == {("laptop", engine.url)}


async def test_a_reload_that_makes_an_endpoint_anew_has_it_told_anew(tmp_path: Path) -> None:
    async with trouble("key") as place, house(tmp_path, laptop=local(), cloud=place) as home:
        file = tmp_path / "tidegate.toml"
        for other in (file.read_text(), file.read_text().replace("vendor/big", "vendor/small")):
            file.write_text(other)
            assert (await home.change("POST", "/api/config")).status == 200
        assert [line["endpoint"] for line in told(home, "endpoint down")] == ["cloud", "cloud"]


async def test_one_that_a_reload_takes_out_is_down_no_more(tmp_path: Path) -> None:
    async with trouble("key") as place, house(tmp_path, laptop=local(), cloud=place) as home:
        assert await because(home, "cloud") is not None
        file = tmp_path / "tidegate.toml"
        file.write_text(file.read_text().partition("[endpoint.cloud]")[0])
        assert (await home.change("POST", "/api/config")).status == 200
        assert "cloud" not in home.gateway.dispatch.upstreams
        assert home.gateway.dispatch.outages.because("cloud") is None


@pytest.mark.parametrize("cause", Cause)
def test_whatever_a_probe_meets_has_short_words_and_a_remedy(cause: Cause) -> None:
    found = lost(TransportError(cause, "x" * 10_000))
    assert found.because
    assert found.remedy
    assert len(found.because) < DETAIL_CHARS_MAX + 60


def test_an_engine_that_cannot_serve_yet_is_told_apart_from_one_that_fails() -> None:
    busy = ProbeAnswer(status=503, body=b"")
    assert "loading" in unfit([busy], Signals(up=False, resident=False, loading=True)).because
    assert "sleep" in unfit([ProbeAnswer(status=200, body=b"")], Signals(up=False, resident=False)).because
    assert unfit([busy], Signals(up=False)).because == "it answered 503"
    assert "`engine`" in unfit([ProbeAnswer(status=404, body=b"")], Signals(up=False)).remedy


def test_an_address_is_told_with_its_scheme_and_a_port_that_is_not_the_usual_one() -> None:
    assert Origin("::1", 8080).url == "http://[::1]:8080"
    assert Origin("api.example.com", 443, ssl.create_default_context()).url == "https://api.example.com"


# --- our own fault ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def none_left(home: House, engine: str) -> AsyncIterator[None]:
    """The connection that is there is taken, so that the next request needs another one, which cannot be had."""
    async with home.asking():
        await eventually(lambda: home.engines[engine].in_flight == 1)
        with descriptors_used_up():
            yield


async def test_where_we_may_open_nothing_more_the_client_is_told_so_and_nothing_is_held_against_the_endpoint(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, laptop=local(Script(fault=Fault.SILENT))) as home, client(home.port) as (reader, writer):
        writer.write(wire("GET", "/livez"))
        assert (await read_response(reader)).status == 200
        async with none_left(home, "laptop"):
            for _ in range(5):
                writer.write(wire("POST", CHAT, json.dumps(chat()).encode()))
                answer = whole(await read_response(reader))
                assert (answer.status, answer.error["code"]) == (503, "no_descriptor")
                for limit in ("`ulimit -n`", "`fs.file-max`"):
                    assert limit in answer.error["message"]
            state = home.gateway.router.endpoint("laptop").state
            assert (state.breaker.strikes, state.failures.failed, state.limit.refused) == (0.0, 0.0, 0)
        (line,) = told(home, "no file descriptor left")
        assert line["level"] == "error"
        assert lost(TransportError(Cause.NO_DESCRIPTOR, "")).remedy in str(line["remedy"])


async def test_what_we_could_not_send_is_billed_nowhere(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote(Script(fault=Fault.SILENT))) as home, client(home.port) as (reader, writer):
        writer.write(wire("GET", "/livez"))
        assert (await read_response(reader)).status == 200
        async with none_left(home, "cloud"):
            writer.write(wire("POST", CHAT, json.dumps(chat()).encode()))
            assert whole(await read_response(reader)).status == 503
        await home.quiet()
        rows = Rows()
        found = [row for line in home.journal() for row in rows.feed(line)] + rows.rest()
        (refused,) = [line["decision_id"] for line in home.log() if line["code"] == "no_descriptor"]
        (usd,) = [row.usd for row in found if row.id == refused]
        assert usd == 0.0


async def test_a_probe_that_we_cannot_send_takes_no_engine_down(tmp_path: Path) -> None:
    async with house(tmp_path) as home, pool(home.engines["laptop"].port, idle_max=0) as to:
        dispatch, known = home.gateway.dispatch, home.gateway.dispatch.upstreams["laptop"]
        upstream = Upstream(known.endpoint, known.dialect, to, known.model, known.headers)
        looks = Prober(dispatch, upstream, 3600.0)
        await looks.once()
        with descriptors_used_up():
            for _ in range(3):
                await looks.once()
        assert home.gateway.router.endpoint("laptop").state.up
        assert len(told(home, "no file descriptor left")) == 1
