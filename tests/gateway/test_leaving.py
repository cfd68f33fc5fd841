"""A client that goes away is worked for no longer: by the engine, by us, or in the hold queue."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import CHAT, House, chat, house, local, remote, wire
from tests.http.harness import client, eventually
from tidegate.core.model import Ended, Ending, Released
from tidegate.engines.fake import Fault, Script

ENDLESS = Script(tokens=1_000_000, token_s=0.005)


async def gone(home: House, engine: str = "laptop") -> dict[str, Any]:
    """The log line of the one request, once nothing of it is left."""
    await home.quiet()
    await eventually(lambda: home.engines[engine].left == 1)
    assert home.engines[engine].in_flight == 0
    await eventually(lambda: len(home.log()) == 1)
    return home.log()[0]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("engine", ["fake", "llamacpp"])
async def test_a_client_that_leaves_before_content_frees_the_engine_at_once(
    tmp_path: Path, stream: bool, engine: str
) -> None:
    async with house(tmp_path, laptop=local(Script(fault=Fault.SILENT), engine=engine), cloud=remote()) as home:
        async with home.asking(chat(stream=stream)):
            await eventually(lambda: home.engines["laptop"].in_flight == 1)
        line = await gone(home)
        assert home.engines["cloud"].seen == []
    assert (line["status"], line["outcome"]) == (499, "client_left")


async def test_a_client_that_leaves_in_mid_stream_frees_the_engine_at_once(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(ENDLESS)) as home:
        async with home.asking(chat(stream=True)) as reader:
            await reader.readuntil(b"w3 ")
        line = await gone(home)
        (ended,) = [x.fact for x in home.journal() if isinstance(x.fact, Ended)]
    assert (line["outcome"], line["endpoint"]) == ("client_left", "laptop")
    assert ended.ending is Ending.CANCELLED
    assert (ended.output_tokens or 0) >= 3


async def test_a_client_that_leaves_while_an_answer_is_gathered_frees_the_engine_at_once(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(ENDLESS, engine="llamacpp")) as home:
        async with home.asking(chat()):
            await eventually(lambda: home.engines["laptop"].made > 3)
        assert (await gone(home))["outcome"] == "client_left"


async def test_a_vendor_bills_what_a_client_that_left_has_caused(tmp_path: Path) -> None:
    async with house(tmp_path, cloud=remote(ENDLESS)) as home:
        async with home.asking(chat(stream=True)) as reader:
            await reader.readuntil(b"w9 ")
        line = await gone(home, "cloud")
    assert line["cost_usd"] >= 9 * 4e-6


async def test_a_client_that_leaves_while_it_is_held_is_never_sent(tmp_path: Path) -> None:
    place = local(Script(fault=Fault.SILENT), concurrency=1)
    async with house(tmp_path, laptop=place) as home:
        async with home.asking():
            await eventually(lambda: home.engines["laptop"].in_flight == 1)
            async with home.asking():
                await eventually(lambda: home.gateway.router.held == 1)
            await eventually(lambda: home.gateway.router.held == 0)
        await home.quiet()
        assert len(home.engines["laptop"].seen) == 1
        assert sum(isinstance(x.fact, Released) for x in home.journal()) == 1
        await eventually(lambda: [x["outcome"] for x in home.log()] == ["client_left", "client_left"])


async def test_both_attempts_end_when_the_client_leaves_a_hedged_request(tmp_path: Path) -> None:
    silent = Script(fault=Fault.SILENT)
    async with house(tmp_path, laptop=local(silent), cloud=remote(silent)) as home:
        async with home.asking(x_tidegate_slo_ttft_ms="100"):
            await eventually(lambda: home.engines["cloud"].in_flight == 1)
        await gone(home)
        await eventually(lambda: home.engines["cloud"].left == 1)


async def test_a_client_that_closes_after_its_answer_has_not_left(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        for stream in (True, False):
            await home.ask(chat(stream=stream))
        assert [x["outcome"] for x in home.log()] == ["ok", "ok"]
        assert home.engines["laptop"].left == 0


async def test_a_client_that_leaves_takes_the_requests_behind_it_along(tmp_path: Path) -> None:
    request = wire("POST", CHAT, json.dumps(chat()).encode())
    async with house(tmp_path, laptop=local(Script(fault=Fault.SILENT))) as home:
        async with client(home.port) as (_, writer):
            writer.write(request * 3)
            await eventually(lambda: home.engines["laptop"].in_flight == 1)
        await gone(home)
        assert len(home.engines["laptop"].seen) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_only_has_no_more_to_ask_is_answered(tmp_path: Path, stream: bool) -> None:
    # What `nc -N` and `socat` do.
    async with house(tmp_path, laptop=local(Script(first_s=0.1))) as home, client(home.port) as (reader, writer):
        writer.write(wire("POST", CHAT, json.dumps(chat(stream=stream)).encode()))
        writer.write_eof()
        answer = await reader.read()
        assert home.engines["laptop"].left == 0
    assert b"\r\n\r\nHTTP/1.1 200 OK\r\n" in answer
    assert (b"[DONE]" if stream else b"w1 w2 w3 w4 ") in answer
