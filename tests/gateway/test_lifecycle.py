"""Starting, stopping, and what is only tried."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.gateway.dialects import SPEECHES, Speech
from tests.gateway.harness import CHAT, KEY, chat, house, local, remote, wire
from tests.http.harness import Response, client, eventually, read_response
from tidegate.core.model import Decision, Ended, Ending, Request
from tidegate.core.rows import Came, Rows
from tidegate.engines.fake import Fault, Script
from tidegate.telemetry import log as log_module


async def test_a_stop_finishes_the_stream_under_way_and_takes_no_more(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(Script(tokens=30, token_s=0.01))) as home:
        asking = asyncio.create_task(home.ask(chat(stream=True)))
        await eventually(lambda: home.engines["laptop"].made > 2)
        gateway = home.gateway
        async with client(home.admin_port) as (reader, writer):
            stopping = asyncio.create_task(gateway.stop())
            await asyncio.sleep(0)
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n")
            ready: Response = await read_response(reader)
        with pytest.raises(ConnectionRefusedError):
            await home.ask()
        answer = await asking
        await stopping
        assert [line["event"] for line in home.log("event")] == ["listening", "stopped"]
        gateway.stop = _nothing  # type: ignore[method-assign] # the house would stop it once more
    assert ready.status == 503
    assert answer.events[-1] == "[DONE]"
    assert answer.text.endswith("w30 ")


async def _nothing() -> None: ...


async def test_a_log_that_is_renamed_goes_on_under_its_name_without_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "LOOK_S", 0.001)
    async with house(tmp_path, laptop=local()) as home:
        await eventually(lambda: '"listening"' in (tmp_path / "log").read_text())
        file = (tmp_path / "log").rename(tmp_path / "log.1")
        await eventually((tmp_path / "log").exists)
        # It is made before it is gone on in: what is asked meanwhile may stand in the other.
        while not home.log():
            assert (await home.ask()).status == 200
        assert '"listening"' in file.read_text()


@pytest.mark.lengthy
@pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)
async def test_a_stop_refuses_what_has_not_begun_in_time_and_says_when_to_come_back(
    tmp_path: Path, speech: Speech
) -> None:
    silent = local(Script(fault=Fault.SILENT), concurrency=1)
    async with house(tmp_path, laptop=silent, gateway={"drain_s": 0.1}) as home:
        engine = home.engines["laptop"]
        asking = [asyncio.create_task(home.ask(speech.body(), path=speech.path)) for _ in range(2)]
        await eventually(lambda: engine.in_flight == 1 and home.gateway.router.held == 1)
        await home.gateway.stop()
        home.gateway.stop = _nothing  # type: ignore[method-assign]
        await eventually(lambda: engine.left == 1)
        for answer in await asyncio.gather(*asking):
            assert answer.status == 503
            assert "going down" in speech.error(answer)
            assert int(answer.header("retry-after")) > 0
        lines = home.log()
        assert [(one["outcome"], one["code"], one["cause"]) for one in lines] == [
            ("failed", "gateway_stopping", "gateway_stopping")
        ] * 2
        (ended,) = [line.fact for line in home.journal() if isinstance(line.fact, Ended)]
        assert (ended.ending, ended.cause) == (Ending.CANCELLED, "gateway_stopping")
        rows = Rows()
        assert {row.outcome for line in home.journal() for row in rows.feed(line)} | {
            row.outcome for row in rows.rest()
        } == {Came.FAILED}


@pytest.mark.lengthy
@pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)
async def test_a_stop_ends_a_stream_that_goes_on_too_long_with_an_error_in_it(tmp_path: Path, speech: Speech) -> None:
    endless = local(Script(tokens=100_000, token_s=0.02))
    async with house(tmp_path, laptop=endless, gateway={"drain_s": 0.1}) as home:
        engine = home.engines["laptop"]
        asking = asyncio.create_task(home.ask(speech.body(stream=True), path=speech.path))
        await eventually(lambda: engine.made > 2)
        await home.gateway.stop()
        home.gateway.stop = _nothing  # type: ignore[method-assign]
        await eventually(lambda: engine.left == 1)
        said = speech.said(await asking, stream=True)
        assert said.text.startswith("w1 w2 ")
        assert "going down" in said.error
        assert not said.complete
        (line,) = home.log()
        assert (line["outcome"], line["cause"]) == ("failed_mid_stream", "gateway_stopping")
        rows = Rows()
        assert [row.outcome for one in home.journal() for row in rows.feed(one)] + [
            row.outcome for row in rows.rest()
        ] == [Came.FAILED_MID_STREAM]


@pytest.mark.lengthy
async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    endless = local(Script(tokens=100_000, token_s=0.001, pad="x" * 65_536))
    async with house(tmp_path, laptop=endless, gateway={"drain_s": 0.1}) as home:
        async with home.asking(chat(stream=True)):
            await eventually(lambda: home.engines["laptop"].made > 100)
            begun_s = home.gateway.clock.now_s()
            await home.gateway.stop()
            home.gateway.stop = _nothing  # type: ignore[method-assign]
        assert home.gateway.clock.now_s() - begun_s < 5.0
        assert home.log()[0]["outcome"] == "failed_mid_stream"


async def test_two_gateways_in_one_process_know_nothing_of_each_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    async with house(one) as first, house(two, cloud=remote()) as second:
        answers = await asyncio.gather(*(home.ask() for home in (first, second) for _ in range(4)))
        assert len(first.engines["laptop"].seen) == len(second.engines["cloud"].seen) == 4
        assert len(first.log()) == len(second.log()) == 4
    assert [a.endpoint for a in answers] == ["laptop"] * 4 + ["cloud"] * 4
    ids = {a.header("x-tidegate-decision") for a in answers}
    assert len(ids) == 8


async def test_a_gateway_starts_again_where_its_journal_lies(tmp_path: Path) -> None:
    for _ in range(2):
        async with house(tmp_path) as home:
            assert (await home.ask()).status == 200
    assert len(list((tmp_path / "journal").iterdir())) == 2


@pytest.mark.lengthy
@pytest.mark.parametrize(
    ("taken", "said"),
    [("listen", "address already in use"), ("admin", "address already in use"), ("ledger", "open in another process")],
)
async def test_a_second_gateway_that_cannot_start_leaves_nothing_in_the_journal_of_the_first(
    tmp_path: Path, taken: str, said: str
) -> None:
    # Without what costs money there is no ledger.
    async with house(tmp_path, cloud=remote() if taken == "ledger" else local()) as home:
        ports = {"listen": home.port, "admin": home.admin_port}
        edited = (tmp_path / "tidegate.toml").read_text()
        for name in ports.keys() & {taken}:
            edited = edited.replace(f'{name} = "127.0.0.1:0"', f'{name} = "127.0.0.1:{ports[name]}"')
        (tmp_path / "edited.toml").write_text(edited)
        command = (sys.executable, "-m", "tidegate.cli.main", "serve", "--config", str(tmp_path / "edited.toml"))
        second = await asyncio.create_subprocess_exec(*command, stderr=PIPE, env=os.environ | {"VENDOR_KEY": KEY})
        try:
            async with asyncio.timeout(30.0):
                _, stderr = await second.communicate()
        finally:
            if second.returncode is None:
                second.kill()
                await second.wait()
        assert second.returncode == 1
        assert said in stderr.decode()
        assert len(list((tmp_path / "journal").iterdir())) == 1


@pytest.mark.parametrize("how", ["header", "body"])
async def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path, how: str) -> None:
    async with house(tmp_path) as home:
        body = chat(stream=True, tidegate={"dry_run": True} if how == "body" else {})
        answer = await home.ask(body, **({"x_tidegate_dry_run": "true"} if how == "header" else {}))
        assert not any(engine.seen for engine in home.engines.values())
        assert not any(isinstance(line.fact, Request | Decision) for line in home.journal())
        assert home.log() == []
        real = await home.ask()
    found = answer.json
    assert answer.status == 200
    assert [step["endpoint"] for step in found["decision"]["plan"]] == ["laptop", "cloud"]
    assert {c["endpoint"] for c in found["candidates"]} == {"laptop", "cloud"}
    assert {one["endpoint"]: one["over"] for one in found["densities"]} == {"laptop": "laptop", "cloud": "laptop"}
    assert real.endpoint == "laptop"


async def test_a_dry_run_tells_a_refusal_too(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        answer = await home.ask(chat() | {"model": "none"}, x_tidegate_dry_run="1")
    assert (answer.status, answer.json["decision"]["why"]) == (200, "unknown_model")


async def test_requests_on_one_connection_are_answered_in_turn(tmp_path: Path) -> None:
    async with house(tmp_path) as home, client(home.port) as (reader, writer):
        bodies = [b'{"model":"m","messages":[{"role":"user","content":"%d"}]}' % n for n in range(5)]
        writer.write(b"".join(wire("POST", CHAT, body) for body in bodies))
        statuses = [(await read_response(reader)).status for _ in bodies]
        assert [b'"%d"' % n in seen.body for n, seen in enumerate(home.engines["laptop"].seen)] == [True] * 5
        times = [line.at_s for line in home.journal()]
    assert statuses == [200] * 5
    assert times == sorted(times)
