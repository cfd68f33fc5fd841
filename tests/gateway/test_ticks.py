"""Requests that come in one tick of the loop are dealt with step by step, and come to what they would one by one."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from tests.gateway.harness import CHAT, House, chat, house, local, remote, wire
from tests.http.harness import eventually
from tests.http.test_segments import Wire
from tidegate.core.model import Decision, Held, Request, Started
from tidegate.engines.fake import Script
from tidegate.http.connection import Connection

ASKED = wire("POST", CHAT, json.dumps(chat(max_tokens=10)).encode())
RESET = b"\1\0\0\0\0\0\0\0"  # a close that lingers for no time tells the peer at once


@asynccontextmanager
async def at_once(home: House, many: int) -> AsyncIterator[None]:
    """As many clients, whose requests are all there before the loop looks for any."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", home.port))) for _ in range(many)]
        await eventually(lambda: home.gateway.server.statistics().open == many)
        for one in clients:
            one.sendall(ASKED)
        yield


async def test_each_of_a_tick_is_decided_when_the_one_before_it_has_its_place(tmp_path: Path) -> None:
    async with house(tmp_path, laptop=local(concurrency=2), desk=local(concurrency=2)) as home:
        async with at_once(home, 8):
            await eventually(lambda: len(home.log()) == 8)
        told = [type(line.fact) for line in home.journal() if isinstance(line.fact, Decision | Started | Held)]
    assert told[:16:2] == [Decision] * 8
    assert told[1:16:2] == [Started] * 4 + [Held] * 4  # four places, and four that wait for them


async def test_of_a_tick_nobody_counts_on_the_money_of_another(tmp_path: Path) -> None:
    price = {"usd_per_1m_input_tokens": 1000, "usd_per_1m_output_tokens": 4000}
    async with house(tmp_path, budget={"usd_per_day": 1.0}, cloud=remote(price=price)) as home:
        async with at_once(home, 4):
            await eventually(lambda: len(home.log()) == 4)
        left = [line.fact.budget_usd for line in home.journal() if isinstance(line.fact, Request)]
    assert [usd is not None for usd in left] == [True] * 4
    assert left == sorted(set(left), reverse=True)  # type: ignore[type-var]


async def test_a_client_that_is_gone_before_its_tick_is_over_has_left_all_the_same(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        connection = Connection(home.gateway.server)
        connection.connection_made(cast("asyncio.Transport", Wire()))
        connection.data_received(ASKED)
        connection.connection_lost(None)
        await home.quiet()
        await eventually(lambda: len(home.log()) == 1)
        (line,) = home.log()
        assert home.gateway.server.idle
    assert (line["outcome"], line["status"]) == ("client_left", 499)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_may_leave_at_whatever_tick(tmp_path: Path, stream: bool) -> None:
    raw = wire("POST", CHAT, json.dumps(chat(stream=stream)).encode())
    async with house(tmp_path, laptop=local(Script(tokens=2, token_s=0.0)), cloud=remote()) as home:
        for ticks in range(40):
            with socket.create_connection(("127.0.0.1", home.port)) as one:
                one.sendall(raw)
                for _ in range(ticks):
                    await asyncio.sleep(0)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await home.quiet()
        await eventually(lambda: home.gateway.server.idle)
        outcomes = [line["outcome"] for line in home.log()]
    # Whether one that left at once was read at all, is the system's affair. The rest is looked at with every house.
    assert {"ok", "client_left"} >= set(outcomes)
    assert "ok" in outcomes
