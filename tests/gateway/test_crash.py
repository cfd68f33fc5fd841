"""Killed at any instant, or told to stop: what clients got is written down, engines stop, and the next one goes on."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import CHAT, KEY, Place, chat, house, local, remote, whole, wire
from tests.gateway.test_operators import running
from tests.http.harness import client, eventually, read_response
from tidegate.clock import Clock
from tidegate.core.model import Decision, Ended, Ending
from tidegate.core.replay import Replay
from tidegate.engines.fake import FakeEngine, Script
from tidegate.state.cap import Cap, Period
from tidegate.state.ledger import Ledger
from tidegate.telemetry.journal import read

CLIENTS = 12
INPUT_USD, OUTPUT_USD = 1e-6, 4e-6
PRICE = {"usd_per_1m_input_tokens": INPUT_USD * 1e6, "usd_per_1m_output_tokens": OUTPUT_USD * 1e6}
CAP = Cap(usd=1e4, period=Period.DAY)
LEASE_S = 660.0
SLOW = Script(tokens=6, token_s=0.01)
# Ours is full for longer than that, so that the rest is paid for.
HURRY = (("x-tidegate-slo-ttft-ms", "100"),)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_KEY", KEY)


@dataclass
class Got:
    """What clients have. `served`: who gave each whole answer, by the id of its decision. `usd`: what these cost.

    `broken` are requests that were sent on an open connection and had no whole answer.
    """

    served: dict[str, str] = field(default_factory=dict)
    usd: float = 0.0
    broken: int = 0


@asynccontextmanager
async def engines() -> AsyncIterator[tuple[list[FakeEngine], dict[str, Any]]]:
    """One of ours, which is nearly always full, and one that costs money. They outlive all gateways."""
    async with AsyncExitStack() as stack:
        ours, vendor = [await stack.enter_async_context(FakeEngine(SLOW)) for _ in range(2)]
        laptop: Place = local(url=ours.url, concurrency=2)
        yield [ours, vendor], {"laptop": laptop, "cloud": remote(url=vendor.url, price=PRICE)}


async def configured(folder: Path, places: dict[str, Any]) -> tuple[Path, int]:
    """A configuration on which a gateway has run, and the port at which others answer that run on it."""
    budget = {"usd_per_day": CAP.usd, "ledger": "ledger"}
    async with house(folder, budget=budget, gateway={"state_s": 1}, **places) as home:
        file, port = folder / "tidegate.toml", home.port
    file.write_text(file.read_text().replace('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{port}"'))
    return file, port


async def asks(port: int, got: Got, seed: int) -> None:
    """A client that asks until nobody listens, on one connection as long as it may."""
    draw = random.Random(seed)
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        got.broken += 1
        try:
            await _asks_on(reader, writer, got, draw)
            got.broken -= 1
        except (OSError, EOFError):
            return
        finally:
            writer.transport.abort()


async def _asks_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: Got, draw: random.Random) -> None:
    """Until the gateway says that this was the last."""
    while True:
        stream = draw.random() < 0.7
        ask = chat(f"{draw.random()}", stream=stream, max_tokens=10, stream_options={"include_usage": True})
        writer.write(wire("POST", CHAT, json.dumps(ask).encode(), HURRY))
        answer = whole(await read_response(reader))
        assert answer.status == 200, answer.body
        usage = answer.events[-2]["usage"] if stream else answer.json["usage"]
        got.served[answer.header("x-tidegate-decision")] = answer.endpoint
        if answer.endpoint == "cloud":
            got.usd += usage["prompt_tokens"] * INPUT_USD + usage["completion_tokens"] * OUTPUT_USD
        if answer.header("connection") == "close":
            return


def journalled(folder: Path) -> dict[str, str]:
    """Who has answered which request, by the journal, of which each decision comes out again."""
    served: dict[str, str] = {}
    replay = Replay()
    for line in read(folder / "journal"):
        found, fact = replay.feed(line), line.fact
        if isinstance(fact, Decision):
            assert found == fact
        elif isinstance(fact, Ended) and fact.ending is Ending.OK:
            served[fact.request_id] = fact.endpoint
    return served


def counted_usd(folder: Path) -> tuple[float, float, float]:
    """What the ledger has: spent, what may have been besides, and what is held for somebody who is under way."""
    ledger = Ledger.open(folder / "ledger", (CAP,), LEASE_S)
    try:
        (cap,) = ledger.status(Clock().now_s()).caps
    finally:
        ledger.close()
    return cap.spent_usd, cap.unconfirmed_usd, cap.reserved_usd


@asynccontextmanager
async def under_load(file: Path, port: int, got: Got, seed: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A gateway of its own process and clients, who have had their first answers; on leaving, all clients have left."""
    async with running(file) as (process, _):
        before = len(got.served)
        clients = [asyncio.create_task(asks(port, got, 1000 * seed + number)) for number in range(CLIENTS)]
        await eventually(lambda: len(got.served) > before + CLIENTS)
        yield process
        async with asyncio.timeout(30):
            await asyncio.gather(*clients)
            await process.wait()


@pytest.mark.slow
async def test_what_clients_got_is_written_down_whenever_the_gateway_is_killed(tmp_path: Path) -> None:
    """Ten times in a row, each time where the one before has left off."""
    got, draw = Got(), random.Random(5)
    async with engines() as (behind, places):
        file, port = await configured(tmp_path, places)
        for number in range(10):
            async with under_load(file, port, got, number) as process:
                await asyncio.sleep(0.3 * draw.random())  # any instant
                process.kill()
            await eventually(lambda: all(engine.in_flight == 0 for engine in behind))
            served = journalled(tmp_path)
            assert {name: served.get(name) for name in got.served} == got.served
            assert sum(counted_usd(tmp_path)) >= got.usd - 1e-9
        async with running(file):
            states = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
            async with client(port) as (reader, writer):
                writer.write(wire("POST", CHAT, json.dumps(chat()).encode()))
                assert whole(await read_response(reader)).status == 200
    assert got.broken > 0, "somebody was under way each time"
    assert {"laptop", "cloud"} == set(got.served.values())
    assert not [line for line in states if line.get("level") == "error"]


@pytest.mark.slow
async def test_a_gateway_that_is_told_to_stop_fails_nobody(tmp_path: Path) -> None:
    """Neither who has begun, nor who asks once more on the connection that it has."""
    got, draw = Got(), random.Random(6)
    async with engines() as (behind, places):
        file, port = await configured(tmp_path, places)
        for number in range(5):
            async with under_load(file, port, got, number) as process:
                await asyncio.sleep(0.2 * draw.random())
                process.send_signal(signal.SIGTERM)
            assert process.returncode == 0
        await eventually(lambda: all(engine.in_flight == 0 for engine in behind))
    assert got.broken == 0
    assert journalled(tmp_path) == got.served
    spent_usd, _, held_usd = counted_usd(tmp_path)
    # Beside what clients got, vendors bill attempts that another one has beaten, of which nobody may know how much.
    assert spent_usd >= got.usd - 1e-9
    assert held_usd == 0.0
